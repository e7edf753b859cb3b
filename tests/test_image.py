"""minidl.data.image against Pillow, against sums written out, and on every device."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import Tensor
from minidl.data import DataLoader, Flip, Normalize, PadCrop, RandomAffine, Resize, Scale, image

PIL = pytest.importorskip("PIL.Image")
SIZES = st.integers(1, 24)


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


# --- numbers and orders


def test_an_image_becomes_numbers_and_bytes_again():
    x = noise(5, 4, 3)
    y = image.to_tensor(PIL.fromarray(x))
    assert (y.shape, y.dtype, y.device.name) == ((5, 4, 3), np.float32, "cpu")
    np.testing.assert_array_equal(y.numpy(), x / np.float32(255))
    np.testing.assert_array_equal(image.to_bytes(y), x)
    assert image.to_tensor(x[..., 0]).shape == (5, 4, 1)
    assert image.to_tensor(x[None]).shape == (1, 5, 4, 3)
    np.testing.assert_array_equal(image.to_tensor(np.float64([[[300.5]]])).numpy(), [[[300.5]]])
    np.testing.assert_array_equal(image.to_bytes(np.array([-1, 0.5, 7])), [0, 128, 255])


def test_normalize_is_that_of_a_loader():
    x, mean, std = noise(6, 4, 4, 3), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    (batch,) = next(iter(DataLoader((x,), 6, transform=Normalize(mean, std))))
    mine = image.normalize(image.to_tensor(x), mean, std)
    np.testing.assert_allclose(mine.numpy(), batch.numpy(), rtol=1e-5, atol=1e-6)
    plain = image.normalize(x / 255.0, mean, std)
    assert isinstance(plain, np.ndarray) and plain.dtype == np.float64
    np.testing.assert_allclose(plain, (x / 255 - mean) / std)


def test_channels_come_first_and_last_again():
    for x in (noise(2, 3, 4, 5), noise(3, 4, 5)):
        first = image.to_nchw(x)
        assert first.shape[-3:] == (5, 3, 4)
        np.testing.assert_array_equal(first, np.moveaxis(x, -1, -3))
        np.testing.assert_array_equal(image.to_nhwc(first), x)
        float_ = x.astype(np.float32)
        np.testing.assert_array_equal(image.to_nchw(Tensor(float_)).numpy(), image.to_nchw(float_))


# --- sizes


@given(SIZES, SIZES, SIZES, SIZES, st.sampled_from([1, 3]))
def test_resize_is_pillows(height, width, rows, columns, channels):
    x = noise(height, width, channels, seed=height * 100 + width)
    mine = image.resize(x, (rows, columns))
    old = PIL.fromarray(x.squeeze(2) if channels == 1 else x)
    right = np.asarray(old.resize((columns, rows), PIL.Resampling.BILINEAR))
    assert mine.dtype == np.uint8
    # Pillow rounds to bytes between rows and columns, which moves a mean by half a byte at most
    assert np.abs(mine.astype(int) - right.reshape(rows, columns, channels)).max() <= 1


@given(SIZES, SIZES, SIZES, SIZES)
def test_resize_of_floats_is_pillows(height, width, rows, columns):
    x = noise(height, width, dtype=np.float32, seed=height * 100 + width)
    right = np.asarray(PIL.fromarray(x).resize((columns, rows), PIL.Resampling.BILINEAR))
    mine = image.resize(x[..., None], (rows, columns))[..., 0]
    np.testing.assert_allclose(mine, right, rtol=1e-5, atol=1e-3)


def test_without_antialias_two_by_two_pixels_count():
    # torch.nn.functional.interpolate(mode="bilinear") of PyTorch 2.13 gave these
    x = np.arange(12, dtype=np.float32).reshape(3, 4, 1) ** 2
    right = [[4.5, 9.5, 17.833333], [54.5, 75.5, 99.833333]]
    smooth = [[7.2, 13, 21.6], [50.2, 68, 88.6]]  # the same with antialias=True
    np.testing.assert_allclose(image.resize(x, (2, 3), antialias=False)[..., 0], right, rtol=1e-6)
    np.testing.assert_allclose(image.resize(x, (2, 3))[..., 0], smooth, rtol=1e-6)


def test_a_batch_is_resized_image_by_image_and_passes_gradients():
    x = noise(3, 7, 6, 2, dtype=np.float64)
    whole = image.resize(x, (4, 9))
    for one, y in zip(x, whole, strict=True):
        np.testing.assert_allclose(image.resize(one, (4, 9)), y, rtol=1e-12)
    leaf, slope = Tensor(x, requires_grad=True), noise(3, 4, 9, 2, dtype=np.float64)
    (image.resize(leaf, (4, 9)) * Tensor(slope)).sum().backward()
    # the transpose of a linear map: <A x, dy> = <x, A' dy>
    assert (whole * slope).sum() == pytest.approx((x * leaf.grad.numpy()).sum(), rel=1e-12)


def test_resize_in_a_loader():
    x = noise(4, 6, 6, 3)
    (y,) = next(
        iter(DataLoader((x,), 4, transform=[Resize(9), Flip(), Normalize(0.5, 0.25)], seed=0))
    )
    (flat,) = next(iter(DataLoader((x,), 4, transform=[Flip(), Normalize(0.5, 0.25)], seed=0)))
    assert y.shape == (4, 9, 9, 3)
    np.testing.assert_allclose(y.numpy(), image.resize(flat.numpy(), 9), rtol=1e-5, atol=1e-6)
    for late in (PadCrop(1), RandomAffine(5)):
        with pytest.raises(ValueError, match=r"stands (after Resize|too late)"):
            DataLoader((x,), 4, transform=[Resize(9), late])
    with pytest.raises(ValueError, match="functions come last"):
        DataLoader((x,), 4, transform=[Resize(9), np.abs, Scale()])


# --- affine maps


def test_whole_moves_and_mirrors_are_exact():
    x = noise(2, 5, 4, 3)
    np.testing.assert_array_equal(image.affine(x, [[1, 0, 0], [0, 1, 0]]), x)
    mirror = image.affine(x, [[-1, 0, 3], [0, 1, 0]])
    np.testing.assert_array_equal(mirror, x[:, :, ::-1])
    turned = image.affine(x, [[0, 1, 0], [-1, 0, 4]], size=(4, 5))  # column, row <- row, 4 - column
    np.testing.assert_array_equal(turned, np.rot90(x, -1, (1, 2)))
    moved = image.affine(x, [[1, 0, -1], [0, 1, 0]])
    np.testing.assert_array_equal(moved[:, :, 1:], x[:, :, :-1])
    assert not moved[:, :, 0].any()
    np.testing.assert_array_equal(
        image.affine(x, [[1, 0, -1], [0, 1, 0]], padding_mode="border")[:, :, 0], x[:, :, 0]
    )


def bilinear(x, matrix, rows, columns):
    """The definition, pixel by pixel: a mean of four, those outside being 0."""
    y = np.zeros((rows, columns, x.shape[2]))
    for i, j in np.ndindex(rows, columns):
        u, v = matrix @ (j, i, 1.0)
        left, top = int(np.floor(u)), int(np.floor(v))
        for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            if 0 <= row < x.shape[0] and 0 <= column < x.shape[1]:
                y[i, j] += (1 - abs(u - column)) * (1 - abs(v - row)) * x[row, column]
    return y


NUMBERS = st.floats(-3, 3, width=32)


@given(st.lists(NUMBERS, min_size=6, max_size=6), SIZES, SIZES)
def test_an_affine_map_takes_bilinear_means(numbers, rows, columns):
    matrix = np.reshape(numbers, (2, 3))
    x = noise(2, 7, 6, 2, dtype=np.float64)
    y = image.affine(x, matrix, (rows, columns))
    # places are multiples of 2**-32 and weights of 2**-24; neighbours differ by 255 at most
    for one, warped in zip(x, y, strict=True):
        np.testing.assert_allclose(
            warped, bilinear(one, matrix, rows, columns), atol=255 * 2.0**-21
        )


def test_inside_an_image_it_is_pillows_transform():
    x = noise(1, 30, 40, 1, dtype=np.float32)
    turn = np.deg2rad(20)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 12], [np.sin(turn), np.cos(turn), 2.5]])
    y = image.affine(x, matrix, (12, 20))[0, ..., 0]
    # Pillow counts from the corners of pixels, minidl from their centres
    shifted = np.column_stack([matrix[:, :2], matrix[:, 2] + 0.5 - matrix[:, :2] @ (0.5, 0.5)])
    how = PIL.Transform.AFFINE, shifted.ravel(), PIL.Resampling.BILINEAR
    right = np.asarray(PIL.fromarray(x[0, ..., 0]).transform((20, 12), *how))
    np.testing.assert_allclose(y, right, atol=2e-3)


def test_on_every_device_the_same(cuda):
    x = noise(2, 5, 6, 3, dtype=np.float32)
    there = Tensor(x, device="cuda")
    matrix = [[0.8, 0.3, -0.4], [-0.2, 1.1, 0.7]]
    moved = image.affine(there, matrix, 7, "border")
    assert moved.device.name == "cuda"
    np.testing.assert_allclose(moved.numpy(), image.affine(x, matrix, 7, "border"), rtol=1e-6)
    np.testing.assert_allclose(image.resize(there, 3).numpy(), image.resize(x, 3), rtol=1e-5)
    np.testing.assert_array_equal(
        image.to_tensor(noise(2, 2), "cuda").numpy(), image.to_tensor(noise(2, 2)).numpy()
    )
    loader = DataLoader((noise(3, 4, 4, 1),), 3, transform=[Resize(6)], device="cuda")
    here = DataLoader((noise(3, 4, 4, 1),), 3, transform=[Resize(6)])
    (a,), (b,) = next(iter(loader)), next(iter(here))
    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (
            lambda: image.to_tensor(np.zeros((2, 2), np.int64)),
            TypeError,
            "uint8 or floating, got int64",
        ),
        (lambda: image.to_tensor(np.zeros(3)), ValueError, r"three axes.*x \(3,\)"),
        (lambda: image.to_bytes(np.array([np.nan])), TypeError, "no NaN"),
        (lambda: image.to_bytes(noise(2)), TypeError, "from 0 to 1"),
        (lambda: image.normalize(noise(2, 2, 3), 0, 1), TypeError, "image.to_tensor"),
        (
            lambda: image.normalize(np.zeros((2, 2, 3)), (0, 1), 1),
            ValueError,
            "do not fit the channels",
        ),
        (lambda: image.normalize(np.zeros((2, 2, 3)), 0, 0), ValueError, "above 0"),
        (lambda: image.resize(np.zeros((2, 2, 3)), 0), ValueError, "at least a pixel"),
        (lambda: image.resize(np.zeros((2, 3)), 2), ValueError, "three axes"),
        (lambda: image.to_nchw(np.zeros((2, 3))), ValueError, "three axes"),
        (lambda: image.affine(np.zeros((2, 3, 1)), np.eye(3)[:2]), ValueError, r"\(N, H, W, C\)"),
        (
            lambda: image.affine(np.zeros((1, 2, 3, 1)), np.full((2, 3), np.nan)),
            ValueError,
            "finite",
        ),
        (
            lambda: image.affine(np.zeros((1, 2, 3, 1)), np.eye(3)),
            ValueError,
            r"matrix is \(2, 3\)",
        ),
        (
            lambda: image.affine(np.zeros((1, 2, 3, 1)), np.eye(3)[:2], padding_mode="edge"),
            ValueError,
            "padding_mode",
        ),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
