"""The sentences that refuse bad input, before anything is launched: the op, both sides, a hint."""

import difflib
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn

from .backend import Array, every_step
from .kernels import shapes


def fail(op: str, problem: str, hint: str = "", error: Any = ValueError, **arrays: Any) -> NoReturn:
    """An error that says: op, problem, the shapes of the arrays, hint."""
    given = ", ".join(f"{name} {a.shape}" for name, a in arrays.items() if a is not None)
    raise error(f"{op}: {problem}" + f" ({given})" * bool(given) + f"; {hint}" * bool(hint))


def rank(op: str, name: str, x: Array, wanted: int, layout: str, hint: str = "") -> None:
    """x has `wanted` axes."""
    if x.ndim != wanted:
        fail(op, f"{name} has {x.ndim} dimensions, but {layout} has {wanted}", hint, **{name: x})


def broadcast(op: str, a: Array, b: Array, **more: Array) -> tuple[int, ...]:
    """The shape of a, b and more arrays together."""
    if a.shape == b.shape and not more:
        return a.shape
    try:
        return shapes.broadcast(a.shape, b.shape, *(x.shape for x in more.values()))
    except ValueError:
        fail(op, "the shapes do not broadcast", "each axis must agree or be 1", a=a, b=b, **more)


def axes(op: str, axis: Any, x: Array) -> tuple[int, ...]:
    """The reduced axes of x, sorted."""
    try:
        return shapes.axes(axis, x.ndim)
    except (ValueError, TypeError) as error:
        fail(op, str(error), x=x)


def windows(
    op: str, x: Array, size: Any, stride: Any, padding: Any, dilation: Any = 1
) -> tuple[Any, Any, Any]:
    """size, stride and padding of a sliding window in full, and that it fits into x."""
    hint = "" if x.ndim != 2 else "is a Flatten before it? Flatten comes after the convolutions"
    hint = "add a batch axis: x[None]" if x.ndim == 3 else hint
    rank(op, "x", x, 4, "a batch of images (N, H, W, C)", hint)
    try:
        size, stride, dilation = map(shapes.pair, (size, stride, dilation))
        for what, n in (("window", size), ("stride", stride), ("dilation", dilation)):
            if min(n) < 1:
                raise ValueError(f"{what} {n} must be at least 1")
        span: Any = shapes.extent(size, dilation)
        pad = shapes.padding(padding, x.shape[1:3], span, stride)
    except (ValueError, TypeError) as error:
        fail(op, str(error), x=x)
    wide = x.shape[1] + sum(pad[0]), x.shape[2] + sum(pad[1])
    if span[0] > wide[0] or span[1] > wide[1]:
        gaps = f", which spans {span}," if span != size else ""
        fail(op, f"the window {size}{gaps} is larger than the padded image {wide}", x=x)
    return size, stride, pad


def filters(op: str, x: Array, w: Array, b: Array | None, groups: Any, hint: str) -> None:
    """w (..., C / groups, F) fits the channels of x and divides into groups, and b fits w."""
    channels, count = w.shape[-2:]
    if not isinstance(groups, int) or groups < 1:
        fail(op, f"groups is {groups!r}, but must be a whole number from 1 on")
    if x.shape[-1] != channels * groups:
        each = f" in each of {groups} groups" * (groups > 1)
        fail(op, f"x has {x.shape[-1]} channels, but w expects {channels}{each}", hint, x=x, w=w)
    if count % groups:
        fail(op, f"w has {count} filters, which do not divide into {groups} groups", w=w)
    if b is not None and b.shape != (count,):
        fail(op, f"b needs one number per filter, {count}", w=w, b=b)


def _readable(numbers: Array) -> bool:
    """Whether to look at values: not on a GPU, where it would wait for all that is under way."""
    return bool(numbers.size) and numbers.device == "cpu"


def within(op: str, what: str, index: Array, low: int, high: int, /, **arrays: Array) -> None:
    """The numbers of index lie in [low, high). IndexError otherwise, on the CPU."""
    if _readable(index):
        forms = tuple((name, _Form(a.shape)) for name, a in arrays.items())
        every_step(_within, op, what, index, low, high, forms)


class _Form(NamedTuple):
    """What an error says of an array, without keeping it."""

    shape: tuple[int, ...]


def _within(op: str, what: str, index: Array, low: int, high: int, forms: tuple) -> None:
    if not (low <= index.min() and index.max() < high):
        bad = index.min() if index.min() < low else index.max()
        problem = f"{what} {bad} is out of range [{low}, {high})"
        fail(op, problem, error=IndexError, **dict(forms))


def labels(op: str, label: Array, classes: int, x: Array, ignore: int | None = None) -> None:
    """label (N,) lies in [0, classes) or is ignore, which is looked at on the CPU only."""
    if label.ndim == 2 and label.shape == x.shape:
        fail(op, "label is one-hot", "give the numbers of the classes: y.argmax(1)", label=label)
    if label.shape != x.shape[:1]:
        hint = "" if label.ndim else "a DataLoader makes batches of samples"
        fail(op, "one label per row of x is needed", hint, x=x, label=label)
    if _readable(label):
        every_step(_labels, op, label, classes, _Form(x.shape), ignore)


def _labels(op: str, label: Array, classes: int, x: _Form, ignore: int | None) -> None:
    if label.min() < 0 or label.max() >= classes:
        wrong = label[((label < 0) | (label >= classes)) & (label != ignore)]
        if wrong.size:
            bad = wrong.min() if wrong.min() < 0 else wrong.max()
            hint = f"ignore_index={bad} leaves such rows out" if bad < 0 and ignore is None else ""
            fail(op, f"label {bad} is out of range for {classes} classes", hint, x=x, label=label)


def known(what: str, name: Any, options: Iterable[str]) -> None:
    """name is one of the options. ValueError with the nearest one."""
    options = sorted(options)
    if name not in options:
        near = difflib.get_close_matches(str(name), options, 1, 0.3)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown {what} {name!r}; {guess}known: {', '.join(options)}")
