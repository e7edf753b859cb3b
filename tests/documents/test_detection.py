"""Object detection: boxes against slow, plain definitions, and the example on real images."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import Tensor, data
from minidl.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import boxes as geometry
import detection
from scenes import strew, varied

PLACE = st.integers(0, 8)
BOX = st.tuples(PLACE, PLACE, PLACE, PLACE).map(
    lambda p: (min(p[0], p[1]), min(p[2], p[3]), max(p[0], p[1]), max(p[2], p[3]))
)
SCORE = st.integers(0, 4)  # few values, so that some are equal


def boxes_of(found):
    return np.array(found, float).reshape(-1, 4)


def squares(box):
    """The unit squares that a box of whole numbers covers."""
    left, top, right, bottom = box
    return {(x, y) for x in range(left, right) for y in range(top, bottom)}


def overlap(a, b):
    """Squares in both, over squares in either."""
    either = squares(a) | squares(b)
    return len(squares(a) & squares(b)) / len(either) if either else 0.0


# --- boxes


@given(st.lists(BOX, max_size=5), st.lists(BOX, max_size=5))
def test_iou_counts_squares(a, b):
    right = [[overlap(p, q) for q in b] for p in a]
    got = geometry.iou(boxes_of(a), boxes_of(b))
    np.testing.assert_allclose(got, np.reshape(right, (len(a), len(b))), rtol=1e-12)


@given(st.lists(st.tuples(BOX, SCORE), max_size=8), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_nms_keeps_what_no_better_one_that_is_kept_covers(rows, threshold):
    boxes, scores = [box for box, _ in rows], [score for _, score in rows]
    better = [(-score, i) for i, score in enumerate(scores)]

    def stays(i):  # the definition, read literally
        rivals = (j for j in range(len(rows)) if better[j] < better[i] and stays(j))
        return all(overlap(boxes[i], boxes[j]) <= threshold for j in rivals)

    right = sorted(filter(stays, range(len(rows))), key=better.__getitem__)
    assert geometry.nms(boxes_of(boxes), np.array(scores, float), threshold).tolist() == right


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 6))
def test_average_precision_is_the_mean_of_the_best_precision_at_each_recall(hits, missed):
    total = sum(hits) + missed
    points = [(sum(hits[:n]), sum(hits[:n]) / n) for n in range(1, len(hits) + 1)]
    best = [max([p for found, p in points if found >= k], default=0) for k in range(1, total + 1)]
    got = geometry.average_precision(np.array(hits, bool), total)
    assert got == pytest.approx(np.mean(best)) if total else np.isnan(got)


IMAGE = st.tuples(st.lists(st.tuples(BOX, SCORE), max_size=4), st.lists(BOX, max_size=3))


@given(st.lists(IMAGE, min_size=1, max_size=3))
def test_map_goes_through_all_images_from_the_surest_detection_down(images):
    images = [(sorted(found, key=lambda row: -row[1]), right) for found, right in images]
    everything = [(score, i, box) for i, (found, _) in enumerate(images) for box, score in found]
    hits, taken = [], set()
    for _, i, box in sorted(everything, key=lambda row: -row[0]):  # stable, as the images come
        overlaps = [overlap(box, q) for q in images[i][1]]
        best = max(range(len(overlaps)), key=overlaps.__getitem__, default=None)
        hits.append(best is not None and overlaps[best] >= 0.5 and (i, best) not in taken)
        taken |= {(i, best)} if hits[-1] else set()
    total = sum(len(right) for _, right in images)
    got = geometry.average_precisions(
        [
            (boxes_of([b for b, _ in f]), np.zeros(len(f), int), np.array([s for _, s in f], float))
            for f, _ in images
        ],
        [(boxes_of(right), np.zeros(len(right), int)) for _, right in images],
        classes=2,
    )
    right = geometry.average_precision(np.array(hits, bool), total)
    np.testing.assert_array_equal(got, [right, np.nan])  # of the second class there is nothing


def test_average_precision_by_hand():
    # right, wrong, right, and one of three never found: 1/3 * 1 + 1/3 * 2/3 + 1/3 * 0
    assert geometry.average_precision(np.array([1, 0, 1], bool), 3) == pytest.approx(5 / 9)


def test_a_second_detection_of_an_object_is_wrong_and_labels_count():
    box = boxes_of([[0, 0, 4, 4]])
    found = [(np.repeat(box, 3, 0), np.array([1, 1, 0]), np.array([0.9, 0.8, 0.99]))]
    assert geometry.hits_of(found[0][0][:2], box).tolist() == [True, False]
    got = geometry.average_precisions(found, [(box, np.array([1]))], 3)
    np.testing.assert_array_equal(got, [np.nan, 1, np.nan])


def test_anchors_stand_about_the_centres_of_cells():
    got = geometry.anchors(2, 3, 8, np.array([[4, 6], [2, 2]]))
    assert got.shape == (12, 4)
    assert got[0].tolist() == [2, 1, 6, 7]  # about (4, 4)
    assert got[1].tolist() == [3, 3, 5, 5]
    assert got[2].tolist() == [10, 1, 14, 7]  # the next cell of the row
    assert got[-1].tolist() == [19, 11, 21, 13]  # the last, about (20, 12)


@given(st.integers(0, 2**32))
def test_decoding_undoes_encoding(seed):
    corners = np.random.default_rng(seed).uniform(0, 50, (2, 6, 2, 2))
    boxes, anchors = np.concatenate([corners.min(2), corners.max(2) + 1], axis=2)
    offsets = geometry.encode(boxes, anchors)
    np.testing.assert_allclose(geometry.decode(offsets, anchors), boxes, atol=1e-9)
    assert not geometry.encode(anchors, anchors).any()
    assert np.isfinite(geometry.decode(np.full((6, 4), 1e6), anchors)).all()


def test_matching_follows_its_rules():
    anchors = boxes_of(
        [[0, 0, 8, 8], [0, 0, 8, 7], [0, 0, 8, 3.6], [8, 8, 16, 16], [20, 20, 24, 24]]
    )
    boxes, labels = boxes_of([[0, 0, 8, 8], [9, 9, 11, 11]]), np.array([2, 0])
    says, offsets, weight = geometry.match(anchors, boxes, labels, 3)
    # IoU with the first box: 1, 7/8, 0.45: neither this nor that; the fourth is all the second has
    assert says.argmax(1)[:2].tolist() == [2, 2] and says[3].tolist() == [1, 0, 0]
    assert says.sum(1).tolist() == [1, 1, 0, 1, 0]
    assert weight.tolist() == [1, 1, 0, 1, 1]
    np.testing.assert_allclose(
        geometry.decode(offsets, anchors)[[0, 1, 3]], boxes[[0, 0, 1]], atol=1e-6
    )
    nothing = geometry.match(anchors, boxes_of([]), np.empty(0, int), 3)
    assert not nothing[0].any() and nothing[2].all()


def test_shapes_of_clear_groups_are_their_means():
    sizes = np.repeat([[4, 5], [10, 10], [30, 20]], 7, axis=0)
    boxes = np.concatenate([np.ones((21, 2)), 1 + sizes], axis=1)
    shuffled = boxes[np.random.default_rng(0).permutation(21)]
    np.testing.assert_allclose(geometry.shapes_of(shuffled, 3), [[4, 5], [10, 10], [30, 20]])


# --- the example


def test_boxes_follow_what_moves_the_image():
    rng = np.random.default_rng(0)
    images = np.zeros((40, 48, 64, 1), np.float32)
    corner = rng.integers(6, 22, (40, 2))
    boxes = [np.array([[x, y, x + 12, y + 9]], float) for x, y in corner]
    for picture, (x, y) in zip(images, corner):
        picture[y : y + 9, x : x + 12] = 1
    scenes = data.BoxedImages(images, boxes, [np.array([0])] * 40, ("block",))
    moved = varied(scenes, rng)
    seen = 0
    for picture, found in zip(moved.images, moved.boxes):
        for left, top, right, bottom in found:
            seen += 1
            inside = np.zeros((48, 64))
            y, x = np.indices((48, 64))
            inside = (x > left) & (x + 1 < right) & (y > top) & (y + 1 < bottom)
            outside = (x + 1 < left - 1) | (x > right + 1) | (y + 1 < top - 1) | (y > bottom + 1)
            assert picture[inside, 0].mean() > 0.9 and picture[outside, 0].max() < 0.01
    assert seen >= 35


def test_strewn_digits_lie_in_their_boxes():
    scenes = strew(data.digits("test"), 30, seed=1)
    again = strew(data.digits("test"), 30, seed=1)
    np.testing.assert_array_equal(scenes.images, again.images)
    assert scenes.images.shape == (30, 64, 64, 1) and scenes.images.dtype == np.uint8
    assert {len(boxes) for boxes in scenes.boxes} == {1, 2, 3, 4}
    for picture, boxes, labels in zip(scenes.images, scenes.boxes, scenes.labels):
        assert len(boxes) == len(labels)
        ink = picture[..., 0] > 100
        covered = np.zeros_like(ink)
        for left, top, right, bottom in boxes.astype(int):
            assert 0 <= left < right <= 64 and 0 <= top < bottom <= 64
            covered[top:bottom, left:right] = True
            for side in ink[top, left:right], ink[bottom - 1, left:right]:
                assert side.any()  # tight: there is ink at every edge
            for side in ink[top:bottom, left], ink[top:bottom, right - 1]:
                assert side.any()
        assert not (ink & ~covered).any()


def test_focal_loss_is_that_of_the_paper():
    logits, target = np.array([-3.0, 0.5, 2.0, -1.0]), np.array([0.0, 1.0, 0.0, 1.0])
    chance = 1 / (1 + np.exp(-logits))
    right = np.where(target == 1, chance, 1 - chance)  # p_t, equation 2
    share = np.where(target == 1, 0.25, 0.75)
    expected = -share * (1 - right) ** 2 * np.log(right)  # equation 5
    got = F.sigmoid_focal_loss(Tensor(logits), Tensor(target))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)


def run(monkeypatch, folder, task, *flags):
    """What the example writes down, having checked that its pictures are there."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sys, "argv", ["detection.py", task, *flags, "--out", str(folder)])
    detection.main()
    folder = folder / f"detection-{task}"
    names = {path.name for path in folder.iterdir()}
    assert names == {"curves.png", "found.png", "model.safetensors", "result.json"}
    return json.loads((folder / "result.json").read_text())


def test_row_38_the_detector_runs_and_learns(tmp_path, monkeypatch, capsys):
    result = run(monkeypatch, tmp_path, "digits", "--quick")
    first, last = result["history"]["loss"]
    assert last < first and 0 <= result["mAP"] <= 1
    assert f"mAP@0.5 {result['mAP']:.4f}" in capsys.readouterr().out


@pytest.mark.download
def test_row_38_blood_cells_are_learned_from(tmp_path, monkeypatch):
    result = run(monkeypatch, tmp_path, "cells", "--quick")
    first, last = result["history"]["loss"]
    assert last < first and set(result["average_precision"]) == {"RBC", "WBC", "Platelets"}


@pytest.mark.download
def test_row_38_digits_are_found_on_canvases(tmp_path, monkeypatch):
    # a floor for a fifth of the training; all of it reaches more
    assert run(monkeypatch, tmp_path, "digits", "--epochs", "2")["mAP"] > 0.4
