"""Depthwise convolution: LANES channels of four pixels at a time, which share a cell of a filter.

One loop over lines serves y and dx: the neighbours of a pixel of y read x a stride apart, and the
pixels of dx that lie a stride apart read neighbours of dy.
"""

import math

import numpy as np

from .. import reference
from ..roles import Array, Out
from ..shapes import Padding, Pair
from ._numba import jit, loop
from .memory import (
    OUTWARD,
    ZERO,
    as_one,
    batch_inside,
    canonical,
    outward,
    rare,
    settle,
    space,
    target_as_one,
)
from .vector import LANES, at_least, load, plus, plus_product, splat, store

_NEAR = 256  # pixels whose LANES channels of x and dy stay in a first-level cache
_TASKS = 32  # partial sums of dw


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
    if rare(x, w, y):
        return reference.depthwise_conv2d(x, w, b, y, stride, pad, dilation, relu)
    inside = w.shape[3] == 1 and batch_inside(x)
    wide, (filters, start) = _whole(as_one(x, inside), w.shape[3], 1), _filters(w, b, inside)
    pixels, value, inner = target_as_one(y, inside)
    fits = wide.shape[3] == pixels.shape[3]
    out = pixels if fits else space(4, (*pixels.shape[:3], wide.shape[3]))
    floor = ZERO if relu else np.float32(-math.inf)
    begin = pad[0][0], pad[1][0]
    rows = out.shape[0] * out.shape[1]
    _forward(rows, 4 * out.size, wide, filters, start, out, *stride, *begin, *dilation, floor)
    if not fits:
        pixels[...] = out[..., : pixels.shape[3]]
    settle(value, inner)
    return y


def depthwise_conv2d_grad_x(
    dy: Array, w: Array, dx: Out, stride: Pair, pad: Padding, dilation: Pair, add: bool
) -> Array:
    """dx = every dy put back where its window read, times the cell of the filter it met there."""
    if rare(dx, w, dy):
        return reference.depthwise_conv2d_grad_x(dy, w, dx, stride, pad, dilation, add)
    inside = w.shape[3] == 1 and batch_inside(dx)
    wide, (filters, start) = _whole(as_one(dy, inside), 1, 1), _filters(w, None, inside)
    pixels, value, inner = target_as_one(dx, inside, add)
    fits = wide.shape[3] == pixels.shape[3]
    out = pixels if fits else space(4, (*pixels.shape[:3], wide.shape[3]))
    begin, rows = (pad[0][0], pad[1][0]), out.shape[0] * out.shape[1]
    _backward(rows, 4 * out.size, wide, filters, start, out, *stride, *begin, *dilation)
    if not fits:
        each = out[..., : pixels.shape[3] * w.shape[3]]
        pixels[...] = each.reshape(*pixels.shape, w.shape[3]).sum(axis=-1)
    settle(value, inner, add)
    return dx


def depthwise_conv2d_grad_w(
    dy: Array, x: Array, dw: Out, stride: Pair, pad: Padding, dilation: Pair, add: bool
) -> Array:
    """dw[r, s, c, m] = sum over n, i, j of x[n, i sh + r dh, j sw + s dw, c] dy[n, i, j, c, m]."""
    if rare(x, dw, dy):
        return reference.depthwise_conv2d_grad_w(dy, x, dw, stride, pad, dilation, add)
    if dw.shape[3] == 1 and batch_inside(x):
        return _grad_w_inside(dy, x, dw, stride, pad, dilation, add)
    slopes, wide = _whole(dy, 1, 1), _whole(x, dw.shape[3], 2)
    rows = dy.shape[0] * dy.shape[1]
    parts = space(3, (min(_TASKS, rows), *dw.shape[:2], wide.shape[3]))
    begin = pad[0][0], pad[1][0]
    _sum(len(parts), 4 * dy.size, slopes, wide, parts, *stride, *begin, *dilation)
    total = parts.sum(axis=0, dtype=np.float64)[..., : dy.shape[3]].reshape(dw.shape)
    return settle(total.astype(np.float32), dw, add)


def _grad_w_inside(
    dy: Array, x: Array, dw: Array, stride: Pair, pad: Padding, dilation: Pair, add: bool
) -> Array:
    """dw, of batches in the memory order H, W, N, C."""
    (kh, kw, c, _), images = dw.shape, len(x)
    whole = math.lcm(c, LANES) // c  # images whose channels fill whole vectors
    if images % whole:
        plain = np.ascontiguousarray(dy), np.ascontiguousarray(x)
        return depthwise_conv2d_grad_w(*plain, dw, stride, pad, dilation, add)
    slopes, wide = (
        canonical(outward(a, OUTWARD)).reshape(*a.shape[1:3], images // whole, whole * c)
        for a in (dy, x)
    )
    parts = space(3, (min(_TASKS, len(slopes)), kh, kw, whole * c))
    begin = pad[0][0], pad[1][0]
    _sum_inside(len(parts), 4 * dy.size, slopes, wide, parts, *stride, *begin, *dilation)
    total = parts.reshape(-1, kh, kw, whole, c).sum(axis=(0, 3), dtype=np.float64)
    return settle(total.astype(np.float32).reshape(dw.shape), dw, add)


def _whole(x: Array, multiplier: int, nth: int) -> Array:
    """x with each channel repeated, then zeros up to whole vectors; x itself where it has them."""
    channels = x.shape[-1] * multiplier
    if multiplier == 1 and channels % LANES == 0:
        return canonical(x)
    whole = space(nth, (*x.shape[:-1], -(-channels // LANES) * LANES))
    whole[..., :channels] = np.repeat(x, multiplier, axis=-1)
    whole[..., channels:] = 0
    return whole


def _filters(w: Array, b: Array | None, inside: bool) -> tuple[Array, Array]:
    """Filters (KH, KW, P), and b or zeros, P: what the channels of pixels are, over and over.

    P is a multiple of LANES: zeros follow the channels of one image; those of a batch that is one
    image are repeated.
    """
    (kh, kw), c = w.shape[:2], w.shape[2] * w.shape[3]
    times = math.lcm(c, LANES) // c if inside else 1
    every = space(2, (kh * kw + 1, -(-times * c // LANES) * LANES))
    every[:, times * c :] = 0
    for image in range(0, times * c, c):
        every[:-1, image : image + c] = w.reshape(-1, c)
        every[-1, image : image + c] = 0 if b is None else b
    return every[:-1].reshape(kh, kw, -1), every[-1]


@loop
def _forward(start, stop, x, w, b, y, sh, sw, top, left, dh, dw, floor):
    height, (oh, ow), (kh, kw) = x.shape[1], y.shape[1:3], w.shape[:2]
    for row in range(start, stop):
        n, h = row // oh, row % oh * sh - top
        first = max(0, -(h // dh))  # lines of the window inside the image: from first to last
        last = min(kh - 1, (height - 1 - h) // dh)
        lines = n * height + h + first * dh, dh, last - first + 1
        taps = first * kw, kw, 1, kw
        _line(x, w, b, y, lines, taps, (-left, sw, dw), (row * ow, 1, ow), floor)


@loop
def _backward(start, stop, dy, w, b, dx, sh, sw, top, left, dh, dw):
    (height, width), oh, (kh, kw) = dx.shape[1:3], dy.shape[1], w.shape[:2]
    for row in range(start, stop):
        n, h = row // height, row % height + top
        r, down, i, up = _meeting(h, dh, sh, kh)
        while r < kh and i >= oh:
            r, i = r + down, i - up
        lines = 0
        while r + lines * down < kh and i - lines * up >= 0:
            lines += 1
        for v in range(min(sw, width)):
            s, across, j, back = _meeting(v + left, dw, sw, kw)
            taps = r * kw + s, down * kw, across, (kw - s + across - 1) // across
            pixels = row * width + v, sw, (width - v + sw - 1) // sw
            place = (n * oh + i, -up, lines)
            _line(dy, w, b, dx, place, taps, (j, 1, -back), pixels, np.float32(-np.inf))


@jit
def _meeting(place, dilation, step, cells):
    """The first cell of a window that can lie on a place, and from there to the next: 4 numbers.

    The cell, or `cells` if there is none; how many on the next one is; the window it is a cell of;
    and how many windows before that the next cell's window is.
    """
    every = step
    for n in range(1, step):
        if n * dilation % step == 0 and every == step:
            every = n
    cell = 0
    while cell < cells and (place - cell * dilation) % step != 0:
        cell += 1
    return cell, every, (place - cell * dilation) // step, every * dilation // step


@jit
def _line(x, w, b, y, lines, taps, columns, pixels, floor):
    """A line of y: for each of its pixels b and the sum of cells of x times filters.

    lines: the first line of x, from one to the next, how many. taps: the first cell of a filter,
    from one line of cells to the next, from cell to cell, how many in a line. columns: of x for the
    first pixel and cell, from pixel to pixel, from cell to cell. pixels: the first of y, from one
    to the next, how many.
    """
    width, c = x.shape[2:]
    _, _, tap_on, across = taps
    (column, on, apart), (pixel, pixel_on, count) = columns, pixels
    least, most = min(0, (across - 1) * apart), max(0, (across - 1) * apart)
    inside = min(count, (width - 1 - most - column) // on + 1)  # pixels before those at the edge
    q = 0
    while q < count:
        v, out = column + q * on, (pixel + q * pixel_on) * c
        if v + least >= 0 and q + 4 <= inside:
            _four(x, w, b, y, lines, taps, (v, on, apart), out, pixel_on * c, floor)
            q += 4
            if q < inside < q + 4:
                q = inside - 4  # some of these are done again
        else:
            skip, stop = _inside(v, apart, across, width)
            real, at = (taps[0] + skip * tap_on, taps[1], tap_on, stop - skip), v + skip * apart
            same = _inside(v + 3 * on, apart, across, width) == (skip, stop)
            # none inside is no sameness: the image may lie between
            if same and skip < stop and q + 4 <= count:
                _four(x, w, b, y, lines, real, (at, on, apart), out, pixel_on * c, floor)
                q += 4
            else:
                _one(x, w, b, y, lines, real, (at, apart), out, floor)
                q += 1


@jit
def _inside(v, apart, across, width):
    """The first of the cells of a line of a window that is inside of the image, and the end."""
    skip, stop = 0, across
    while skip < stop and not 0 <= v + skip * apart < width:
        skip += 1
    while skip < stop and not 0 <= v + (stop - 1) * apart < width:
        stop -= 1
    return skip, stop


@jit
def _four(x, w, b, y, lines, taps, columns, out, step, floor):
    """Four pixels of y, `step` numbers apart, whose windows have the same cells inside x.

    Where they lie side by side and have three cells in a line, six pixels of x serve all twelve.
    """
    (width, c), p, k_w = x.shape[2:], w.shape[2], 0
    (line, down, high), (tap, tap_down, tap_on, across) = lines, taps
    v, on, apart = columns
    low, near = splat(floor), across == 3 and on == 1 and apart * apart == 1
    for k in range(0, c, LANES):
        v0 = v1 = v2 = v3 = load(b, k_w)
        for r in range(high):
            at = ((line + r * down) * width + v) * c + k
            cell = (tap + r * tap_down) * p + k_w
            if near:
                v0, v1, v2, v3 = _nearby(x, w, at, cell, apart * c, tap_on * p, v0, v1, v2, v3)
                continue
            for _ in range(across):
                f = load(w, cell)
                v0 = plus_product(v0, load(x, at), f)
                v1 = plus_product(v1, load(x, at + on * c), f)
                v2 = plus_product(v2, load(x, at + 2 * on * c), f)
                v3 = plus_product(v3, load(x, at + 3 * on * c), f)
                at += apart * c
                cell += tap_on * p
        store(y, out + k, at_least(v0, low))
        store(y, out + step + k, at_least(v1, low))
        store(y, out + 2 * step + k, at_least(v2, low))
        store(y, out + 3 * step + k, at_least(v3, low))
        k_w = k_w + LANES if k_w + LANES < p else 0


@jit
def _nearby(x, w, at, cell, back, tap_on, v0, v1, v2, v3):
    """Four sums and the products of six pixels of x, side by side, with three cells of filters.

    back: numbers between the pixels that neighbouring cells meet, above or below 0.
    """
    c, turn = abs(back), back < 0
    f0, f1, f2 = load(w, cell), load(w, cell + tap_on), load(w, cell + 2 * tap_on)
    if turn:  # the last cell meets the first pixel
        at, f0, f2 = at + 2 * back, f2, f0
    x1, x2, x3, x4 = load(x, at + c), load(x, at + 2 * c), load(x, at + 3 * c), load(x, at + 4 * c)
    v0 = plus_product(plus_product(plus_product(v0, load(x, at), f0), x1, f1), x2, f2)
    v1 = plus_product(plus_product(plus_product(v1, x1, f0), x2, f1), x3, f2)
    v2 = plus_product(plus_product(plus_product(v2, x2, f0), x3, f1), x4, f2)
    v3 = plus_product(plus_product(plus_product(v3, x3, f0), x4, f1), load(x, at + 5 * c), f2)
    return v0, v1, v2, v3


@jit
def _one(x, w, b, y, lines, taps, columns, out, floor):
    """One pixel of y, with a part of its window that lies inside x."""
    (width, c), p, k_w = x.shape[2:], w.shape[2], 0
    (line, down, high), (tap, tap_down, tap_on, across), (v, apart) = lines, taps, columns
    for k in range(0, c, LANES):
        total = load(b, k_w)
        for r in range(high):
            at, cell = ((line + r * down) * width + v) * c + k, (tap + r * tap_down) * p + k_w
            for _ in range(across):
                total = plus_product(total, load(x, at), load(w, cell))
                at += apart * c
                cell += tap_on * p
        store(y, out + k, at_least(total, splat(floor)))
        k_w = k_w + LANES if k_w + LANES < p else 0


@loop
def _sum(start, stop, dy, x, parts, sh, sw, top, left, dh, dw):
    oh, ow, c = dy.shape[1:]
    rows, tasks, near = dy.shape[0] * oh, parts.shape[0], max(1, _NEAR // ow)
    for task in range(start, stop):
        part, end = parts[task], (task + 1) * rows // tasks
        part[:] = 0
        for first in range(task * rows // tasks, end, near):
            last = min(first + near, end)
            for k in range(0, c, LANES):
                for r in range(part.shape[0]):
                    _sum_line(dy, x, part, first, last, k, r, sh, sw, r * dh - top, left, dw)


@jit
def _sum_line(dy, x, part, first, last, k, r, sh, sw, above, left, dw):
    """part[r] += x times dy, summed over lines of dy, in the LANES channels from k on."""
    oh, ow, c = dy.shape[1:]
    height, width, kw = x.shape[1], x.shape[2], part.shape[1]
    for s in range(0, kw, 3):  # three cells at a time
        cell, many, v = (r * kw + s) * c + k, min(3, kw - s), s * dw - left
        # windows with all three inside the image
        near = max(0, -(v // sw)) if many == 3 else ow
        far = min(ow, (width - 1 - v - 2 * dw) // sw + 1)
        v0, v1, v2 = load(part, cell), splat(ZERO), splat(ZERO)
        n, i = first // oh, first % oh
        for row in range(first, last):
            h = i * sh + above
            if 0 <= h < height:
                at = ((n * height + h) * width + v) * c + k
                for j in range(ow):
                    slope = load(dy, (row * ow + j) * c + k)
                    inside = near <= j < far
                    if inside or 0 <= v + j * sw < width:
                        v0 = plus_product(v0, load(x, at), slope)
                    if inside or (many > 1 and 0 <= v + dw + j * sw < width):
                        v1 = plus_product(v1, load(x, at + dw * c), slope)
                    if inside or (many > 2 and 0 <= v + 2 * dw + j * sw < width):
                        v2 = plus_product(v2, load(x, at + 2 * dw * c), slope)
                    at += sw * c
            i += 1
            if i == oh:
                n, i = n + 1, 0
        store(part, cell, v0)
        if many > 1:
            store(part, cell + c, plus(load(part, cell + c), v1))
        if many > 2:
            store(part, cell + 2 * c, plus(load(part, cell + 2 * c), v2))


@loop
def _sum_inside(start, stop, dy, x, parts, sh, sw, top, left, dh, dw):
    (oh, ow), (height, width) = dy.shape[:2], x.shape[:2]
    tasks, kh, kw, _ = parts.shape
    near = kh == kw == 3 and sh == sw == dh == dw == 1
    for task in range(start, stop):
        part = parts[task]
        part[:] = 0
        for i in range(task * oh // tasks, (task + 1) * oh // tasks):
            h, j = i * sh - top, 0
            whole = near and h >= 0 and h + 2 < height
            while j < ow:
                v = j * sw - left
                if whole and v >= 0 and v + 3 < width and j + 1 < ow:
                    _pair(dy, x, part, i * ow + j, h * width + v, width)
                    j += 2
                    continue
                for r in range(max(0, -(h // dh)), min(kh, (height - 1 - h) // dh + 1)):
                    _cells(dy, x, part, i * ow + j, h + r * dh, v, dw, r)
                j += 1


@jit
def _pair(dy, x, part, slope, pixel, width):
    """part += sums over images of two pixels of dy times the 3 x 3 around each: twelve of x."""
    images, c = x.shape[2:]
    on = images * c
    down = width * on
    for k in range(0, c, LANES):
        a0, a1, a2 = load(part, k), load(part, k + c), load(part, k + 2 * c)
        b0, b1, b2 = load(part, k + 3 * c), load(part, k + 4 * c), load(part, k + 5 * c)
        c0, c1, c2 = load(part, k + 6 * c), load(part, k + 7 * c), load(part, k + 8 * c)
        place, at = slope * on + k, pixel * on + k
        for _ in range(images):
            d, e = load(dy, place), load(dy, place + on)
            a0, a1, a2 = _row(x, at, on, d, e, a0, a1, a2)
            b0, b1, b2 = _row(x, at + down, on, d, e, b0, b1, b2)
            c0, c1, c2 = _row(x, at + 2 * down, on, d, e, c0, c1, c2)
            place += c
            at += c
        for cell, total in enumerate((a0, a1, a2, b0, b1, b2, c0, c1, c2)):
            store(part, k + cell * c, total)


@jit
def _row(x, at, on, d, e, t0, t1, t2):
    """Three sums and the products of four pixels of x, `on` numbers apart, with d and e."""
    x1, x2 = load(x, at + on), load(x, at + 2 * on)
    t0 = plus_product(plus_product(t0, load(x, at), d), x1, e)
    t1 = plus_product(plus_product(t1, x1, d), x2, e)
    t2 = plus_product(plus_product(t2, x2, d), load(x, at + 3 * on), e)
    return t0, t1, t2


@jit
def _cells(dy, x, part, slope, h, v, apart, r):
    """part[r] += sums over images of a pixel of dy times those of line h of x, from v on."""
    width, (kw, s) = x.shape[1], (part.shape[1], 0)
    while s < kw:
        first, cell = v + s * apart, r * kw + s
        if s + 3 <= kw and first >= 0 and first + 2 * apart < width:
            _three(dy, x, part, slope, h * width + first, apart, cell)
            s += 3
            continue
        if 0 <= first < width:
            _single(dy, x, part, slope, h * width + first, cell)
        s += 1


@jit
def _three(dy, x, part, slope, pixel, apart, cell):
    """part[cell] to part[cell + 2] += sums over images of a pixel of dy times three of x."""
    images, c = x.shape[2:]
    on = apart * images * c
    for k in range(0, c, LANES):
        place, at, to = slope * images * c + k, pixel * images * c + k, cell * c + k
        v0, v1, v2 = load(part, to), load(part, to + c), load(part, to + 2 * c)
        for _ in range(images):
            d = load(dy, place)
            v0 = plus_product(v0, load(x, at), d)
            v1 = plus_product(v1, load(x, at + on), d)
            v2 = plus_product(v2, load(x, at + 2 * on), d)
            place += c
            at += c
        store(part, to, v0)
        store(part, to + c, v1)
        store(part, to + 2 * c, v2)


@jit
def _single(dy, x, part, slope, pixel, cell):
    """part[cell] += sum over images of a pixel of dy times one of x."""
    images, c = x.shape[2:]
    for k in range(0, c, LANES):
        place, at = slope * images * c + k, pixel * images * c + k
        total = load(part, cell * c + k)
        for _ in range(images):
            total = plus_product(total, load(x, at), load(dy, place))
            place += c
            at += c
        store(part, cell * c + k, total)
