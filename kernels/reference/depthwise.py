"""Depthwise convolution: every channel of an image has filters of its own."""

from collections.abc import Iterator

import numpy as np

from ..roles import Array, Out
from ..shapes import Padding, Pair
from .elementwise import quiet, store


@quiet
def depthwise_conv2d(
    x: Array,
    w: Array,
    b: Array | None,
    y: Out,
    stride: Pair,
    pad: Padding,
    dilation: Pair,
    relu: bool,
) -> Array:
    """y[n, i, j, c, m] = b[c, m] + sum over r, s of x[n, i sh + r dh, j sw + s dw, c] w[r, s, c, m]

    x (N, H, W, C) padded with zeros, w (KH, KW, C, M), b (C*M,) or None -> y (N, OH, OW, C*M):
    here channel c*M + m is written c, m. relu: the larger of that and 0; NaN stays NaN.
    """
    value = np.zeros((*y.shape[:3], *w.shape[2:]), y.dtype)
    for r, s, part in _taps(_pad(x, pad), w.shape, y.shape, stride, dilation):
        value += part[..., None] * w[r, s]
    value = value.reshape(y.shape)
    value = value if b is None else value + b
    return store(np.maximum(value, value.dtype.type(0)) if relu else value, y, False)


@quiet
def depthwise_conv2d_grad_x(
    dy: Array, w: Array, dx: Out, stride: Pair, pad: Padding, dilation: Pair, add: bool
) -> Array:
    """dx = every dy put back where its window read, times the cell of the filter it met there."""
    wide, slopes = _pad(np.zeros(dx.shape, dx.dtype), pad), _by_channel(dy, w)
    for r, s, part in _taps(wide, w.shape, dy.shape, stride, dilation):
        part += (slopes * w[r, s]).sum(axis=-1)
    (top, _), (left, _) = pad
    return store(wide[:, top : top + dx.shape[1], left : left + dx.shape[2]], dx, add)


@quiet
def depthwise_conv2d_grad_w(
    dy: Array, x: Array, dw: Out, stride: Pair, pad: Padding, dilation: Pair, add: bool
) -> Array:
    """dw[r, s, c, m] = sum over n, i, j of x[n, i sh + r dh, j sw + s dw, c] dy[n, i, j, c, m]."""
    value, slopes = np.empty(dw.shape, dw.dtype), _by_channel(dy, dw)
    for r, s, part in _taps(_pad(x, pad), dw.shape, dy.shape, stride, dilation):
        value[r, s] = (part[..., None] * slopes).sum(axis=(0, 1, 2))
    return store(value, dw, add)


def _pad(x: Array, pad: Padding) -> Array:
    return np.pad(x, ((0, 0), *pad, (0, 0)))


def _by_channel(dy: Array, w: Array) -> Array:
    """dy (N, OH, OW, C*M) as (N, OH, OW, C, M)."""
    return dy.reshape(*dy.shape[:3], *w.shape[2:])


def _taps(
    wide: Array, w: tuple[int, ...], y: tuple[int, ...], stride: Pair, dilation: Pair
) -> Iterator[tuple[int, int, Array]]:
    """For each cell (r, s) of the filters: the part of the image it meets, a view."""
    down, across = ((n - 1) * step + 1 for n, step in zip(y[1:3], stride))
    for r in range(w[0]):
        for s in range(w[1]):
            h, v = r * dilation[0], s * dilation[1]
            yield r, s, wide[:, h : h + down : stride[0], v : v + across : stride[1]]
