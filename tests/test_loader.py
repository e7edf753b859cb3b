"""Transforms and DataLoader: nothing but the seed decides a batch, and no thread ever hangs."""

import subprocess
import sys
import textwrap
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl import data
from minidl.data import DataLoader, Flip, Normalize, PadCrop, Scale


def noise(n=10, height=6, width=5, channels=3, dtype=np.uint8):
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, height, width, channels)).astype(dtype)
    return data.Dataset(images, rng.integers(0, 4, n), ("a", "b", "c", "d"))


def epoch(loader):
    """All that one epoch yields, as two arrays."""
    batches = [(x.numpy(), y.numpy()) for x, y in loader]
    return tuple(np.concatenate(column) for column in zip(*batches, strict=True))


# --- transforms


def test_bytes_count_from_0_to_1():
    images = noise().images
    x, _ = epoch(DataLoader(noise()))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, images / 255, rtol=2e-7)
    raw, _ = epoch(DataLoader(noise(), transform=Scale(1)))
    np.testing.assert_array_equal(raw, images)


@pytest.mark.parametrize("scale", [[], [Scale()], [data.ToTensor()]])
def test_normalize_means_the_numbers_from_0_to_1(scale):
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    x, _ = epoch(DataLoader(noise(), transform=[*scale, Normalize(mean, std)]))
    np.testing.assert_allclose(x, (noise().images / 255 - mean) / std, rtol=1e-5, atol=1e-6)


def test_what_is_scaled_twice_is_scaled_in_turn():
    transform = [Scale(2), Normalize(3.0, 4.0), Normalize(5.0, 6.0), Scale(7)]
    x, _ = epoch(DataLoader(noise(dtype=np.float64), transform=transform))
    np.testing.assert_allclose(x, ((noise().images * 2.0 - 3) / 4 - 5) / 6 * 7, rtol=1e-12)


def test_images_in_a_tuple_are_images():
    whole = noise()
    loaded = epoch(DataLoader((whole.images, whole.labels.astype(np.uint8)), 3))
    for a, b in zip(loaded, epoch(DataLoader(whole))):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_floats_stay_as_they_are():
    for dtype in (np.float32, np.float64):
        x, _ = epoch(DataLoader(noise(dtype=dtype)))
        assert x.dtype == dtype
        np.testing.assert_array_equal(x, noise().images)


def test_a_function_gets_the_finished_batch():
    seen = []
    transform = data.Compose([Flip(), [PadCrop(1)], lambda x: seen.append(x.max()) or x[..., :1]])
    x, _ = next(iter(DataLoader(noise(), 4, transform=transform)))
    assert x.shape == (4, 6, 5, 1) and seen[0] <= 1


@pytest.mark.parametrize(
    "transform, error, message",
    [
        ([np.tanh, Flip()], ValueError, r"Flip\(\) stands after .*tanh.*functions come last"),
        ([Normalize(0.5, 0.5), PadCrop(2)], ValueError, "PadCrop .* before any Normalize"),
        ([PadCrop(1), PadCrop(1)], ValueError, "one PadCrop"),
        (PadCrop(-1), ValueError, "one PadCrop of at least 0"),
        ([Flip(), Flip()], ValueError, "two Flips"),
        (Normalize((0.1, 0.2), 1.0), ValueError, "does not fit images of 3 channels"),
        (Normalize(0.1, 0.0), ValueError, "std must be above 0"),
        ([3], TypeError, "transform: .* got 3"),
    ],
)
def test_transforms_that_do_not_fit_are_refused(transform, error, message):
    with pytest.raises(error, match=message):
        DataLoader(noise(), transform=transform)


# --- DataLoader, sets in memory

AUGMENT = [PadCrop(2), Flip(), Normalize(0.5, 0.25)]


def test_batches_hold_every_sample_once_in_order():
    loader = DataLoader(noise(), 4)
    sizes = [(len(x), len(y)) for x, y in loader]
    assert sizes == [(4, 4), (4, 4), (2, 2)] and len(loader) == 3
    _, y = epoch(loader)
    np.testing.assert_array_equal(y, noise().labels)
    assert y.dtype == np.int64
    assert [len(x) for x, _ in DataLoader(noise(), 4, drop_last=True)] == [4, 4]
    assert len(DataLoader(noise(), 4, drop_last=True)) == 2


def test_batches_are_tensors():
    x, y = next(iter(DataLoader(noise())))
    assert isinstance(x, minidl.Tensor) and isinstance(y, minidl.Tensor)


@given(st.integers(1, 12), st.integers(0, 2**64 - 1))
def test_batch_size_changes_no_sample(size, seed):
    whole = epoch(DataLoader(noise(), 10, shuffle=True, seed=seed, transform=AUGMENT))
    parts = epoch(DataLoader(noise(), size, shuffle=True, seed=seed, transform=AUGMENT))
    for a, b in zip(whole, parts):
        np.testing.assert_array_equal(a, b)


def test_epochs_differ_and_come_again_with_the_seed():
    numbered = np.arange(1000)
    one, other = (DataLoader((numbered,), 100, shuffle=True, seed=7) for _ in range(2))
    orders = [np.concatenate([x.numpy() for (x,) in one]) for _ in range(3)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), numbered)
    assert (orders[0] != orders[1]).mean() > 0.9 and (orders[1] != orders[2]).mean() > 0.9
    assert one.epoch == 3
    other.set_epoch(2)
    np.testing.assert_array_equal(np.concatenate([x.numpy() for (x,) in other]), orders[2])


def test_the_order_of_a_seed_is_this_one():
    (x,) = next(iter(DataLoader((np.arange(12),), 12, shuffle=True, seed=0)))
    assert x.tolist() == [10, 2, 7, 0, 3, 9, 4, 6, 5, 8, 11, 1]


def test_manual_seed_decides_where_no_seed_is_given():
    minidl.manual_seed(4)
    seeds = [DataLoader(noise()).seed for _ in range(2)]
    minidl.manual_seed(4)
    assert seeds == [DataLoader(noise()).seed for _ in range(2)] and seeds[0] != seeds[1]
    minidl.manual_seed(5)
    assert DataLoader(noise()).seed != seeds[0]


@pytest.mark.parametrize("taken", range(6))
@pytest.mark.parametrize("size, drop_last", [(3, False), (4, False), (3, True)])
def test_a_loader_goes_on_where_another_stood(taken, size, drop_last):
    def loader(seed):
        options = {"shuffle": True, "drop_last": drop_last, "transform": AUGMENT}
        return DataLoader(noise(), size, seed=seed, **options)

    def two_epochs(source):
        while source.epoch < 2:
            for x, _ in source:
                yield x.numpy(), source.state_dict()

    whole = list(two_epochs(loader(1)))
    resumed = loader(99)
    resumed.load_state_dict(whole[taken][1])
    rest = [x for x, _ in two_epochs(resumed)]
    assert len(rest) == len(whole) - taken - 1
    for a, (b, _) in zip(rest, whole[taken + 1 :]):
        np.testing.assert_array_equal(a, b)


def test_a_loader_goes_on_with_another_batch_size():
    first = DataLoader(noise(), 3, shuffle=True, seed=1)
    head = [y.numpy() for _, (_, y) in zip(range(2), first)]
    second = DataLoader(noise(), 4, shuffle=True, seed=99)
    second.load_state_dict(first.state_dict())
    tail = [y.numpy() for _, y in second]
    assert [len(y) for y in tail] == [4]
    whole = epoch(DataLoader(noise(), 10, shuffle=True, seed=1))[1]
    np.testing.assert_array_equal(np.concatenate(head + tail), whole)


def test_a_loop_left_early_ends_its_epoch():
    loader = DataLoader(noise(), 2, shuffle=True, seed=0)
    for _ in loader:
        break
    assert (loader.epoch, loader.position) == (0, 2)
    assert len(list(loader)) == 5 and loader.epoch == 2


def test_a_state_of_another_set_is_refused():
    loader = DataLoader(noise())
    with pytest.raises(ValueError, match="sample 0 of 10, but this data set has 12 samples"):
        DataLoader(noise(12)).load_state_dict(loader.state_dict())
    with pytest.raises(ValueError, match="not a state of a DataLoader"):
        loader.load_state_dict({"epoch": 1})


def test_arrays_in_a_tuple_keep_their_kind():
    x, y, z = np.ones((5, 3)), np.arange(5, dtype=np.uint8), np.ones(5, np.float32)
    loader = DataLoader((x, y, z), 2, transform=lambda batch: batch + 1)
    first = next(iter(loader))
    assert [t.dtype for t in first] == [np.float64, np.int64, np.float32]
    np.testing.assert_array_equal(first[0].numpy(), 2)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"dataset": noise()[:0]}, ValueError, "the data set is empty"),
        ({"dataset": ()}, ValueError, "the data set is empty"),
        ({"dataset": (np.zeros((0, 3)), np.zeros(0))}, ValueError, "the data set is empty"),
        ({"batch_size": 0}, ValueError, "batch_size is 0, but must be at least 1"),
        ({"workers": -1}, ValueError, "workers is -1"),
        ({"prefetch": 0}, ValueError, "prefetch is 0"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"batch_size": 11, "drop_last": True}, ValueError, "10 samples make no batch of 11"),
        (
            {"dataset": (np.zeros((3, 2)), np.zeros(4))},
            ValueError,
            r"of one length are needed, got shapes \(3, 2\), \(4,\)",
        ),
        ({"dataset": (np.zeros((1, 2, 2, 1), int),)}, TypeError, "uint8 or floating, got int64"),
        ({"dataset": (np.array(["a"]),)}, TypeError, "numbers are needed, got an array of <U1"),
        ({"dataset": np.zeros((3, 2))}, TypeError, r"into a tuple: \(x, y\)"),
        ({"dataset": iter([1])}, TypeError, "__getitem__ is needed, got list_iterator"),
        (
            {"dataset": (np.zeros((3, 8, 8)), np.zeros(3)), "transform": Flip()},
            ValueError,
            r"is for images \(N, H, W, C\), but x has shape \(3, 8, 8\).*x\[\.\.\., None\]",
        ),
        ({"dataset": [1, 2], "transform": Flip()}, ValueError, "work on sets in memory"),
    ],
)
def test_what_no_loader_can_do_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        DataLoader(**{"dataset": noise(), **arguments})


# --- DataLoader, sets of the user's own, and threads


class Own:
    """Samples (image, label) made on request; sample 13 takes long, sample `bad` raises."""

    def __init__(self, n=40, bad=None):
        self.n, self.bad, self.threads = n, bad, set()

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.threads.add(threading.current_thread())
        if i == self.bad:
            raise KeyError(f"no sample {i}")
        time.sleep(0.02 if i == 13 else 0)
        return np.full((2, 3, 1), i, np.uint8), i % 10


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_keep_the_order(workers):
    own = Own()
    x, y = epoch(DataLoader(own, 3, shuffle=True, seed=5, workers=workers, transform=Scale(1)))
    order, _ = epoch(DataLoader((np.arange(40), np.arange(40)), 3, shuffle=True, seed=5))
    np.testing.assert_array_equal(x[:, 0, 0, 0], order)
    np.testing.assert_array_equal(y, order % 10)
    assert x.dtype == np.float32 and y.dtype == np.int64
    assert (threading.current_thread() in own.threads) == (workers == 0)


def gone(threads):
    """Whether all these threads end, given a moment."""
    for thread in threads:
        thread.join(5)
    return not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_what_a_worker_raises_arrives_in_its_turn_with_its_traceback(workers):
    own, seen = Own(bad=17), []
    with pytest.raises(KeyError, match="no sample 17") as caught:
        for x, _ in DataLoader(own, 4, workers=workers):
            seen.append(len(x))
    assert seen == [4] * 4
    assert "__getitem__" in "".join(traceback.format_exception(caught.value))
    if workers:
        assert "samples [16 17 18 19]" in caught.value.__notes__[0]
        assert gone(own.threads)


def test_threads_end_when_the_loop_is_left():
    own = Own()
    loader = DataLoader(own, 2, workers=3)
    for _ in loader:
        break
    assert gone(own.threads)
    assert len(list(loader)) == 20
    assert gone(own.threads)


def test_no_more_is_loaded_ahead_than_asked_for():
    asked = []

    class Counted(Own):
        def __getitem__(self, i):
            asked.append(i)
            return super().__getitem__(i)

    batches = iter(DataLoader(Counted(1000), 1, workers=2, prefetch=3))
    next(batches)
    time.sleep(0.2)
    assert len(asked) <= 1 + 2 * 3


def test_what_was_asked_for_ahead_is_dropped_when_the_loop_is_left():
    asked, left = [], threading.Event()

    class Waiting(Own):
        def __getitem__(self, i):
            asked.append(i)
            assert i == 0 or left.wait(60)
            return super().__getitem__(i)

    own = Waiting()
    for _ in DataLoader(own, 1, workers=1, prefetch=9):
        break
    left.set()
    assert gone(own.threads)
    assert len(asked) <= 2


def test_single_items_and_python_numbers():
    class Numbers(Own):
        def __getitem__(self, i):
            return i / 2

    (first,) = next(iter(DataLoader(Numbers(), 4)))
    assert first.dtype == np.float32 and first.tolist() == [0, 0.5, 1, 1.5]
    (x, y) = next(iter(DataLoader([([1.0, 2.0], 3), ([4.0, 5.0], 6)], 2)))
    assert x.shape == (2, 2) and y.tolist() == [3, 6]


def test_items_that_do_not_fit_together_are_named():
    class Ragged(Own):
        def __getitem__(self, i):
            return np.zeros(i + 1)

    with pytest.raises(ValueError, match="same shape") as caught:
        next(iter(DataLoader(Ragged(), 4)))
    assert "samples [0 1 2 3] do not fit together" in caught.value.__notes__[0]


HANGS = {
    "break": "for batch in loader(Slow()): break",
    "raise": """
        try: list(loader(Raises()))
        except ZeroDivisionError: print("raised")
        """,
    "held": "held = iter(loader(Slow())); next(held)",
    "stuck": "held = iter(loader(Stuck())); next(held)",
    "exit": """
        try: list(loader(Exits()))
        except SystemExit: print("raised")
        """,
}


@pytest.mark.parametrize("name", HANGS)
def test_nothing_hangs(name):
    """A process that uses workers in each of these ways ends by itself, without a complaint."""
    program = """
        import sys, time
        import numpy as np
        from minidl.data import DataLoader

        class Slow:
            def __len__(self): return 100
            def __getitem__(self, i): time.sleep(0.01); return np.zeros(3), 0
        class Raises(Slow):
            def __getitem__(self, i): return 1 / (i < 5) and np.zeros(3)
        class Stuck(Slow):
            def __getitem__(self, i): time.sleep(3600 * (i > 3)); return np.zeros(3)
        class Exits(Slow):
            def __getitem__(self, i): sys.exit(3) if i > 3 else None; return np.zeros(3)

        def loader(own): return DataLoader(own, 2, workers=3)
        """
    code = textwrap.dedent(program) + textwrap.dedent(HANGS[name]) + "\nprint('end')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(minidl.__file__).parents[1], timeout=60,
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == (["raised"] if name in ("raise", "exit") else []) + ["end"]


def test_sets_in_memory_are_made_ready_in_the_background():
    x = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    seen = set()

    def note(images):
        seen.add(threading.current_thread())
        return images

    steps = [PadCrop(2), Flip(), note]

    def batches(workers):
        loader = DataLoader((x, np.arange(50)), 8, True, seed=3, transform=steps, workers=workers)
        found = []
        for batch in loader:
            found.append([a.numpy() for a in batch])
            assert loader.position == min(8 * len(found), 50)  # not of what is ready ahead
        return found

    alone = batches(0)
    assert seen == {threading.current_thread()}
    for workers in (1, 2):
        seen.clear()
        for mine, theirs in zip(batches(workers), alone, strict=True):
            for a, b in zip(mine, theirs, strict=True):
                np.testing.assert_array_equal(a, b)
        assert threading.current_thread() not in seen
