"""Data sets: what they hold, how they are split; image_batch, the definition."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import data
from minidl.data import draw_digits, shipped
from minidl.kernels.reference.augment import image_batch


def noise(n=10, height=6, width=5, channels=3, dtype=np.uint8):
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, height, width, channels)).astype(dtype)
    return data.Dataset(images, rng.integers(0, 4, n), ("a", "b", "c", "d"))


# --- the digits that come with minidl


@pytest.mark.parametrize("split, each", [("train", 1000), ("test", 200)])
def test_the_shipped_digits_hold_every_class_equally_often(split, each):
    digits = data.digits(split)
    assert digits.images.shape == (10 * each, 28, 28, 1) and digits.images.dtype == np.uint8
    assert digits.labels.dtype == np.int64
    np.testing.assert_array_equal(np.bincount(digits.labels), [each] * 10)
    index = shipped.indices(split)
    assert (np.diff(index) > 0).all() and index[0] >= 0 and index[-1] < 6 * 10_000
    assert 0.125 < digits.images.mean() / 255 < 0.14


def test_the_first_shipped_digits_are_these():
    assert data.digits("train").labels[:10].tolist() == [1, 9, 1, 8, 9, 0, 7, 9, 9, 0]
    assert data.digits("test").labels[:10].tolist() == [5, 9, 9, 7, 1, 2, 1, 7, 5, 5]


def test_a_caller_cannot_change_the_shipped_digits():
    data.digits().images[:] = 0
    assert data.digits().images.any()


def test_damaged_digits_are_refused(tmp_path, monkeypatch):
    damaged = tmp_path / "digits.npz"
    content = bytearray(shipped.PATH.read_bytes())
    content[1000] ^= 1
    damaged.write_bytes(content)
    monkeypatch.setattr(shipped, "PATH", damaged)
    with pytest.raises(ValueError, match=rf"digits\.npz: .*expected {shipped.SHA256}"):
        data.digits()


def test_the_licence_names_the_authors_of_the_digits():
    text = (shipped.PATH.parent / "LICENSE.digits").read_text(encoding="utf-8")
    for word in (
        "Yann LeCun",
        "Corinna Cortes",
        "Burges",
        "creativecommons.org/licenses/by-sa/3.0",
    ):
        assert word in text


def test_the_draw_ranks_by_the_hash_that_its_rule_names():
    labels = np.random.default_rng(0).integers(0, 10, 5_000)
    drawn = draw_digits.draw("test", labels)
    assert len(drawn) == 2_000 and (np.diff(drawn) > 0).all()

    def rank(i):
        return hashlib.sha256(f"0 test {i}".encode()).hexdigest()

    for digit in range(10):
        of_digit = np.flatnonzero(labels == digit)
        taken = set(of_digit) & set(drawn.tolist())
        assert max(map(rank, taken)) < min(map(rank, set(of_digit) - taken))


# --- the full sets: `minidl data fetch NAME`, then pytest -m download

FACTS = {  # name: images, mean, std, first labels, by split
    ("mnist", "train"): (60_000, [0.13066], [0.30811], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]),
    ("mnist", "test"): (10_000, [0.13251], [0.31048], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]),
    ("fashion_mnist", "train"): (60_000, [0.28604], [0.35302], [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]),
    ("cifar10", "train"): (
        50_000,
        [0.49139968, 0.48215841, 0.44653091],
        [0.24703223, 0.24348513, 0.26158784],
        [6, 9, 9, 4, 1, 1, 2, 7, 8, 3],
    ),
}


@pytest.mark.download
@pytest.mark.parametrize("name, split", FACTS)
def test_a_full_set_is_what_the_world_knows(name, split):
    full = getattr(data, name)(split)
    size, mean, std, first = FACTS[name, split]
    assert len(full) == size and full.labels[:10].tolist() == first
    histogram = [np.bincount(full.images[..., c].ravel(), minlength=256) for c in range(len(mean))]
    value = np.arange(256) / 255
    found = [h @ value / h.sum() for h in histogram]
    np.testing.assert_allclose(found, mean, atol=5e-6)
    spread = [np.sqrt(h @ (value - m) ** 2 / h.sum()) for h, m in zip(histogram, found)]
    np.testing.assert_allclose(spread, std, atol=5e-6)


@pytest.mark.download
def test_cifar10_test_labels():
    assert data.cifar10("test").labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]


@pytest.mark.download
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_shipped_digits_are_the_official_ones(split):
    full, digits, index = data.mnist(split), data.digits(split), shipped.indices(split)
    np.testing.assert_array_equal(digits.images, full.images[index])
    np.testing.assert_array_equal(digits.labels, full.labels[index])
    np.testing.assert_array_equal(draw_digits.draw(split, full.labels), index)


# --- Dataset


def test_a_dataset_gives_samples_and_parts():
    whole = noise()
    image, label = whole[3]
    np.testing.assert_array_equal(image, whole.images[3])
    assert label == whole.labels[3] and isinstance(label, int)
    part = whole[[1, 5]]
    assert len(part) == 2 and part.classes == whole.classes and len(whole[2:]) == 8
    assert repr(whole) == "Dataset(10 x 6 x 5 x 3 uint8, 4 classes)"


@pytest.mark.parametrize(
    "images, labels, error, message",
    [
        (np.zeros((2, 3, 3), np.uint8), [0, 1], ValueError, r"\(N, H, W, C\), got shape \(2, 3, 3"),
        (np.zeros((2, 3, 3, 1), np.uint8), [0], ValueError, r"2 images, but labels have shape \(1"),
        (np.zeros((2, 3, 3, 1), np.uint8), [0.0, 1.0], TypeError, "labels are integers, got float"),
        (np.zeros((2, 3, 3, 1), complex), [0, 1], TypeError, "got complex128"),
        (np.zeros((2, 3, 3, 1), np.uint8), [0, 2], ValueError, "labels from 0 to 2, but 2 classes"),
    ],
)
def test_what_is_no_dataset_is_refused(images, labels, error, message):
    with pytest.raises(error, match=message):
        data.Dataset(images, labels, ("a", "b"))


@pytest.mark.parametrize("lengths", [[6, 3, 1], [0.6, 0.3, 0.1], [10], [0, 10]])
def test_random_split_loses_and_repeats_nothing(lengths):
    whole = noise()
    whole.labels[:] = [0, 1, 2, 3] * 2 + [0, 1]
    parts = data.random_split(whole, lengths, seed=3)
    assert [len(p) for p in parts] == [n if isinstance(n, int) else round(10 * n) for n in lengths]
    rows = sorted(image.tobytes() for part in parts for image in part.images)
    assert rows == sorted(image.tobytes() for image in whole.images)
    again = data.random_split(whole, lengths, seed=3)
    for one, other in zip(parts, again):
        np.testing.assert_array_equal(one.images, other.images)
    firsts = [p[0] for p in data.random_split(list(range(10)), lengths) if len(p)]
    assert len(set(firsts)) == len(firsts)


@pytest.mark.parametrize("lengths", [[5, 6], [0.5, 0.6], [-1, 11], []])
def test_random_split_refuses_lengths_that_do_not_add_up(lengths):
    with pytest.raises(ValueError, match="do not sum to the 10 samples"):
        data.random_split(noise(), lengths)


# --- image_batch, the definition


def test_image_batch_by_hand():
    images = np.arange(1, 5, dtype=np.uint8).reshape(1, 2, 2, 1)
    y = np.full((2, 2, 2, 1), np.nan, np.float32)
    scale, shift = np.array([2], np.float32), np.array([-1], np.float32)
    image_batch(images, np.array([0, 0]), scale, shift, y, 0, 0, 0, False)
    np.testing.assert_array_equal(y[..., 0], [[[1, 3], [5, 7]]] * 2)
    seen = set()
    for epoch_number in range(200):
        image_batch(images, np.array([0, 0]), scale, shift, y, 5, epoch_number, 1, True)
        np.testing.assert_array_equal(y[0], y[1])
        seen.add(y[0].tobytes())
    # 9 places and 2 directions; the pictures in which only one corner shows coincide in no pair
    assert len(seen) == 18


@given(st.integers(0, 2**64 - 1), st.integers(0, 9), st.integers(0, 3), st.booleans())
def test_image_batch_treats_an_image_by_its_number_alone(seed, epoch_number, pad, flip):
    images, one, zero = noise().images, np.ones(3), np.zeros(3)
    rest = one, zero, np.empty((10, 6, 5, 3)), seed, epoch_number, pad, flip
    whole = image_batch(images, np.arange(10), *rest).copy()
    backwards = image_batch(images, np.arange(10)[::-1], *rest)
    np.testing.assert_array_equal(backwards[::-1], whole)
    alone = image_batch(images, np.array([7]), one, zero, np.empty((1, 6, 5, 3)), *rest[3:])
    np.testing.assert_array_equal(alone[0], whole[7])


def test_image_batch_draws_every_shift_and_both_directions_evenly():
    images = np.zeros((4000, 1, 1, 1), np.uint8)
    images[:] = 1  # one bright pixel: it stays only when the crop begins at (1, 1)
    one = np.ones(1, np.float32)
    y = np.empty(images.shape, np.float32)
    kept = image_batch(images, np.arange(4000), one, 0 * one, y, 1, 0, 1, False).mean()
    assert abs(kept - 1 / 9) < 5 * np.sqrt(1 / 9 * 8 / 9 / 4000)
    pair = np.tile(np.array([0, 1], np.uint8).reshape(1, 1, 2, 1), (4000, 1, 1, 1))
    y = np.empty(pair.shape, np.float32)
    mirrored = image_batch(pair, np.arange(4000), one, 0 * one, y, 1, 0, 0, True)[:, 0, 0].mean()
    assert abs(mirrored - 1 / 2) < 5 * np.sqrt(1 / 4 / 4000)
