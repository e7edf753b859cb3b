"""One family of kernels for all matrix products: y = a b, in tiles of shared memory.

A block computes one square tile of y. It walks along k, the axis that is summed over, `step` at a
time: its threads bring a piece of a and one of b to shared memory, and each multiplies out a small
square of its own in registers. Two buffers take turns: while one is multiplied, the next pieces
are on their way from global memory. Either operand may lie with k as its first axis or its last,
so that a transposed matrix costs no copy; pieces always lie k by k in shared memory.
"""

from ..roles import Array
from . import memory
from ._numba import blocks, cuda, device, jit
from .intrinsics import aligned, ld4, st4
from .move import copy

SIDE = 16  # a block has 16 x 16 threads
THREADS = SIDE * SIDE
STEP = 16  # terms of the sum that a tile of 64 x 64 brings to shared memory at once
# Added to the rows of a tile: what is stored across them falls into different banks of shared
# memory, and each row still starts at a multiple of 16 bytes.
PAD = 4
# Tiles from which on a large GPU is busy with 128 x 128 of them, which read less per product.
ENOUGH_LARGE = 128
# Blocks that keep a large GPU busy; with fewer tiles than that, several blocks share the sum of
# a tile, of which each takes SHORTEST terms at least: adding up their parts is a pass of its own.
ENOUGH_BLOCKS = 512
SHORTEST = 128


@device
def spot(number, by_k, tile):
    """Where in a tile (k, other) the vector of a number lies, so that a warp reads neighbours."""
    step, size = tile.shape[1], tile.shape[2] - PAD
    if by_k:
        return number // (size // 4), number % (size // 4) * 4
    return number % (step // 4) * 4, number // (step // 4)


@device
def fetch(source, first_k, first, by_k, wide, tile, staged):
    """Read this thread's vectors of the tile that starts at (first_k, first); 0 past the edges."""
    for v in range(staged.shape[0]):
        k, other = spot(cuda.threadIdx.x + v * THREADS, by_k, tile)
        k, other = first_k + k, first + other
        r, c = (k, other) if by_k else (other, k)
        for n in range(4):
            staged[v, n] = source.dtype.type(0)
        if r < source.shape[0]:
            if wide:
                if c < source.shape[1]:
                    vector = ld4(source, r * source.shape[1] + c)
                    for n in range(4):
                        staged[v, n] = vector[n]
            else:
                for n in range(4):
                    if c + n < source.shape[1]:
                        staged[v, n] = source[r, c + n]


@device
def put(staged, by_k, tile, buffer):
    """Store this thread's vectors in a buffer of the tile, k by k."""
    for v in range(staged.shape[0]):
        k, other = spot(cuda.threadIdx.x + v * THREADS, by_k, tile)
        if by_k:
            place = (buffer * tile.shape[1] + k) * tile.shape[2] + other
            st4(tile, place, staged[v, 0], staged[v, 1], staged[v, 2], staged[v, 3])
        else:
            for n in range(4):
                tile[buffer, k + n, other] = staged[v, n]


@device
def pick(tile, buffer, k, mine, fragment):
    """Read the numbers that a thread needs of row k: 4 neighbours, and 4 more 64 further on."""
    for q in range(fragment.size // 4):
        place = (buffer * tile.shape[1] + k) * tile.shape[2] + mine + q * 4 * SIDE
        vector = ld4(tile, place)
        for n in range(4):
            fragment[4 * q + n] = vector[n]


@device
def spread(i, first):
    """The row, or column, of y that row i of a thread's sums stands for: fours, 64 apart."""
    return first + i // 4 * 4 * SIDE + i % 4


@device
def finish(sums, bias, column, relu):
    """Add the bias to a thread's sums, and put 0 where relu and they are below."""
    zero = sums.dtype.type(0)
    if bias.size:
        for j in range(sums.shape[1]):
            c = spread(j, column)
            z = bias[c] if c < bias.size else zero
            for i in range(sums.shape[0]):
                sums[i, j] += z
    if relu:
        for i in range(sums.shape[0]):
            for j in range(sums.shape[1]):
                if sums[i, j] <= 0:  # not max: NaN stays NaN
                    sums[i, j] = zero


@device
def write(sums, y, task, row, column, wide, add):
    """Write a thread's sums to y[task], or add them to what is there, as far as y goes."""
    for i in range(sums.shape[0]):
        r = spread(i, row)
        if r < y.shape[1]:
            for j in range(0, sums.shape[1], 4):
                write4(sums, i, j, y, task, r, spread(j, column), wide, add)


@device
def write4(sums, i, j, y, task, r, c, wide, add):
    if wide:
        if c < y.shape[2]:
            place = (task * y.shape[1] + r) * y.shape[2] + c
            if add:
                vector = ld4(y, place)
                for n in range(4):
                    sums[i, j + n] = vector[n] + sums[i, j + n]
            st4(y, place, sums[i, j], sums[i, j + 1], sums[i, j + 2], sums[i, j + 3])
    else:
        for n in range(4):
            if c + n < y.shape[2]:
                total = sums[i, j + n]
                y[task, r, c + n] = y[task, r, c + n] + total if add else total


def _kernel(size, step, wide):
    """The kernel for tiles of y of size x size, pieces of `step` along k.

    wide: all that is read and written in fours is aligned and of lengths divisible by 4.
    """
    each, pitch, vectors = size // SIDE, size + PAD, size * step // 4 // THREADS

    def kernel(a, b, bias, y, chunk, a_by_k, b_by_k, relu, add):
        """A thread computes size / 16 squared elements of y, in 4 x 4 squares 64 apart.

        y (tasks, M, N): block (i, j, t) sums over the t-th `chunk` of k. a_by_k: a lies (K, M).
        """
        left = cuda.shared.array((2, step, pitch), a.dtype, 16)
        right = cuda.shared.array((2, step, pitch), a.dtype, 16)
        next_a = cuda.local.array((vectors, 4), a.dtype)
        next_b = cuda.local.array((vectors, 4), a.dtype)
        of_a = cuda.local.array(each, a.dtype)
        of_b = cuda.local.array(each, a.dtype)
        sums = cuda.local.array((each, each), a.dtype)
        for i in range(each):
            for j in range(each):
                sums[i, j] = a.dtype.type(0)
        row, column = cuda.blockIdx.x * size, cuda.blockIdx.y * size
        down, along = cuda.threadIdx.x // SIDE * 4, cuda.threadIdx.x % SIDE * 4
        start = cuda.blockIdx.z * chunk
        stop = min(start + chunk, a.shape[0] if a_by_k else a.shape[1])
        fetch(a, start, row, a_by_k, wide, left, next_a)
        fetch(b, start, column, b_by_k, wide, right, next_b)
        buffer = 0
        for first in range(start, stop, step):
            put(next_a, a_by_k, left, buffer)
            put(next_b, b_by_k, right, buffer)
            cuda.syncthreads()  # one is enough: the other buffer is read before the next one
            if first + step < stop:
                fetch(a, first + step, row, a_by_k, wide, left, next_a)
                fetch(b, first + step, column, b_by_k, wide, right, next_b)
            for k in range(step):
                pick(left, buffer, k, down, of_a)
                pick(right, buffer, k, along, of_b)
                for i in range(each):
                    for j in range(each):
                        sums[i, j] += of_a[i] * of_b[j]
            buffer = 1 - buffer
        finish(sums, bias, column + along, relu)
        write(sums, y, cuda.blockIdx.z, row + down, column + along, wide, add)

    kernel.__name__ = kernel.__qualname__ = f"_gemm_{size}{'_wide' * wide}"
    return jit(kernel)


_gemm_128_wide = _kernel(128, 8, True)
_gemm_64_wide = _kernel(64, STEP, True)
_gemm_64 = _kernel(64, STEP, False)


@jit
def _join(partial, bias, y, relu, add):
    """A thread adds up the parts of one element of y, in the order of the tasks."""
    i = cuda.grid(1)
    if i < y.size:
        r, c = i // y.shape[2], i % y.shape[2]
        total = y.dtype.type(0)
        for task in range(partial.shape[0]):
            total += partial[task, r, c]
        if bias.size:
            total += bias[c]
        if relu and total <= 0:
            total = y.dtype.type(0)
        y[0, r, c] = y[0, r, c] + total if add else total


def plan(m: int, n: int, k: int, large: bool) -> tuple[int, int, int]:
    """Size of the tiles, number of blocks that share the sum of a tile, terms for each of these.

    By the shape alone, so that the same product has the same bits wherever its matrices lie.
    """
    if large and blocks(m, 128) * blocks(n, 128) >= ENOUGH_LARGE:
        return 128, 1, k
    tiles = max(1, blocks(m, 64) * blocks(n, 64))
    tasks = max(1, min(ENOUGH_BLOCKS // tiles, k // SHORTEST))
    chunk = blocks(blocks(k, tasks), STEP) * STEP
    return 64, max(1, blocks(k, max(1, chunk))), chunk


def gemm(a: Array, b: Array, bias: Array | None, y: Array, relu: bool, add: bool) -> Array:
    """y (M, N) = a (M, K) b (K, N) + bias (N,), by our own kernels.

    relu: 0 where that is below. add: to what is in y. Matrices in any strides; transposed ones
    are read as they lie.
    """
    if not y.flags.c_contiguous:
        return copy(gemm(a, b, bias, memory.scratch(y.shape, y.dtype), relu, False), y, add)
    (m, k), n = a.shape, b.shape[1]
    size, tasks, chunk = plan(m, n, k, y.dtype == "float32")
    a, a_by_k = _as_it_lies(a)
    b, b_by_n = _as_it_lies(b)
    none = memory.scratch((0,), y.dtype)
    bias = none if bias is None else _as_it_lies(bias)[0]
    whole = y.reshape(1, m, n)
    parts = whole if tasks == 1 else memory.scratch((tasks, m, n), y.dtype)
    wide = aligned(a, b, parts) and a.shape[1] % 4 == b.shape[1] % 4 == n % 4 == 0
    size = size if wide else 64  # ragged tiles of 128 would not fit into the registers
    kernel = (_gemm_128_wide if size == 128 else _gemm_64_wide) if wide else _gemm_64
    launch = kernel[(blocks(m, size), blocks(n, size), tasks), THREADS]
    if tasks == 1:
        launch(a, b, bias, whole, chunk, a_by_k, not b_by_n, relu, add)
    else:
        launch(a, b, none, parts, chunk, a_by_k, not b_by_n, False, False)
        _join[blocks(m * n, THREADS), THREADS](parts, bias, whole, relu, add)
    return y


def _as_it_lies(x: Array) -> tuple[Array, bool]:
    """x, or its transpose and True, as a contiguous array; a copy where it is neither."""
    if x.flags.c_contiguous:
        return x, False
    if x.T.flags.c_contiguous:
        return x.T, True
    return copy(x, memory.scratch(x.shape, x.dtype), False), False
