"""Sums, variances, maxima ... over axes: the same bits in every run, on every launch of a shape.

Every reduction is one over the middle axis of x (outer, reduced, inner), and a block a box of
threads, each of its sides a power of two:

    axis of x   threadIdx   of a thread                        blockIdx
    inner       x (lanes)   `column`                           x
    reduced     y (rows)    every blockDim.y-th of its task    y: `task`, a chunk of a long sum
    outer       z (outs)    `out`                              z, in turns where a grid ends

So a warp reads neighbours whether it adds up the rows of a matrix or its columns. Two examples: the
row sums of a (64, 1000) reduce (64, 1000, 1), in blocks of 1 x 32 x 8, a warp per row of the
matrix; its column sums reduce (1, 64, 1000), in blocks of 64 x 4 x 1, a thread for every fourth
term of a column.
"""

import math
from builtins import max as larger  # max and min are kernels here
from builtins import min as smaller
from collections.abc import Sequence

from ..roles import Array, Out
from . import memory
from ._numba import Kernel, blocks, cuda, device, jit
from .intrinsics import plus
from .layout import (
    ENOUGH_LIGHT,
    EVERY_LANE,
    MOST_BLOCKS,
    MOST_DEEP,
    THREADS,
    WARP,
    broadcast_strides,
    power_of_two,
)
from .move import copy, dense

SECTOR = 8  # neighbours that one memory transaction brings: enough lanes for a short sum
# Additions of a thread that make up for joining its sum with others' ...
WORTH_SHUFFLES = 4  # ... in its warp
WORTH_BARRIERS = 16  # ... across warps

NOWHERE = 2**63 - 1  # behind every position

Shape3 = tuple[int, int, int]


@device
def steps_of(count):
    """How many of `count` elements a thread takes: every blockDim.y-th, from threadIdx.y on."""
    return (count + cuda.blockDim.y - 1 - cuda.threadIdx.y) >> (cuda.ffs(cuda.blockDim.y) - 1)


@device
def place_in_block():
    """The number of a thread in its block: 32 in a row are a warp."""
    row = cuda.threadIdx.y + cuda.blockDim.y * cuda.threadIdx.z
    return cuda.threadIdx.x + cuda.blockDim.x * row


@device
def join_rows(value, part):
    """The sum over the rows of a block, for the threads of row 0; part (THREADS,) is shared.

    A tree: through shared memory while the two rows that meet lie in different warps, by shuffles
    from then on. What threads of other rows get means nothing.
    """
    mine, half = place_in_block(), cuda.blockDim.y >> 1
    while half * cuda.blockDim.x >= WARP:
        part[mine] = value
        cuda.syncthreads()
        if cuda.threadIdx.y < half:
            value += part[mine + half * cuda.blockDim.x]
        cuda.syncthreads()
        half >>= 1
    while half > 0:
        value += cuda.shfl_xor_sync(EVERY_LANE, value, half * cuda.blockDim.x)
        half >>= 1
    return value


@jit
def _add_up(x, centre, y, chunk, count, squares, add):
    """A thread adds up every blockDim.y-th of `chunk` elements of a column; the rows then join.

    x (outer, reduced, inner) -> y (outer, tasks, inner) = sum / count. With a centre (outer, inner)
    the sum is one of distances from it; squares: of their squares.
    """
    part = cuda.shared.array(THREADS, x.dtype)
    column = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    task = cuda.blockIdx.y
    start = task * chunk + cuda.threadIdx.y
    steps = steps_of(smaller(chunk, x.shape[1] - task * chunk))
    zero = x.dtype.type(0)
    first = cuda.blockIdx.z * cuda.blockDim.z
    while first < x.shape[0]:
        out = first + cuda.threadIdx.z
        inside = out < x.shape[0] and column < x.shape[2]
        middle = centre[out, column] if inside and centre.size else zero
        total = zero
        for n in range(steps if inside else 0):
            value = x[out, start + n * cuda.blockDim.y, column] - middle
            total += value * value if squares else value
        total = join_rows(total, part)
        if inside and cuda.threadIdx.y == 0:
            total /= count
            y[out, task, column] = plus(y[out, task, column], total) if add else total
        first += cuda.gridDim.z * cuda.blockDim.z


def box(outer: int, reduced: int, inner: int, lanes: int = WARP) -> Shape3:
    """The block for a shape: at least a warp, with as many rows as pay for their join."""
    lanes = smaller(lanes, power_of_two(2 * inner - 1))
    rows = larger(
        smaller(power_of_two(reduced // WORTH_SHUFFLES), WARP // lanes),
        smaller(power_of_two(reduced // WORTH_BARRIERS), THREADS // lanes),
    )
    outs = larger(power_of_two(2 * outer - 1), WARP // (lanes * rows))
    outs = smaller(outs, MOST_DEEP, THREADS // (lanes * rows))
    if lanes == WARP:  # what is left of the block goes to the columns
        lanes *= smaller(THREADS // (lanes * rows * outs), power_of_two(blocks(inner, WARP)))
    return lanes, rows, outs


def tasks_of(shape: Shape3, block: Shape3) -> tuple[int, int]:
    """Into how many tasks the sums of a shape are cut, and how many elements each has at most."""
    outer, reduced, inner = shape
    busy = larger(1, blocks(outer, block[2]) * blocks(inner, block[0]))
    tasks = larger(1, smaller(ENOUGH_LIGHT // busy, reduced // (block[1] * WORTH_BARRIERS)))
    chunk = larger(1, blocks(reduced, tasks))
    return larger(1, blocks(reduced, chunk)), chunk


def grid_of(shape: Shape3, block: Shape3, tasks: int) -> Shape3:
    """The grid: columns in x, tasks in y; in z what is outside, in turns where it is too much."""
    return blocks(shape[2], block[0]), tasks, smaller(blocks(shape[0], block[2]), MOST_BLOCKS)


def add_up_middle(
    x: Array,
    y: Array,
    add: bool,
    count: float = 1,
    centre: Array | None = None,
    squares: bool = False,
) -> None:
    """y (outer, inner) = sum of x (outer, reduced, inner) / count, in one stage or two.

    With a centre (outer, inner): of the distances from it.
    """
    outer, _, inner = x.shape
    if centre is None:
        centre = memory.scratch((0, 0), x.dtype)
    block = box(*x.shape)
    tasks, chunk = tasks_of(x.shape, block)
    grid, shape = grid_of(x.shape, block, tasks), (outer, tasks, inner)
    if tasks == 1:
        _add_up[grid, block](x, centre, y.reshape(shape), chunk, float(count), squares, add)
    else:
        partial = memory.scratch(shape, y.dtype)
        _add_up[grid, block](x, centre, partial, chunk, 1.0, squares, False)
        add_tasks(partial, y, add, count)


def add_tasks(partial: Array, y: Array, add: bool, count: float = 1) -> None:
    """y (outer, inner) = sum of partial (outer, tasks, inner) / count: the second stage."""
    outer, tasks, inner = partial.shape
    block = box(outer, tasks, inner, SECTOR)
    none = memory.scratch((0, 0), y.dtype)
    _add_up[grid_of(partial.shape, block, 1), block](
        partial, none, y.reshape(outer, 1, inner), tasks, float(count), False, add
    )


def add_up(x: Array, y: Array, add: bool, count: int = 1) -> Array:
    """y = sum of x over the axes along which y has length 1, divided by count; any strides."""
    axes, shape = together(x.shape, y.shape)
    out = y if y.flags.c_contiguous else memory.scratch(y.shape, y.dtype)
    middle = memory.contiguous(x.transpose(axes)).reshape(shape)
    add_up_middle(middle, out.reshape(shape[0], shape[2]), add and out is y, count)
    return y if out is y else copy(out, y, add)


def together(shape: tuple[int, ...], y: tuple[int, ...]) -> tuple[list[int], Shape3]:
    """An order of the axes in which the reduced ones are neighbours, and (outer, reduced, inner).

    The order they have, where that will do; else the reduced axes last.
    """
    axes = list(range(len(shape)))
    reduced = [a for a in axes if y[a] == 1 != shape[a]]
    start, stop = (reduced[0], reduced[-1] + 1) if reduced else (0, 0)
    if any(shape[a] != 1 for a in range(start, stop) if a not in reduced):
        axes = [a for a in axes if a not in reduced] + reduced
        start, stop = len(axes) - len(reduced), len(axes)
    lengths = [shape[a] for a in axes]
    outer, middle, inner = lengths[:start], lengths[start:stop], lengths[stop:]
    return axes, (math.prod(outer), math.prod(middle), math.prod(inner))


def sum(x: Array, y: Out) -> Array:
    """y = sum of x over the axes along which y has length 1; 0 where there is nothing to sum."""
    return add_up(x, y, False)


def _repeat(dy: Array, dx: Array, add: bool) -> Array:
    return copy(memory.as_strided(dy, dx.shape, broadcast_strides(dy, dx.shape)), dx, add)


def sum_grad(dy: Array, dx: Out, add: bool) -> Array:
    """dx = dy, repeated along the reduced axes."""
    return _repeat(dy, dx, add)


def mean(x: Array, y: Out) -> Array:
    """y = mean of x over the axes along which y has length 1; NaN of nothing."""
    return add_up(x, y, False, x.size // larger(y.size, 1))


def mean_grad(dy: Array, dx: Out, add: bool) -> Array:
    """dx = dy / (number of elements in each mean), repeated along the reduced axes."""
    if not dx.size:
        return dx
    share = memory.scratch(dy.shape, dy.dtype)
    return _repeat(add_up(dy, share, False, dx.size // dy.size), dx, add)


@dense
def var(x: Array, y: Out, mean: Out, correction: float) -> tuple[Array, Array]:
    """y = sum of (x - mean) ** 2 / (n - correction) over the axes along which y has length 1.

    mean = that of the same n elements. Where n <= correction: 0 / 0, or inf where they differ.
    """
    axes, shape = together(x.shape, y.shape)
    kept = shape[0], shape[2]
    middle = memory.contiguous(x.transpose(axes)).reshape(shape)
    add_up_middle(middle, mean.reshape(kept), False, shape[1])
    count = _freedom(x, y, correction)
    add_up_middle(middle, y.reshape(kept), False, count, mean.reshape(kept), squares=True)
    return y, mean


def _freedom(x: Array, y: Array, correction: float) -> float:
    """What a sum of squares is divided by: n - correction, at least 0."""
    return larger(0.0, x.size / larger(y.size, 1) - correction)


@jit
def _root(y):
    """A thread replaces one element by its square root."""
    i = cuda.grid(1)
    if i < y.size:
        y[i] = math.sqrt(y[i])


@dense
def std(x: Array, y: Out, mean: Out, correction: float) -> tuple[Array, Array]:
    """y = square root of the variance; mean = that of the same elements."""
    var(x, y, mean, correction)
    _root[blocks(y.size, THREADS), THREADS](y.reshape(-1))
    return y, mean


@device
def _fill_column(slope, x, out, column, middle, dx, chunk, add):
    """Every blockDim.y-th of `chunk` elements of a column of dx: slope times x's distance."""
    start = cuda.blockIdx.y * chunk + cuda.threadIdx.y
    for n in range(steps_of(smaller(chunk, dx.shape[1] - cuda.blockIdx.y * chunk))):
        r = start + n * cuda.blockDim.y
        value = slope * (x[out, r, column] - middle)
        dx[out, r, column] = plus(dx[out, r, column], value) if add else value


@jit
def _var_grad(x, dy, mean, dx, count, chunk, add):
    """A thread fills its part of a column of dx (outer, reduced, inner); dy (outer, inner)."""
    column = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    out = cuda.blockIdx.z * cuda.blockDim.z + cuda.threadIdx.z
    while out < dx.shape[0] and column < dx.shape[2]:
        slope = (dy[out, column] + dy[out, column]) / count
        _fill_column(slope, x, out, column, mean[out, column], dx, chunk, add)
        out += cuda.gridDim.z * cuda.blockDim.z


@jit
def _std_grad(x, dy, y, mean, dx, count, chunk, add):
    """As _var_grad, with y (outer, inner) the deviations."""
    column = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    out = cuda.blockIdx.z * cuda.blockDim.z + cuda.threadIdx.z
    while out < dx.shape[0] and column < dx.shape[2]:
        slope = dy[out, column] / (y[out, column] * count)
        if y[out, column] == 0:
            slope = dx.dtype.type(0)
        _fill_column(slope, x, out, column, mean[out, column], dx, chunk, add)
        out += cuda.gridDim.z * cuda.blockDim.z


def _walk_down(
    kernel: Kernel,
    wide: Sequence[Array],
    narrow: Sequence[Array],
    dx: Array,
    add: bool,
    *numbers: float,
) -> Array:
    """dx by a kernel whose threads walk down columns.

    wide: arrays of dx's shape; narrow: of length 1 along the axes that are the columns.
    """
    axes, shape = together(dx.shape, narrow[0].shape)
    outer, _, inner = shape
    there = dx.transpose(axes)
    rows = dx if there.flags.c_contiguous else memory.scratch(there.shape, dx.dtype)
    block = box(*shape)
    tasks, chunk = tasks_of(shape, block)
    kernel[grid_of(shape, block, tasks), block](
        *(memory.contiguous(a.transpose(axes)).reshape(shape) for a in wide),
        *(a.reshape(outer, inner) for a in narrow),
        rows.reshape(shape),
        *numbers,
        chunk,
        add and rows is dx,
    )
    if rows is not dx:
        copy(rows, there, add)
    return dx


@dense
def var_grad(dy: Array, x: Array, mean: Array, dx: Out, correction: float, add: bool) -> Array:
    """dx = 2 dy (x - mean) / (n - correction)."""
    return _walk_down(_var_grad, (x,), (dy, mean), dx, add, _freedom(x, dy, correction))


@dense
def std_grad(
    dy: Array, x: Array, y: Array, mean: Array, dx: Out, correction: float, add: bool
) -> Array:
    """dx = dy (x - mean) / (y (n - correction)), and 0 where y is 0, as in PyTorch."""
    return _walk_down(_std_grad, (x,), (dy, y, mean), dx, add, _freedom(x, dy, correction))


@device
def wins(value, i, best, at, least):
    """Whether the winner is value at i, not best at `at`.

    NaN wins, then the larger (least: the smaller), then the first.
    """
    tie = value == best or (value != value and best != best)
    beats = value < best if least else value > best
    return i < at if tie else beats or value != value


@device
def join_best(best, at, values, places, least):
    """The winner over the rows of a block and its position, by the tree of join_rows."""
    mine, half = place_in_block(), cuda.blockDim.y >> 1
    while half * cuda.blockDim.x >= WARP:
        values[mine], places[mine] = best, at
        cuda.syncthreads()
        if cuda.threadIdx.y < half:
            other = mine + half * cuda.blockDim.x
            if wins(values[other], places[other], best, at, least):
                best, at = values[other], places[other]
        cuda.syncthreads()
        half >>= 1
    while half > 0:
        value = cuda.shfl_xor_sync(EVERY_LANE, best, half * cuda.blockDim.x)
        i = cuda.shfl_xor_sync(EVERY_LANE, at, half * cuda.blockDim.x)
        if wins(value, i, best, at, least):
            best, at = value, i
        half >>= 1
    return best, at


@jit
def _max(x, place, y, arg, chunk, least):
    """A thread looks through every blockDim.y-th of `chunk` elements of a column, as in _add_up.

    x (outer, reduced, inner) -> y, arg (outer, tasks, inner). place: where the elements of x stand,
    or of size 0 where their own numbers say it. least: the minimum.
    """
    values = cuda.shared.array(THREADS, x.dtype)
    places = cuda.shared.array(THREADS, arg.dtype)
    column = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    task = cuda.blockIdx.y
    start = task * chunk + cuda.threadIdx.y
    steps = steps_of(smaller(chunk, x.shape[1] - task * chunk))
    first = cuda.blockIdx.z * cuda.blockDim.z
    while first < x.shape[0]:
        out = first + cuda.threadIdx.z
        inside = out < x.shape[0] and column < x.shape[2]
        # any element will do to begin with: nowhere loses every tie, to that element too
        best, at = x[out, 0, column] if inside else x.dtype.type(0), NOWHERE
        for n in range(steps if inside else 0):
            r = start + n * cuda.blockDim.y
            i = place[out, r, column] if place.size else r
            if wins(x[out, r, column], i, best, at, least):
                best, at = x[out, r, column], i
        best, at = join_best(best, at, values, places, least)
        if inside and cuda.threadIdx.y == 0:
            y[out, task, column], arg[out, task, column] = best, at
        first += cuda.gridDim.z * cuda.blockDim.z


@dense
def max(x: Array, y: Out, arg: Out) -> tuple[Array, Array]:
    """y = maximum of x over the axes along which y has length 1; arg = where it stands.

    arg counts the reduced elements in C order. The first maximum wins: ties must not differ
    between devices. NaN wins over every number, the first NaN.
    """
    return _pick(x, y, arg, False)


@dense
def min(x: Array, y: Out, arg: Out) -> tuple[Array, Array]:
    """y = minimum of x over the axes along which y has length 1; arg = where it stands.

    As for max: the first minimum wins, and NaN over every number, the first NaN.
    """
    return _pick(x, y, arg, True)


def _pick(x: Array, y: Array, arg: Array, least: bool) -> tuple[Array, Array]:
    axes, shape = together(x.shape, y.shape)
    outer, _, inner = shape
    rows = memory.contiguous(x.transpose(axes)).reshape(shape)
    place = memory.scratch((0, 0, 0), arg.dtype)
    block = box(*shape)
    tasks, chunk = tasks_of(shape, block)
    if tasks > 1:
        best, at = (memory.scratch((outer, tasks, inner), a.dtype) for a in (y, arg))
        _max[grid_of(shape, block, tasks), block](rows, place, best, at, chunk, least)
        rows, place, shape, chunk = best, at, (outer, tasks, inner), tasks
        block = box(outer, tasks, inner, SECTOR)
    one = outer, 1, inner
    outs = y.reshape(one), arg.reshape(one)
    _max[grid_of(shape, block, 1), block](rows, place, *outs, chunk, least)
    return y, arg


@jit
def _max_grad(dy, arg, dx, chunk, add):
    """A thread writes every blockDim.y-th of `chunk` elements of a column of dx."""
    column = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    start = cuda.blockIdx.y * chunk + cuda.threadIdx.y
    steps = steps_of(smaller(chunk, dx.shape[1] - cuda.blockIdx.y * chunk))
    out = cuda.blockIdx.z * cuda.blockDim.z + cuda.threadIdx.z
    while out < dx.shape[0] and column < dx.shape[2]:
        for n in range(steps):
            r = start + n * cuda.blockDim.y
            value = dy[out, column] if r == arg[out, column] else dx.dtype.type(0)
            dx[out, r, column] = plus(dx[out, r, column], value) if add else value
        out += cuda.gridDim.z * cuda.blockDim.z


@dense
def max_grad(dy: Array, arg: Array, dx: Out, add: bool) -> Array:
    """dx = dy at the maximum (or the minimum), 0 elsewhere."""
    return _walk_down(_max_grad, (), (dy, arg), dx, add)


@dense
def sum_rows(dy: Array, db: Out, add: bool) -> Array:
    """db (F,) = sum of dy (..., F) over all axes but the last: the gradient of a bias."""
    rows = dy.reshape(1, math.prod(dy.shape[:-1]), db.size)
    add_up_middle(rows, db.reshape(1, db.size), add)
    return db


@dense
def bias_relu_grad(
    dy: Array, y: Array, dx: Out, db: Out, add: tuple[bool, bool]
) -> tuple[Array, Array]:
    """Gradients of y = relu(x + b): dx = 0 where y <= 0, else dy, and db = its sum over all rows.

    dy, y, dx (..., F), db (F,): relu_grad and sum_rows of what it gives.
    """
    from .elementwise import relu_grad  # which imports this file

    slope = relu_grad(dy, y, memory.scratch(dy.shape, dy.dtype) if add[0] else dx, False)
    if add[0]:
        copy(slope, dx, True)
    return dx, sum_rows(slope, db, add[1])


@dense
def sum_squares(x: Array, y: Out, add: bool) -> Array:
    """y () = sum of the squares of x."""
    add_up_middle(x.reshape(1, x.size, 1), y.reshape(1, 1), add, squares=True)
    return y
