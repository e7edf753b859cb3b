"""RandomAffine, Cutout, MixUp: what they draw, what they do, and that no batch changes it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import data, nn
from minidl.data import Cutout, DataLoader, Flip, MixUp, Normalize, PadCrop, RandomAffine, Scale
from minidl.train import evaluate, fit


def noise(n=10, height=6, width=5, channels=3, dtype=np.uint8):
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, height, width, channels)).astype(dtype)
    return data.Dataset(images, rng.integers(0, 4, n), ("a", "b", "c", "d"))


def epoch(loader):
    """All that one epoch yields, as two arrays."""
    batches = [(x.numpy(), y.numpy()) for x, y in loader]
    return tuple(np.concatenate(column) for column in zip(*batches, strict=True))


def images_of(images, transform, seed=0):
    """Images after a transform, unscaled, in one batch."""
    (x,) = next(iter(DataLoader((images,), len(images), transform=transform, seed=seed)))
    return x.numpy()


ALL = [
    PadCrop(1), RandomAffine(30, (0.2, 0.1), (0.8, 1.2), 10), Flip(), Normalize(0.5, 0.25),
    Cutout(3), MixUp(0.4, 4), np.abs,
]  # fmt: skip
LISTS = [ALL[:3], [Flip(), Cutout(2)], MixUp(1.0, 4), ALL]


# --- the same for a seed


@pytest.mark.parametrize("transform", LISTS)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_no_batch_and_no_order_changes_what_happens_to_an_image(transform, size):
    whole = epoch(DataLoader(noise(), 10, shuffle=True, seed=5, transform=transform))
    parts = epoch(DataLoader(noise(), size, shuffle=True, seed=5, transform=transform))
    in_turn = epoch(DataLoader(noise(), 4, seed=5, transform=transform))
    order, _ = epoch(DataLoader((np.arange(10), np.arange(10)), shuffle=True, seed=5))
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


@pytest.mark.parametrize("taken", range(6))
def test_a_loader_goes_on_where_another_stood(taken):
    def two_epochs(source):
        while source.epoch < 2:
            for x, y in source:
                yield x.numpy(), y.numpy(), source.state_dict()

    whole = list(two_epochs(DataLoader(noise(), 4, shuffle=True, seed=1, transform=ALL)))
    resumed = DataLoader(noise(), 4, shuffle=True, seed=99, transform=ALL)
    resumed.load_state_dict(whole[taken][2])
    rest = list(two_epochs(resumed))
    assert len(rest) == len(whole) - taken - 1
    for a, b in zip(rest, whole[taken + 1 :], strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])


# --- RandomAffine


def test_nothing_moves_by_nothing():
    images = noise().images
    for padding in ("zeros", "border"):
        still = RandomAffine(0, padding_mode=padding)
        np.testing.assert_array_equal(images_of(images, [Scale(1), still]), images)


def test_degrees_turn_clockwise_about_the_centre():
    images = noise(40, 7, 7).images
    for angle, turns in ((90, -1), (-90, 1), (180, 2)):
        x = images_of(images, [Scale(1), RandomAffine((angle, angle))])
        np.testing.assert_allclose(x, np.rot90(images, turns, (1, 2)), atol=1e-4)


def test_translate_is_the_largest_part_of_width_and_height():
    dot = np.zeros((500, 41, 81, 1))
    dot[:, 20, 40] = 1
    mass = images_of(dot, RandomAffine(0, translate=(0.25, 0.4)))[..., 0]
    np.testing.assert_allclose(mass.sum((1, 2)), 1, atol=1e-6)  # never pushed out
    rows, columns = np.indices((41, 81))
    # bilinear weights keep the centre of mass
    right, down = ((mass * columns).sum((1, 2)) - 40) / 81, ((mass * rows).sum((1, 2)) - 20) / 41
    for moved, most in ((right, 0.25), (down, 0.4)):
        assert 0.97 * most < moved.max() <= most + 1e-6
        assert -0.97 * most > moved.min() >= -most - 1e-6
        assert abs(moved.mean()) < 5 * most / np.sqrt(3 * 500)
    assert abs(np.corrcoef(right, down)[0, 1]) < 0.2


PLACE = np.arange(5.0)[:, None] * 10 + np.arange(5)  # of a pixel: 10 row + column


def moved_to(rows, columns):
    """What border padding shows of PLACE at these places."""
    return np.clip(rows, 0, 4) * 10 + np.clip(columns, 0, 4)


def test_scale_and_shear_keep_the_centre():
    i, j = np.indices((5, 5)) - 2
    half = np.rad2deg(np.arctan(0.5))
    for how, expected in (
        ({"scale": (2, 2)}, moved_to(2 + i / 2, 2 + j / 2)),
        ({"scale": (0.5, 0.5)}, moved_to(2 + i * 2, 2 + j * 2)),
        ({"shear": (half, half)}, moved_to(2 + i, 2 + j + i / 2)),
        ({"shear": (0, 0, half, half)}, moved_to(2 + i + j / 2, 2 + j)),
    ):
        transform = RandomAffine(0, padding_mode="border", **how)
        got = images_of(PLACE[None, ..., None], transform)[0, ..., 0]
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_what_lies_outside_is_black_or_goes_on():
    white = np.full((100, 8, 8, 1), 255, np.uint8)
    how = {"degrees": 45, "translate": (0.3, 0.3), "scale": (0.3, 0.6)}
    assert images_of(white, RandomAffine(**how)).min((1, 2, 3)).max() == 0
    around = RandomAffine(padding_mode="border", **how)
    np.testing.assert_allclose(images_of(white, around), 1, rtol=1e-6)
    after = [RandomAffine(**how), Normalize(0.5, 0.25)]
    np.testing.assert_allclose(images_of(white, after).min(), -2)


def turned(images):
    return np.rot90(images, -1, (1, 2))


def mirrored(images):
    return images[:, :, ::-1]


def test_what_moves_images_does_so_in_its_order():
    images, turn = noise(40, 7, 7).images, RandomAffine((90, 90))
    for transform, other in (
        ([Scale(1), turn, Flip()], mirrored(turned(images))),
        ([Scale(1), Flip(), turn], turned(mirrored(images))),
    ):
        x = images_of(images, transform)
        plain, flipped = ((np.abs(x - a) < 1e-3).all((1, 2, 3)) for a in (turned(images), other))
        assert (plain ^ flipped).all() and 8 < plain.sum() < 32


def test_crops_beside_an_affine_are_whole_pixels_and_any_of_them():
    image = noise(1, 6, 5).images.astype(np.float64)
    x = images_of(np.repeat(image, 300, 0), [PadCrop(1), RandomAffine(0)])
    padded = np.pad(image[0], ((1, 1), (1, 1), (0, 0)))
    crops = {padded[i : i + 6, j : j + 5].tobytes() for i in range(3) for j in range(3)}
    assert {a.tobytes() for a in x} == crops


# --- Cutout


def test_squares_lie_anywhere_and_may_reach_out():
    x = images_of(np.ones((600, 4, 5, 2)), Cutout(3))
    assert ((x == 0) | (x == 1)).all() and (x[..., 0] == x[..., 1]).all()
    squares = set()
    for i in range(4):
        for j in range(5):
            hole = np.ones((4, 5, 2))
            hole[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2] = 0
            squares.add(hole.tobytes())
    assert {a.tobytes() for a in x} == squares and len(squares) == 20


@pytest.mark.parametrize(
    "transform, value",
    [
        ([Cutout(50)], 0),
        ([Normalize(0.5, 0.25), Cutout(50)], 0),
        ([Cutout(50), Normalize(0.5, 0.25)], -2),
        ([Cutout(50, fill=0.75), Normalize(0.5, 0.25)], 1),
        ([Cutout(50, fill=255), Scale(1 / 255)], 1),
        ([Scale(1), Cutout(50, fill=(1, 2, 3)), Scale(2)], (2, 4, 6)),
    ],
)
def test_fill_is_on_the_scale_that_the_list_has_reached(transform, value):
    x, _ = epoch(DataLoader(noise(), transform=transform))
    np.testing.assert_allclose(x, np.broadcast_to(value, x.shape), atol=1e-6)


# --- MixUp


@pytest.mark.parametrize(
    "alpha, cdf",
    [
        (0.5, lambda x: 2 / np.pi * np.arcsin(np.sqrt(x))),
        (1, lambda x: x),
        (2, lambda x: x**2 * (3 - 2 * x)),
    ],
)
def test_shares_have_the_beta_distribution(alpha, cdf):
    n = 20_000
    partner, lam = MixUp(alpha, 2).draw(np.random.default_rng(0).random((n, 3)), 7)
    gap = np.abs(cdf(np.sort(lam)) - (np.arange(n) + 0.5) / n).max()
    assert gap < 1.63 / np.sqrt(n)  # Kolmogorov and Smirnov, 1 %
    assert (np.abs(np.bincount(partner, minlength=7) - n / 7) < 5 * np.sqrt(n / 7)).all()


@pytest.mark.parametrize("alpha", [1e-3, 0.2, 30, 1e4])
def test_shares_of_any_alpha_are_numbers_from_0_to_1(alpha):
    edges = np.array([0, 0.25, 0.5, 0.75, 1 - 2.0**-24])
    u = np.stack([a.ravel() for a in np.meshgrid(edges, edges, edges)], axis=1)
    u = np.concatenate([u, np.random.default_rng(0).random((20_000, 3))])
    partner, lam = MixUp(alpha, 2).draw(u, 3)
    assert ((lam >= 0) & (lam <= 1)).all() and set(partner) == {0, 1, 2}
    many = lam[len(edges) ** 3 :]
    assert many.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_images_and_labels_are_mixed_alike():
    numbers = np.arange(4)
    images = np.zeros((4, 1, 1, 4)) + np.eye(4)[:, None, None]  # an image shows its label
    for rounds in range(50):
        x, y = epoch(DataLoader((images, numbers), 3, seed=rounds, transform=MixUp(0.7, 4)))
        np.testing.assert_allclose(x[:, 0, 0], y, rtol=1e-12)
        np.testing.assert_allclose(y.sum(1), 1, rtol=1e-12)
        assert ((y > 0).sum(1) <= 2).all() and (y[numbers, numbers] > 0).all()


def test_other_columns_stay_with_their_samples():
    x, numbers = np.zeros((6, 2, 2, 1)), np.arange(6)
    batch = next(iter(DataLoader((x, numbers % 2, numbers), 6, transform=MixUp(1, 2))))
    assert [t.dtype for t in batch] == [np.float64, np.float64, np.int64]
    np.testing.assert_array_equal(batch[2].numpy(), numbers)


def test_a_network_is_trained_on_probabilities():
    minidl.manual_seed(0)
    train = data.digits("test")[:200]
    loader = DataLoader(train, 50, shuffle=True, seed=0, transform=[MixUp(0.2, 10)])
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    history = fit(model, loader, epochs=15, lr=0.01, progress=False)
    assert history["accuracy"][-1] > 0.8
    assert evaluate(model, DataLoader(train, 50))["accuracy"] > 0.9


# --- what is refused


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: RandomAffine((3, -3)), "degrees goes from 3 to -3"),
        (lambda: RandomAffine(-3), "degrees goes from 3 to -3"),
        (lambda: RandomAffine(np.nan), "degrees goes from nan to nan"),
        (lambda: RandomAffine(0, translate=(0.1, 3)), "translate goes from -3 to 3, but must"),
        (lambda: RandomAffine(0, scale=(0, 1)), r"scale goes from 0 to 1, .* from 0.01 to 100"),
        (lambda: RandomAffine(0, shear=90), "shear goes from -90 to 90"),
        (lambda: RandomAffine(0, shear=(1, 2, 3)), "one, two or four numbers"),
        (lambda: RandomAffine(0, padding_mode="edge"), "padding_mode.*'edge'"),
        (lambda: Cutout(0), "size is 0"),
        (lambda: MixUp(0, 3), "alpha must be above 0"),
        (lambda: MixUp(1.0, 0), "classes at least 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "transform, error, message",
    [
        ([Cutout(2), Flip()], ValueError, r"Flip\(\) stands too late"),
        ([MixUp(1, 4), Cutout(2)], ValueError, "Cutout.* stands too late"),
        ([np.abs, Cutout(2)], ValueError, "Cutout.* stands too late"),
        ([np.abs, Cutout(2), Scale()], ValueError, "functions come last"),
        ([Cutout(2), Cutout(2)], ValueError, "two Cutout, but one is enough"),
        ([RandomAffine(1)] * 2, ValueError, "two RandomAffine"),
        ([Normalize(0.5, 1), RandomAffine(1)], ValueError, "before any Normalize, or has padding"),
        ([Cutout(2, fill=(1, 2))], ValueError, "fill is one number or 3"),
        ([RandomAffine(1), PadCrop(1), PadCrop(1)], ValueError, "one PadCrop"),
        ([MixUp(1, 3)], ValueError, "MixUp: labels from 0 to 3, but 3 classes"),
    ],
)
def test_lists_that_do_not_fit_are_refused(transform, error, message):
    with pytest.raises(error, match=message):
        next(iter(DataLoader(noise(), transform=transform)))


def test_a_border_may_stand_behind_a_normalize():
    around = RandomAffine(0, padding_mode="border")
    x, _ = epoch(DataLoader(noise(), transform=[Normalize(0.5, 0.25), around]))
    np.testing.assert_allclose(x, (noise().images / 255 - 0.5) / 0.25, atol=1e-5)


def test_data_without_labels_or_images_are_refused():
    images = np.zeros((3, 2, 2, 1), np.float32)
    with pytest.raises(ValueError, match="no labels to mix"):
        next(iter(DataLoader((images,), transform=MixUp(1, 2))))
    with pytest.raises(TypeError, match=r"labels \(N,\) of integers are needed, got float32"):
        next(iter(DataLoader((images, np.zeros(3, "f")), transform=MixUp(1, 2))))
    with pytest.raises(ValueError, match=r"is for images \(N, H, W, C\)"):
        DataLoader((np.zeros((3, 4)),), transform=Cutout(2))
    with pytest.raises(ValueError, match=r"Cutout.* can only work on sets in memory"):
        DataLoader([1, 2], transform=Cutout(2))


# --- the device "cuda"


@pytest.mark.parametrize("transform", [None, [PadCrop(1), Flip()], *LISTS[:3], ALL[:-1]])
def test_batches_made_on_cuda_are_those_of_the_cpu(cuda, transform):
    loaders = [
        DataLoader(noise(), 4, shuffle=True, seed=3, transform=transform, device=where)
        for where in (cuda, "cpu")
    ]
    for mine, theirs in zip(*loaders, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a.device is cuda and a.dtype == b.dtype
            # weights are exact, so only sums of a few products are rounded
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=2e-6)


def test_a_network_on_cuda_is_trained_on_batches_made_there(cuda):
    losses = []
    for where in (cuda, "cpu"):
        minidl.manual_seed(0)
        loader = DataLoader(noise(), 4, shuffle=True, seed=3, transform=ALL[:-1], device=where)
        model = nn.Sequential(nn.Flatten(), nn.Linear(90, 4)).to(where)
        losses.append(fit(model, loader, epochs=2, lr=0.01, progress=False)["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_a_set_of_ones_own_goes_to_cuda_too(cuda):
    own = [(np.full((2, 3, 1), i, np.uint8), i) for i in range(5)]
    x, y = next(iter(DataLoader(own, 5, transform=Scale(1), device="cuda")))
    assert x.device is y.device is cuda
    np.testing.assert_array_equal(x.numpy()[:, 0, 0, 0], range(5))
    (z,) = next(iter(DataLoader((np.arange(6.0),), 3, device=cuda)))
    assert z.device is cuda and z.tolist() == [0, 1, 2]


def test_who_does_without_them_does_not_load_them():
    code = "import sys, minidl.data as d; next(iter(d.DataLoader(d.digits(), transform=d.Flip())))"
    code += "; print('minidl.data.augment' in sys.modules)"
    root = Path(minidl.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert run.stdout.split()[-1:] == ["False"], run.stderr
