"""Shapes of results: the one home of the formulas, shared by ops, kernels and tests."""

from collections.abc import Sequence

Shape = tuple[int, ...]
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]  # ((top, bottom), (left, right))


def broadcast(*shapes: Shape) -> Shape:
    """Shape of operands broadcast together, by NumPy's rule. ValueError where they do not fit."""
    rank = max(map(len, shapes))
    columns = zip(*((1,) * (rank - len(s)) + tuple(s) for s in shapes), strict=True)
    result = []
    for sizes in columns:
        wide = {n for n in sizes if n != 1}
        if len(wide) > 1:
            raise ValueError(f"{' and '.join(map(str, shapes))} do not broadcast")
        result.append(wide.pop() if wide else 1)
    return tuple(result)


def axes(axis: int | Sequence[int] | None, rank: int) -> Shape:
    """Reduced axes, sorted and counted from the front; None means all of them."""
    given = range(rank) if axis is None else (axis,) if isinstance(axis, int) else axis
    for a in given:
        if not -rank <= a < rank:
            raise ValueError(f"axis {a} is out of range for {rank} dimensions")
    result = tuple(sorted(a % rank for a in given))
    if len(set(result)) < len(result):
        raise ValueError(f"axis {axis} names a dimension twice")
    return result


def keepdims(shape: Shape, reduced: Shape) -> Shape:
    """Shape after a reduction that leaves length 1 along the reduced axes."""
    return tuple(1 if a in reduced else n for a, n in enumerate(shape))


def without(shape: Shape, reduced: Shape) -> Shape:
    """Shape after a reduction that drops the reduced axes."""
    return tuple(n for a, n in enumerate(shape) if a not in reduced)


def reshape(shape: Shape, new: Sequence[int]) -> Shape:
    """Shape `new` with its -1 worked out. ValueError where the counts differ."""
    size = count(shape)
    unknown = [a for a, n in enumerate(new) if n == -1]
    rest = count(tuple(n for n in new if n != -1))
    fits = len(unknown) == 1 and rest and size % rest == 0 if unknown else rest == size
    if not fits:
        raise ValueError(f"{size} elements of {shape} do not fit {tuple(new)}")
    return tuple(size // rest if n == -1 else n for n in new)


def count(shape: Shape) -> int:
    """Number of elements."""
    size = 1
    for n in shape:
        size *= n
    return size


def pad(shape: Shape, widths: Sequence[Pair]) -> Shape:
    """Shape with so many elements more before and after those along each axis."""
    return tuple(n + sum(pair) for n, pair in zip(shape, widths, strict=True))


def pair(value: int | Sequence[int]) -> Pair:
    """(value, value) of a number, or the two numbers of a sequence: height first."""
    if isinstance(value, int):
        return value, value
    height, width = value
    return int(height), int(width)


def single(value: int | Sequence[int]) -> int:
    """The number itself, or the only one of a sequence."""
    if isinstance(value, int):
        return value
    (number,) = value
    return int(number)


def padding(
    pad: int | str | Sequence[int] | Padding, image: Pair, window: Pair, stride: Pair
) -> Padding:
    """Rows and columns to add on each side: ((top, bottom), (left, right)).

    pad is a number, a (height, width) pair, the full form, "valid" (none) or "same": as many as
    make the output ceil(size / stride) long, the odd one at the bottom right (TensorFlow's rule).
    """
    if pad == "valid":
        return (0, 0), (0, 0)
    if pad == "same":
        need = [
            max((-(-size // step) - 1) * step + k - size, 0)
            for size, k, step in zip(image, window, stride, strict=True)
        ]
        return (need[0] // 2, need[0] - need[0] // 2), (need[1] // 2, need[1] - need[1] // 2)
    if isinstance(pad, str):
        raise ValueError(f"padding is a number, a pair, 'same' or 'valid', not {pad!r}")
    if isinstance(pad, int):
        pad = (pad, pad)
    (top, bottom), (left, right) = ((p, p) if isinstance(p, int) else p for p in pad)
    if min(top, bottom, left, right) < 0:
        raise ValueError(f"padding is at least 0, not {pad}")
    return (top, bottom), (left, right)


def padding1d(pad: int | str | Sequence[int], size: int, window: int, stride: int) -> Pair:
    """Places to add at both ends of a sequence: (before, after).

    pad is a number, (before, after), "valid" or "same", which is the rule for a line of an image.
    """
    full = pad if isinstance(pad, str) else ((0, 0), pair(pad))
    return padding(full, (1, size), (1, window), (1, stride))[1]


def window(size: int, kernel: int, stride: int, pad: Pair) -> int:
    """Number of windows along one axis: floor((size + before + after - kernel) / stride) + 1."""
    return (size + pad[0] + pad[1] - kernel) // stride + 1


def extent(kernel: Sequence[int], dilation: Sequence[int]) -> Shape:
    """Pixels that a window spans along each axis, the gaps included: (kernel - 1) dilation + 1."""
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))


def conv2d(x: Shape, w: Shape, stride: Pair, pad: Padding, dilation: Pair = (1, 1)) -> Shape:
    """x (N, H, W, C), w (KH, KW, C / groups, F) -> (N, OH, OW, F)."""
    return (*pool2d(x, extent(w[:2], dilation), stride, pad)[:3], w[3])


def pool2d(x: Shape, size: Sequence[int], stride: Pair, pad: Padding) -> Shape:
    """x (N, H, W, C) -> (N, OH, OW, C)."""
    oh, ow = (window(x[1 + a], size[a], stride[a], pad[a]) for a in (0, 1))
    return x[0], oh, ow, x[3]
