"""Normalisation: of each channel over the batch, or of each row over its features.

In each kernel of batch_norm a thread stays with one channel, whose numbers it works out once, and
walks down rows; its neighbours take the neighbouring channels, and where those are few the next
rows. In those of layer_norm neighbouring threads share a row.
"""

import math
from builtins import max as larger
from typing import Any

from ..roles import Array, InOut, Out
from . import memory
from ._numba import blocks, cuda, jit
from .intrinsics import plus
from .layout import ENOUGH_LIGHT, THREADS, WARP, power_of_two
from .move import dense
from .reduce import add_tasks, add_up_middle, box, join_rows, steps_of, tasks_of
from .rows import join_row, share_of, threads_of_rows

MOST_ROWS = 16  # of a thread: enough to make up for the square root it starts with
AT_ONCE = 4  # rows whose loads are under way together: none waits for the store of another


@jit
def _normalise(x, w, b, r, mean, var, y, chunk, eps, relu):
    """A thread normalises every blockDim.y-th of `chunk` rows of one channel of x (R, C)."""
    c = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if c >= x.shape[1]:
        return
    zero, one = x.dtype.type(0), x.dtype.type(1)
    scale = one / math.sqrt(var[c] + eps)
    if w.size:
        scale *= w[c]
    shift = b[c] if b.size else zero
    middle = mean[c]
    loaded, added = cuda.local.array(AT_ONCE, x.dtype), cuda.local.array(AT_ONCE, x.dtype)
    start = cuda.blockIdx.x * chunk + cuda.threadIdx.y
    steps = steps_of(min(chunk, x.shape[0] - cuda.blockIdx.x * chunk))
    for first in range(0, steps, AT_ONCE):
        for n in range(AT_ONCE):
            if first + n < steps:
                at = start + (first + n) * cuda.blockDim.y
                loaded[n] = x[at, c]
                added[n] = r[at, c] if r.size else zero
        for n in range(AT_ONCE):
            if first + n < steps:
                value = (loaded[n] - middle) * scale + shift
                value = value + added[n] if r.size else value
                value = zero if relu and value <= zero else value  # NaN is not <= 0
                y[start + (first + n) * cuda.blockDim.y, c] = value


@dense
def batch_norm(
    x: Array,
    w: Array | None,
    b: Array | None,
    r: Array | None,
    y: Out,
    mean: Out,
    var: Out,
    eps: float,
    relu: bool,
) -> tuple[Array, Array, Array]:
    """y = w (x - mean) / sqrt(var + eps) + b + r with the batch's own mean and (biased) variance.

    x (..., C), w, b (C,) or None, r (..., C), a residual, or None -> y (..., C), mean, var (C,);
    relu: what is below 0 becomes 0 in the end, NaN stays NaN.
    """
    rows = _rows(x)
    columns, (count, channels) = rows.reshape(1, *rows.shape), rows.shape
    add_up_middle(columns, mean.reshape(1, channels), False, count)
    # in two passes: E[x^2] - mean^2 cancels
    centre = mean.reshape(1, channels)
    add_up_middle(columns, var.reshape(1, channels), False, count, centre, squares=True)
    batch_norm_eval(x, w, b, r, mean, var, y, eps, relu)
    return y, mean, var


@dense
def batch_norm_eval(
    x: Array,
    w: Array | None,
    b: Array | None,
    r: Array | None,
    mean: Array,
    var: Array,
    y: Out,
    eps: float,
    relu: bool,
) -> Array:
    """y = w (x - mean) / sqrt(var + eps) + b + r with statistics that are given; relu as above."""
    rows, none = _rows(x), memory.scratch((0,), x.dtype)
    w, b = (none if a is None else a for a in (w, b))
    r = memory.scratch((0, 0), x.dtype) if r is None else _rows(r)
    grid, block, chunk = _walk(*rows.shape)
    _normalise[grid, block](rows, w, b, r, mean, var, _rows(y), chunk, float(eps), relu)
    return y


def _rows(x: Array) -> Array:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _walk(rows: int, channels: int) -> tuple[Any, Any, int]:
    """Grid, block and rows per block of a pass over every element."""
    lanes = min(WARP, power_of_two(2 * channels - 1))
    height = THREADS // lanes
    steps = rows * channels // (THREADS * ENOUGH_LIGHT)
    chunk = height * larger(1, min(MOST_ROWS, steps))
    return (blocks(rows, chunk), blocks(channels, lanes)), (lanes, height), chunk


@jit
def _add_slopes(dy, x, y, mean, var, dr, eps, add, partial, chunk):
    """A thread adds up dy, and dy z, of every blockDim.y-th of `chunk` rows of one channel.

    dy, x (R, C) -> partial (2, tasks, C), with z = (x - mean) / sqrt(var + eps): both sums in one
    pass. Where y has a size, dy counts as 0 where y is not above 0; dr, too, gets that dy.
    """
    part = cuda.shared.array(THREADS, x.dtype)
    c = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    task = cuda.blockIdx.y
    inside = c < x.shape[1] and cuda.threadIdx.z == 0
    total, dot = x.dtype.type(0), x.dtype.type(0)
    if inside:
        rstd, middle = x.dtype.type(1) / math.sqrt(var[c] + eps), mean[c]
        start = task * chunk
        for n in range(steps_of(min(chunk, x.shape[0] - start))):
            r = start + cuda.threadIdx.y + n * cuda.blockDim.y
            slope = dy[r, c]
            if y.size and y[r, c] <= x.dtype.type(0):  # NaN is not <= 0
                slope = x.dtype.type(0)
            if dr.size:
                dr[r, c] = plus(dr[r, c], slope) if add else slope
            total += slope
            dot += slope * ((x[r, c] - middle) * rstd)
    total, dot = join_rows(total, part), join_rows(dot, part)
    if inside and cuda.threadIdx.y == 0:
        partial[0, task, c], partial[1, task, c] = total, dot


@jit
def _slopes(dy, x, y, w, mean, var, sums, dx, chunk, eps, add):
    """A thread computes dx in every blockDim.y-th of `chunk` rows of one channel.

    sums (2, C): of dy and of dy z, or of size 0 where mean and var are constants. y: as above.
    """
    c = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if c >= x.shape[1]:
        return
    zero, rows = x.dtype.type(0), x.dtype.type(x.shape[0])
    rstd, middle = x.dtype.type(1) / math.sqrt(var[c] + eps), mean[c]
    scale = rstd * w[c] if w.size else rstd
    flat = sums[0, c] / rows if sums.size else zero
    lean = sums[1, c] / rows if sums.size else zero
    slope = cuda.local.array(AT_ONCE, x.dtype)
    start = cuda.blockIdx.x * chunk + cuda.threadIdx.y
    steps = steps_of(min(chunk, x.shape[0] - cuda.blockIdx.x * chunk))
    for first in range(0, steps, AT_ONCE):
        for n in range(AT_ONCE):
            if first + n < steps:
                r = start + (first + n) * cuda.blockDim.y
                slope[n] = zero if y.size and y[r, c] <= zero else dy[r, c]
                if sums.size:  # where they are constants, an infinite x does not count
                    slope[n] -= flat + (x[r, c] - middle) * rstd * lean
        for n in range(AT_ONCE):
            if first + n < steps:
                r = start + (first + n) * cuda.blockDim.y
                value = slope[n] * scale
                dx[r, c] = plus(dx[r, c], value) if add else value


@jit
def _affine_slopes(sums, dw, db, add_w, add_b):
    """A thread brings the two sums (2, C) of one channel to where they are wanted."""
    c = cuda.grid(1)
    if c < db.size:
        db[c] = plus(db[c], sums[0, c]) if add_b else sums[0, c]
    if c < dw.size:
        dw[c] = plus(dw[c], sums[1, c]) if add_w else sums[1, c]


@dense
def batch_norm_grad(
    dy: Array,
    x: Array,
    w: Array | None,
    mean: Array,
    var: Array,
    y: Array | None,
    dx: Out,
    dw: Out,
    db: Out,
    dr: Out,
    eps: float,
    relu: bool,
    add: tuple[bool, bool, bool, bool],
) -> tuple[Array | None, Array | None, Array | None, Array | None]:
    """Gradients of batch_norm through its mean and variance; dx, dw, db or dr may be None.

    relu: dy counts as 0 where y, which batch_norm computed, is not above 0. dr is that dy. With
    z = (x - mean) / sqrt(var + eps): db = sum dy, dw = sum dy z and
    dx = w / sqrt(var + eps) (dy - mean of dy - z mean of dy z).
    """
    above = _above(y, relu, x.dtype)
    sums = _sums(dy, x, above, mean, var, (dw, db, dr), eps, add)
    _grad_x(dy, x, above, w, mean, var, sums, dx, eps, add[0])
    return dx, dw, db, dr


@dense
def batch_norm_eval_grad(
    dy: Array,
    x: Array,
    w: Array | None,
    mean: Array,
    var: Array,
    y: Array | None,
    dx: Out,
    dw: Out,
    db: Out,
    dr: Out,
    eps: float,
    relu: bool,
    add: tuple[bool, bool, bool, bool],
) -> tuple[Array | None, Array | None, Array | None, Array | None]:
    """Gradients of batch_norm_eval, whose statistics are constants; as above, but for dx."""
    above = _above(y, relu, x.dtype)
    if any(a is not None for a in (dw, db, dr)):
        _sums(dy, x, above, mean, var, (dw, db, dr), eps, add)
    _grad_x(dy, x, above, w, mean, var, memory.scratch((2, 0), x.dtype), dx, eps, add[0])
    return dx, dw, db, dr


def _above(y: Array | None, relu: bool, dtype: Any) -> Array:
    """y as rows, of size 0 where there was no relu."""
    return _rows(y) if relu else memory.scratch((0, 0), dtype)


def _sums(dy, x, above, mean, var, outs, eps, add) -> Array:
    """The sums (2, C) of dy and of dy z, in dw and db too where these are wanted; dr beside it."""
    none, (*sums, dr) = memory.scratch((0,), x.dtype), outs
    dr = memory.scratch((0, 0), x.dtype) if dr is None else _rows(dr)
    given = above, mean, var, dr, float(eps), add[3]
    sums = [none if a is None else a for a in sums]
    return _sum_slopes(_add_slopes, _rows(dy), _rows(x), given, sums, add)


def _sum_slopes(kernel, dy, x, given, outs, add) -> Array:
    """The sums (2, C) over the rows of dy (R, C) and of dy z, by a kernel; and in outs = dw, db."""
    rows, channels = x.shape
    block = box(1, rows, channels)
    tasks, chunk = tasks_of((1, rows, channels), block)
    partial = memory.scratch((2, tasks, channels), x.dtype)
    sums = partial.reshape(2, channels) if tasks == 1 else memory.scratch((2, channels), x.dtype)
    grid = blocks(channels, block[0]), tasks
    kernel[grid, block](dy, x, *given, partial, chunk)
    if tasks > 1:
        add_tasks(partial, sums, False)
    if outs[0].size or outs[1].size:
        _affine_slopes[blocks(channels, THREADS), THREADS](sums, *outs, *add[1:3])
    return sums


def _grad_x(dy, x, above, w, mean, var, sums, dx, eps, add) -> None:
    if dx is None:
        return
    dy, x = _rows(dy), _rows(x)
    grid, block, chunk = _walk(*x.shape)
    w = memory.scratch((0,), x.dtype) if w is None else w
    _slopes[grid, block](dy, x, above, w, mean, var, sums, _rows(dx), chunk, float(eps), add)


@jit
def _track(mean, var, running_mean, running_var, momentum, unbiased):
    """A thread moves the two statistics of one channel."""
    c = cuda.grid(1)
    if c < mean.size:
        running_mean[c] += momentum * (mean[c] - running_mean[c])
        running_var[c] += momentum * (var[c] * unbiased - running_var[c])


@dense
def batch_norm_track_(
    mean: Array,
    var: Array,
    running_mean: InOut,
    running_var: InOut,
    momentum: float,
    rows: int,
) -> tuple[Array, Array]:
    """Move the running statistics a step (momentum) towards a batch's.

    The running variance follows the unbiased one, var rows / (rows - 1), as PyTorch's does.
    """
    _track[blocks(mean.size, THREADS), THREADS](
        mean, var, running_mean, running_var, float(momentum), rows / (rows - 1)
    )
    return running_mean, running_var


@jit
def _layer_norm(x, w, b, y, mean, rstd, eps, bits):
    """blockDim.x neighbouring threads share a row of x (R, F): two sums, then y."""
    part = cuda.shared.array(WARP, x.dtype)
    row = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    n = min(row, x.shape[0] - 1)  # past the end, too: a shuffle needs every lane of its warp
    zero, one, count = x.dtype.type(0), x.dtype.type(1), x.dtype.type(x.shape[1])
    steps = share_of(x.shape[1], bits)
    total = zero
    for k in range(steps):
        total += x[n, cuda.threadIdx.x + (k << bits)]
    middle = join_row(total, part, False) / count
    total = zero
    for k in range(steps):
        distance = x[n, cuda.threadIdx.x + (k << bits)] - middle
        total += distance * distance
    root = one / math.sqrt(join_row(total, part, False) / count + eps)
    if row == n:
        for k in range(steps):
            c = cuda.threadIdx.x + (k << bits)
            value = (x[n, c] - middle) * root
            if w.size:
                value *= w[c]
            y[n, c] = value + b[c] if b.size else value
        if cuda.threadIdx.x == 0:
            mean[n], rstd[n] = middle, root


@dense
def layer_norm(
    x: Array, w: Array | None, b: Array | None, y: Out, mean: Out, rstd: Out, eps: float
) -> tuple[Array, Array, Array]:
    """y = w (x - mean) / sqrt(var + eps) + b with the mean and (biased) variance of each row.

    x (..., *features), w, b (*features) or None -> y like x, mean, rstd = 1 / sqrt(var + eps) (...)
    """
    rows, none = _rows_of(x, mean), memory.scratch((0,), x.dtype)
    w, b = (none if a is None else a.reshape(-1) for a in (w, b))
    grid, block, bits = threads_of_rows(*rows.shape)
    _layer_norm[grid, block](
        rows, w, b, y.reshape(rows.shape), mean.reshape(-1), rstd.reshape(-1), float(eps), bits
    )
    return y, mean, rstd


def _rows_of(x: Array, mean: Array) -> Array:
    """x with a row of features for each element of mean."""
    return x.reshape(mean.size, math.prod(x.shape[mean.ndim :]))


@jit
def _layer_norm_slopes(dy, x, w, mean, rstd, dx, bits, add):
    """blockDim.x neighbouring threads share a row: they add up g and g z, then fill dx."""
    part = cuda.shared.array(WARP, x.dtype)
    row = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    n = min(row, x.shape[0] - 1)
    steps, middle, root = share_of(x.shape[1], bits), mean[n], rstd[n]
    flat, lean = x.dtype.type(0), x.dtype.type(0)
    for k in range(steps):
        c = cuda.threadIdx.x + (k << bits)
        g = dy[n, c] * w[c] if w.size else dy[n, c]
        flat += g
        lean += g * ((x[n, c] - middle) * root)
    flat = join_row(flat, part, False) / x.dtype.type(x.shape[1])
    lean = join_row(lean, part, False) / x.dtype.type(x.shape[1])
    if row == n:
        for k in range(steps):
            c = cuda.threadIdx.x + (k << bits)
            g = dy[n, c] * w[c] if w.size else dy[n, c]
            value = root * (g - flat - (x[n, c] - middle) * root * lean)
            dx[n, c] = plus(dx[n, c], value) if add else value


@jit
def _add_layer_slopes(dy, x, mean, rstd, partial, chunk):
    """A thread adds up dy, and dy z, of every blockDim.y-th of `chunk` rows of one feature.

    dy, x (R, F), mean, rstd (R,) -> partial (2, tasks, F): as _add_slopes.
    """
    part = cuda.shared.array(THREADS, x.dtype)
    c = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    task = cuda.blockIdx.y
    inside = c < x.shape[1] and cuda.threadIdx.z == 0
    total, dot = x.dtype.type(0), x.dtype.type(0)
    if inside:
        start = task * chunk
        for n in range(steps_of(min(chunk, x.shape[0] - start))):
            r = start + cuda.threadIdx.y + n * cuda.blockDim.y
            total += dy[r, c]
            dot += dy[r, c] * ((x[r, c] - mean[r]) * rstd[r])
    total, dot = join_rows(total, part), join_rows(dot, part)
    if inside and cuda.threadIdx.y == 0:
        partial[0, task, c], partial[1, task, c] = total, dot


@dense
def layer_norm_grad(
    dy: Array,
    x: Array,
    w: Array | None,
    mean: Array,
    rstd: Array,
    dx: Out,
    dw: Out,
    db: Out,
    add: tuple[bool, bool, bool],
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients of layer_norm through mean and rstd; dx, dw or db may be None.

    With z = (x - mean) rstd and g = w dy: db = sum dy, dw = sum dy z over the rows, and
    dx = rstd (g - mean of g - z mean of g z) over the features.
    """
    dys, rows, none = _rows_of(dy, mean), _rows_of(x, mean), memory.scratch((0,), x.dtype)
    mean, rstd = mean.reshape(-1), rstd.reshape(-1)
    if dx is not None:
        scale = none if w is None else w.reshape(-1)
        grid, block, bits = threads_of_rows(*rows.shape)
        out = dx.reshape(rows.shape)
        _layer_norm_slopes[grid, block](dys, rows, scale, mean, rstd, out, bits, add[0])
    if dw is not None or db is not None:
        outs = [none if a is None else a.reshape(-1) for a in (dw, db)]
        _sum_slopes(_add_layer_slopes, dys, rows, (mean, rstd), outs, add)
    return dx, dw, db
