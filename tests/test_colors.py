"""ColorJitter, CutMix, RandomRotation: what they draw and what they do."""

import colorsys

import numpy as np
import pytest

from minidl import data
from minidl.data import (
    ColorJitter,
    CutMix,
    Cutout,
    DataLoader,
    Flip,
    MixUp,
    Normalize,
    PadCrop,
    RandomAffine,
    RandomRotation,
    Scale,
)

LUMA = np.array([0.299, 0.587, 0.114])
JITTER = ColorJitter(0.4, (0.5, 1.5), 0.6, 0.1)
LISTS = [
    JITTER,
    [PadCrop(1), Flip(), JITTER, Normalize((0.5, 0.4, 0.3), 0.25), Cutout(2)],
    [RandomRotation(30), ColorJitter(hue=0.5)],
    CutMix(1.0, 4),
    [Flip(), JITTER, Normalize(0.5, 0.5), CutMix(0.4, 4)],
]


def noise(n=10, height=6, width=5, channels=3):
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, height, width, channels)).astype(np.uint8)
    return data.Dataset(images, rng.integers(0, 4, n), ("a", "b", "c", "d"))


def epoch(loader):
    """All that one epoch yields, as two arrays."""
    batches = [(x.numpy(), y.numpy()) for x, y in loader]
    return tuple(np.concatenate(column) for column in zip(*batches, strict=True))


def after(images, transform, seed=0):
    (x,) = next(iter(DataLoader((images,), len(images), transform=transform, seed=seed)))
    return x.numpy()


# --- the same for a seed


@pytest.mark.parametrize("transform", LISTS)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_no_batch_and_no_order_changes_what_happens_to_an_image(transform, size):
    whole = epoch(DataLoader(noise(), 10, shuffle=True, seed=5, transform=transform))
    parts = epoch(DataLoader(noise(), size, shuffle=True, seed=5, transform=transform))
    order, _ = epoch(DataLoader((np.arange(10), np.arange(10)), shuffle=True, seed=5))
    in_turn = epoch(DataLoader(noise(), 4, seed=5, transform=transform))
    for a, b, c in zip(whole, parts, in_turn, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c[order])


@pytest.mark.parametrize("transform", LISTS)
def test_another_seed_and_another_epoch_draw_anew(transform):
    loader = DataLoader(noise(), 10, seed=5, transform=transform)
    first, second = epoch(loader)[0], epoch(loader)[0]
    other = epoch(DataLoader(noise(), 10, seed=6, transform=transform))[0]
    for a, b in ((first, second), (first, other), (second, other)):
        assert (a != b).any((1, 2, 3)).sum() > 5
    loader.set_epoch(0)
    np.testing.assert_array_equal(epoch(loader)[0], first)


# --- colours: the formulas of torchvision, pixel by pixel


def alike(low, high=None):
    """A range in which there is one number."""
    return (low, low if high is None else high)


IMAGES = np.random.default_rng(0).random((3, 4, 5, 3))
GREY = IMAGES @ LUMA


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.7])
def test_brightness_contrast_and_saturation(factor):
    f = alike(factor)
    np.testing.assert_allclose(
        after(IMAGES, ColorJitter(brightness=f)), np.clip(factor * IMAGES, 0, 1), atol=1e-12
    )
    mean = GREY.mean((1, 2))[:, None, None, None]
    expected = np.clip(factor * IMAGES + (1 - factor) * mean, 0, 1)
    np.testing.assert_allclose(after(IMAGES, ColorJitter(contrast=f)), expected, atol=1e-12)
    expected = np.clip(factor * IMAGES + (1 - factor) * GREY[..., None], 0, 1)
    np.testing.assert_allclose(after(IMAGES, ColorJitter(saturation=f)), expected, atol=1e-12)


def test_they_follow_each_other_and_are_cut_after_each():
    steps = [ColorJitter(brightness=alike(2)), ColorJitter(contrast=alike(0.5))]
    x = after(IMAGES, ColorJitter(brightness=alike(2), contrast=alike(0.5)))
    np.testing.assert_array_equal(x, after(after(IMAGES, steps[0]), steps[1]))
    assert (np.clip(2 * IMAGES, 0, 1) == 1).any()


@pytest.mark.parametrize("turn", [0.0, 0.1, -0.25, 0.5])
def test_hue_turns_colours_and_keeps_the_brightness(turn):
    pale = 0.45 + 0.1 * IMAGES  # no colour is cut off
    x = after(pale, ColorJitter(hue=alike(turn)))
    np.testing.assert_allclose(x @ LUMA, pale @ LUMA, atol=2e-5)
    grey = np.full((1, 2, 2, 3), 0.3)
    np.testing.assert_allclose(after(grey, ColorJitter(hue=alike(turn))), grey, atol=1e-5)
    if not turn:
        np.testing.assert_allclose(x, pale, atol=1e-12)
        return
    back = after(x, ColorJitter(hue=alike(-turn)))
    np.testing.assert_allclose(back, pale, atol=1e-10)
    red = after(np.full((1, 1, 1, 3), 0.4) + [0.1, 0, 0], ColorJitter(hue=alike(turn)))[0, 0, 0]
    away = (colorsys.rgb_to_hsv(*red)[0] - turn + 0.5) % 1 - 0.5  # HSV's circle, nearly
    assert abs(away) < 0.06


def test_amounts_are_drawn_from_their_ranges():
    ones = np.full((2000, 1, 1, 3), 0.5)
    x = after(ones, ColorJitter(brightness=0.4))[:, 0, 0, 0] / 0.5
    assert 0.6 <= x.min() < 0.61 and 1.39 < x.max() <= 1.4
    assert abs(x.mean() - 1) < 5 * 0.8 / np.sqrt(12 * 2000)
    x = after(ones, ColorJitter(brightness=(0.2, 0.3)))[:, 0, 0, 0] / 0.5
    assert x.min() >= 0.2 and x.max() <= 0.3
    assert ColorJitter(3.0).ranges[0].tolist() == [0, 4]


def test_bytes_are_scaled_before_and_normalised_behind():
    images = noise().images
    jitter, normalize = ColorJitter(brightness=alike(0.5)), Normalize((0.1, 0.2, 0.3), 0.25)
    expected = (images / 255 * 0.5 - [0.1, 0.2, 0.3]) / 0.25
    for steps in ([jitter, normalize], [Scale(), jitter, normalize]):
        np.testing.assert_allclose(after(images, steps), expected, atol=1e-5)
    np.testing.assert_allclose(
        after(images, [jitter, normalize, Cutout(50)]), np.zeros(images.shape), atol=0
    )


def test_grey_images_have_no_colours():
    grey = GREY[..., None]
    x = after(grey, ColorJitter(saturation=alike(0), hue=alike(0.3)))
    np.testing.assert_array_equal(x, grey)
    mean = grey.mean((1, 2, 3), keepdims=True)
    expected = 0.5 * grey + 0.5 * mean
    np.testing.assert_allclose(after(grey, ColorJitter(contrast=alike(0.5))), expected, atol=1e-12)


# --- CutMix


def test_a_box_of_another_image_and_its_share_of_the_label():
    numbers = np.arange(4)
    images = np.zeros((4, 8, 6, 4)) + np.eye(4)[:, None, None]  # a pixel shows its label
    seen = []
    for seed in range(60):
        x, y = epoch(DataLoader((images, numbers), 3, seed=seed, transform=CutMix(1.0, 4)))
        np.testing.assert_allclose(x.mean((1, 2)), y, atol=1e-12)  # the areas that are seen
        assert set(np.unique(x)) == {0, 1}
        for image, number in zip(x, numbers):
            rows, columns = np.nonzero(image[..., number] == 0)
            if len(rows):  # what is not its own is one box
                box = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
                assert (box[..., number] == 0).all()
                seen.append(box.shape[:2])
    assert len(set(seen)) > 20


def test_the_share_of_a_whole_box_is_lam():
    u = np.random.default_rng(0).random((2000, 5))
    u[:, 3:] = 0.5  # in the middle: nothing is cut off
    mix = CutMix(1.0, 2)
    _, lam = mix.draw(u, 10)
    top, bottom, left, right = mix.box(u, lam, 200, 100)
    area = (bottom - top) * (right - left) / 20000
    assert np.abs(area - (1 - lam)).max() < 0.02
    assert (np.abs((bottom - top) - 2 * (right - left)) <= 3).all()  # as the image in shape
    assert (top >= 0).all() and (bottom <= 200).all()


def test_a_rotation_is_an_affine_map():
    assert RandomRotation(30) == RandomAffine(30)
    assert RandomRotation((0, 9), "border") == RandomAffine((0, 9), padding_mode="border")


# --- what is refused


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ColorJitter(-1), "brightness is -1, but must be at least 0"),
        (lambda: ColorJitter(contrast=(2, 1)), "contrast goes from 2 to 1"),
        (lambda: ColorJitter(hue=0.7), r"hue goes from -0.5 to 0.7, .* from -0.5 to 0.5 at most"),
        (lambda: CutMix(0, 3), "CutMix: alpha must be above 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "transform, message",
    [
        ([Normalize(0.5, 1), ColorJitter(0.1)], "ColorJitter stands before any Normalize"),
        ([ColorJitter(0.1), Flip()], r"Flip\(\) stands too late"),
        ([Cutout(2), ColorJitter(0.1)], "ColorJitter.* stands too late"),
        ([ColorJitter(0.1)] * 2, "two ColorJitter"),
        ([MixUp(1, 4), CutMix(1, 4)], "MixUp or CutMix, but not both"),
        ([CutMix(1, 3)], "CutMix: labels from 0 to 3, but 3 classes"),
    ],
)
def test_lists_that_do_not_fit_are_refused(transform, message):
    with pytest.raises(ValueError, match=message):
        next(iter(DataLoader(noise(), transform=transform)))


@pytest.mark.parametrize("transform", LISTS)
def test_batches_made_on_cuda_are_those_of_the_cpu(cuda, transform):
    here, there = (
        epoch(DataLoader(noise(), 4, shuffle=True, seed=1, transform=transform, device=device))
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(there[0], here[0], atol=1e-5)
    np.testing.assert_array_equal(there[1], here[1])
