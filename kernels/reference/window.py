"""Convolution and pooling: sums and maxima over windows that slide across an image."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..roles import Array, Out
from ..shapes import Padding, Pair, extent
from .elementwise import quiet, store


@quiet
def conv2d(
    x: Array, w: Array, b: Array | None, y: Out,
    stride: Pair, pad: Padding, dilation: Pair, groups: int, relu: bool,
) -> Array:  # fmt: skip
    """y[n, i, j, f] = b[f] + sum over r, s, c of x[n, i sh + r dh, j sw + s dw, c] w[r, s, c, f].

    x (N, H, W, C) padded with zeros, w (KH, KW, C / groups, F), b (F,) or None -> y (N, OH, OW, F).
    Of several groups, each takes its share of the channels to its share of the filters.
    relu: the larger of that and 0; NaN stays NaN. y may leave out windows at the end of an axis.
    """
    windows = _windows(_pad(x, pad, 0), w.shape[:2], stride, dilation)
    windows = windows[:, : y.shape[1], : y.shape[2]]
    parts = zip(np.split(windows, groups, -1), np.split(w, groups, -1))
    value = np.concatenate([np.tensordot(own, filters, 3) for own, filters in parts], -1)
    value = value if b is None else value + b
    return store(np.maximum(value, value.dtype.type(0)) if relu else value, y, False)


@quiet
def conv2d_grad_x(
    dy: Array, w: Array, dx: Out,
    stride: Pair, pad: Padding, dilation: Pair, groups: int, add: bool,
) -> Array:  # fmt: skip
    """dx = every dy put back where its window read: dx[.., i sh + r dh, j sw + s dw] += dy w[r, s].

    The group that a channel is in got it from the group's own filters.
    """
    wide = _pad(np.zeros(dx.shape, dx.dtype), pad, 0)
    for own, slopes, filters in zip(*(np.split(a, groups, -1) for a in (wide, dy, w))):
        for r, s, part in _taps(own, w.shape[:2], dy.shape[1:3], stride, dilation):
            part += slopes @ filters[r, s].T
    return store(_inside(wide, dx.shape, pad), dx, add)


@quiet
def conv2d_grad_w(
    dy: Array, x: Array, dw: Out,
    stride: Pair, pad: Padding, dilation: Pair, groups: int, add: bool,
) -> Array:  # fmt: skip
    """dw[r, s, c, f] = sum over n, i, j of x[n, i sh + r dh, j sw + s dw, c] dy[n, i, j, f]."""
    windows = _windows(_pad(x, pad, 0), dw.shape[:2], stride, dilation)
    windows = windows[:, : dy.shape[1], : dy.shape[2]]
    parts = zip(np.split(windows, groups, -1), np.split(dy, groups, -1))
    pixels = (0, 1, 2), (0, 1, 2)
    return store(np.concatenate([np.tensordot(*part, pixels) for part in parts], -1), dw, add)


def max_pool2d(
    x: Array, y: Out, arg: Out, size: Pair, stride: Pair, pad: Padding
) -> tuple[Array, Array]:
    """y = maximum of each window of x, arg = which of its cells, r * KW + s.

    x (N, H, W, C) -> y, arg (N, OH, OW, C). The first maximum wins, padding never does, and NaN
    wins over every number.
    """
    cells = _cells(_pad(x, pad, -np.inf), size, stride)
    arg[...] = cells.argmax(axis=-1)  # of NaN and numbers NumPy takes the first NaN
    if np.any(pad):  # where all else is -inf the padding ties: its first real cell wins
        real = _cells(_pad(np.ones((1, *x.shape[1:3], 1), bool), pad, False), size, stride)
        real = np.broadcast_to(real, cells.shape)
        won = np.take_along_axis(real, arg[..., None], -1)[..., 0]
        arg[...] = np.where(won, arg, real.argmax(axis=-1))
    y[...] = np.take_along_axis(cells, arg[..., None], -1)[..., 0]
    return y, arg


@quiet
def max_pool2d_grad(
    dy: Array, arg: Array, dx: Out, size: Pair, stride: Pair, pad: Padding, add: bool
) -> Array:
    """dx = dy at the winner of each window, summed where windows overlap."""
    wide = _pad(np.zeros(dx.shape, dx.dtype), pad, 0)
    for r, s, part in _taps(wide, size, dy.shape[1:3], stride):
        part += np.where(arg == r * size[1] + s, dy, dy.dtype.type(0))
    return store(_inside(wide, dx.shape, pad), dx, add)


def _pad(x: Array, pad: Padding, value: float) -> Array:
    return np.pad(x, ((0, 0), *pad, (0, 0)), constant_values=value) if np.any(pad) else x


def _inside(wide: Array, shape: tuple[int, ...], pad: Padding) -> Array:
    (top, _), (left, _) = pad
    return wide[:, top : top + shape[1], left : left + shape[2]]


def _windows(x: Array, size: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Array:
    """Every window of x, a view: (N, OH, OW, KH, KW, C)."""
    view = sliding_window_view(x, extent(size, dilation), axis=(1, 2))
    view = view[:, :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]]
    return view.transpose(0, 1, 2, 4, 5, 3)


def _cells(x: Array, size: Pair, stride: Pair) -> Array:
    """The cells of every window in a row: (N, OH, OW, C, KH KW)."""
    windows = _windows(x, size, stride)
    return np.moveaxis(windows, 5, 3).reshape(*windows.shape[:3], x.shape[3], size[0] * size[1])


def _taps(wide: Array, size: Pair, out: Pair, stride: Pair, dilation: Pair = (1, 1)):
    """For each cell (r, s) of the window: the part of the image it touches, a view."""
    (oh, ow), (sh, sw), (dh, dw) = out, stride, dilation
    for r in range(size[0]):
        for s in range(size[1]):
            rows = slice(r * dh, r * dh + (oh - 1) * sh + 1, sh)
            yield r, s, wide[:, rows, s * dw : s * dw + (ow - 1) * sw + 1 : sw]
