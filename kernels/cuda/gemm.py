"""One family of kernels for all matrix products: y = a b, in tiles of shared memory.

A block computes one tile of y. It walks along k, the axis that is summed over, `step` at a time.
A tile of 64 x 64, and thread 53 = (3, 5) of the 16 x 16 that compute it:

                          along = 20
                    +---------####--------+
              right |         ####        |   left, right   pieces of a and b, for 16 terms of the
                    +---------####--------+                 sums, in shared memory
            left
          +------+  +---------------------+
          |      |  |                     |   ####          of_a, of_b: what the thread reads of
     down |######|  |         ++++        |                 them for one k, 4 numbers each
     = 12 |      |  |         ++++        |   ++++          sums: its 4 x 4 elements, which get 16
          +------+  +---------------------+                 products for each k, in registers

    load_piece     global memory -> registers   next_a, next_b; zeros past the edges of a matrix
    store_piece    registers -> shared memory   left, right: two buffers of each, which take turns
    accumulate     shared memory -> registers   of_a, of_b; their 16 products are added to sums
    write_sums     registers -> global memory   y

While one buffer is multiplied, the next pieces are on their way. Either operand may lie with k as
its first axis (`by_k`) or its last, so that a transposed matrix costs no copy; pieces always lie k
by k in shared memory. In a tile of 128 a thread has four such squares, 64 rows and columns apart.
Each kernel stands before the functions it is made of.
"""

from typing import NamedTuple

from ..roles import Array
from . import memory
from ._numba import Kernel, blocks, cuda, jit, linked
from .intrinsics import aligned, ld4, mma_m16n8k8_tf32, plus, round_tf32, st4
from .layout import ENOUGH_BLOCKS, MOST_BLOCKS, THREADS, WARP
from .move import copy


class Tile(NamedTuple):
    """What a block computes of y, and how many terms of its sums it takes at a time."""

    rows: int
    columns: int
    step: int


SIDE = 16  # a block has 16 x 16 threads: THREADS
SMALL = Tile(64, 64, 16)
LARGE = Tile(128, 128, 8)  # reads half as much for each product, but keeps fewer blocks busy
TENSOR = Tile(128, 64, 16)  # for tensor cores: 8 warps of 32 x 32
ENOUGH_LARGE = ENOUGH_BLOCKS // 4  # large tiles: each is as much work as 4 small ones
SHORTEST = 128  # terms of a task at least: to add up the parts of a sum is a pass of its own
# Added to the rows of a tile in shared memory. Each row still starts at a multiple of 16 bytes.
PAD = 4  # what is stored across the rows falls into different banks
PAD_TENSOR = 8  # so does what the lanes of a warp read of four rows


@linked
def only_ones(a, b, y, chunk):
    """The two matrices, and the first term of this block's sums."""
    return a, b, cuda.blockIdx.z * chunk


@linked
def ones_of_stacks(a, b, y, chunk):
    """The two matrices that this block multiplies, and the first term of its sums."""
    size = max(a.shape[0], b.shape[0])
    task, s = cuda.blockIdx.z // size, cuda.blockIdx.z % size
    return a[s if a.shape[0] > 1 else 0], b[s if b.shape[0] > 1 else 0], task * chunk


def _tiled(tile, wide, stacks=False):
    """The kernel for tiles that are squares of 64 or 128.

    wide: all that is read and written in fours is aligned and of lengths divisible by 4.
    """
    size, step, matrices = tile.rows, tile.step, ones_of_stacks if stacks else only_ones
    each, pitch, vectors = size // SIDE, size + PAD, size * step // 4 // THREADS

    def kernel(all_a, all_b, bias, y, chunk, a_by_k, b_by_k, relu, add):
        """A thread computes 4 x 4 elements of a tile of 64, four times as many of one of 128.

        y (tasks, M, N): block (i, j, t) sums over the t-th `chunk` of k. a_by_k: a lies (K, M). Or
        of stacks, a (S or 1, M, K), y (tasks * S, M, N): block (i, j, t * S + s) has the s-th ones.
        """
        a, b, start = matrices(all_a, all_b, y, chunk)
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
        stop = min(start + chunk, a.shape[0] if a_by_k else a.shape[1])
        load_piece(a, start, row, a_by_k, wide, left, next_a)
        load_piece(b, start, column, b_by_k, wide, right, next_b)
        buffer = 0
        for first in range(start, stop, step):
            store_piece(next_a, a_by_k, left, buffer)
            store_piece(next_b, b_by_k, right, buffer)
            cuda.syncthreads()  # one is enough: the other buffer is read before the next one
            if first + step < stop:
                load_piece(a, first + step, row, a_by_k, wide, left, next_a)
                load_piece(b, first + step, column, b_by_k, wide, right, next_b)
            k = 0
            while k < step:  # not range, whose way to count keeps ptxas from unrolling it
                accumulate(left, right, buffer, k, down, along, of_a, of_b, sums)
                accumulate(left, right, buffer, k + 1, down, along, of_a, of_b, sums)
                accumulate(left, right, buffer, k + 2, down, along, of_a, of_b, sums)
                accumulate(left, right, buffer, k + 3, down, along, of_a, of_b, sums)
                k += 4
            buffer = 1 - buffer
        add_bias(sums, bias, column + along, 4, 4 * SIDE, relu)
        write_sums(sums, y, cuda.blockIdx.z, row + down, column + along, wide, add)

    return jit(kernel, name=f"_tiled_{size}{'_wide' * wide}{'_stacks' * stacks}")


_tiled_128_wide = _tiled(LARGE, True)
_tiled_64_wide = _tiled(SMALL, True)
_tiled_64 = _tiled(SMALL, False)
_tiled_64_wide_stacks = _tiled(SMALL, True, stacks=True)
_tiled_64_stacks = _tiled(SMALL, False, stacks=True)


@linked
def place_of(vector, by_k, tile):
    """Where in a piece (k, row or column) a vector of four starts, by its number.

    A warp reads neighbours: vectors lie along k, step / 4 of them to a row, or (by_k) across it.
    """
    step, size = tile.shape[1], tile.shape[2] // 64 * 64  # without the padding
    if by_k:
        return vector // (size // 4), vector % (size // 4) * 4
    return vector % (step // 4) * 4, vector // (step // 4)


@linked
def load_piece(source, first_k, first, by_k, wide, tile, staged):
    """Read this thread's vectors of the piece that starts at (first_k, first); 0 past the edges."""
    for v in range(staged.shape[0]):
        k, other = place_of(cuda.threadIdx.x + v * THREADS, by_k, tile)
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


@linked
def store_piece(staged, by_k, tile, buffer):
    """Store this thread's vectors in a buffer of shared memory, k by k."""
    for v in range(staged.shape[0]):
        k, other = place_of(cuda.threadIdx.x + v * THREADS, by_k, tile)
        if by_k:
            place = (buffer * tile.shape[1] + k) * tile.shape[2] + other
            st4(tile, place, staged[v, 0], staged[v, 1], staged[v, 2], staged[v, 3])
        else:
            for n in range(4):
                tile[buffer, k + n, other] = staged[v, n]


@linked
def read_row(tile, buffer, k, mine, fragment):
    """Read what a thread needs of row k: 4 neighbours; of 128 columns 4 more, 64 further on."""
    for q in range(fragment.size // 4):
        place = (buffer * tile.shape[1] + k) * tile.shape[2] + mine + q * 4 * SIDE
        vector = ld4(tile, place)
        for n in range(4):
            fragment[4 * q + n] = vector[n]


@linked
def accumulate(left, right, buffer, k, down, along, of_a, of_b, sums):
    """Add the k-th terms to a thread's sums."""
    read_row(left, buffer, k, down, of_a)
    read_row(right, buffer, k, along, of_b)
    for i in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            sums[i, j] += of_a[i] * of_b[j]


@linked
def offset(i, run, apart):
    """How far from its first row, or column, of y the i-th of a thread's sums lies."""
    return i // run * apart + i % run


@linked
def add_bias(sums, bias, column, run, apart, relu):
    """Add the bias to a thread's sums; relu: then put 0 where they are below."""
    zero = sums.dtype.type(0)
    if bias.size:
        for j in range(sums.shape[1]):
            c = column + offset(j, run, apart)
            z = bias[c] if c < bias.size else zero
            for i in range(sums.shape[0]):
                sums[i, j] += z
    if relu:
        for i in range(sums.shape[0]):
            for j in range(sums.shape[1]):
                if sums[i, j] <= 0:  # not max: NaN stays NaN
                    sums[i, j] = zero


@linked
def write_sums(sums, y, task, row, column, wide, add):
    """Write a thread's sums to y[task], or add them to what is there, as far as y goes."""
    for i in range(sums.shape[0]):
        r = row + offset(i, 4, 4 * SIDE)
        if r < y.shape[1]:
            for j in range(0, sums.shape[1], 4):
                write_four(sums, i, j, y, task, r, column + offset(j, 4, 4 * SIDE), wide, add)


@linked
def write_four(sums, i, j, y, task, r, c, wide, add):
    """Write 4 neighbours of row i of a thread's sums: whole, or those that y has room for."""
    if wide:
        if c < y.shape[2]:
            place = (task * y.shape[1] + r) * y.shape[2] + c
            if add:
                vector = ld4(y, place)
                for n in range(4):
                    sums[i, j + n] = plus(vector[n], sums[i, j + n])
            st4(y, place, sums[i, j], sums[i, j + 1], sums[i, j + 2], sums[i, j + 3])
    else:
        for n in range(4):
            if c + n < y.shape[2]:
                total = sums[i, j + n]
                y[task, r, c + n] = plus(y[task, r, c + n], total) if add else total


def _tensor(tile, wide):
    """The kernel on tensor cores, of float32 rounded to TF32."""
    rows, columns, step = tile
    pitch_a, pitch_b = rows + PAD_TENSOR, columns + PAD_TENSOR
    vectors_a, vectors_b = rows * step // 4 // THREADS, columns * step // 4 // THREADS

    def kernel(a, b, bias, y, chunk, a_by_k, b_by_k, relu, add):
        """A warp computes 32 x 32 elements of a tile of 128 x 64. The arguments: see `_tiled`."""
        left = cuda.shared.array((2, step, pitch_a), a.dtype, 16)
        right = cuda.shared.array((2, step, pitch_b), a.dtype, 16)
        next_a = cuda.local.array((vectors_a, 4), a.dtype)
        next_b = cuda.local.array((vectors_b, 4), a.dtype)
        sums = cuda.local.array((4, 8), a.dtype)
        for i in range(4):
            for j in range(8):
                sums[i, j] = a.dtype.type(0)
        row, column = cuda.blockIdx.x * rows, cuda.blockIdx.y * columns
        lane, warp = cuda.threadIdx.x % WARP, cuda.threadIdx.x // WARP
        down, along, g, t = warp // 2 * 32, warp % 2 * 32, lane // 4, lane % 4
        start = cuda.blockIdx.z * chunk
        stop = min(start + chunk, a.shape[0] if a_by_k else a.shape[1])
        load_piece(a, start, row, a_by_k, wide, left, next_a)
        load_piece(b, start, column, b_by_k, wide, right, next_b)
        buffer = 0
        for first in range(start, stop, step):
            round_staged(next_a)
            round_staged(next_b)
            store_piece(next_a, a_by_k, left, buffer)
            store_piece(next_b, b_by_k, right, buffer)
            cuda.syncthreads()
            if first + step < stop:
                load_piece(a, first + step, row, a_by_k, wide, left, next_a)
                load_piece(b, first + step, column, b_by_k, wide, right, next_b)
            for k in range(t, step, 8):
                multiply_tf32(left, right, buffer, k, down + g, along + g, sums)
            buffer = 1 - buffer
        row, column = row + down + g, column + along + 2 * t
        add_bias(sums, bias, column, 2, 8, relu)
        write_tensor(sums, y, cuda.blockIdx.z, row, column, add)

    return jit(kernel, name=f"_tensor{'_wide' if wide else '_any'}", min_cc=(8, 0))


_tensor_wide = _tensor(TENSOR, True)
_tensor_any = _tensor(TENSOR, False)


@linked
def multiply_tf32(left, right, buffer, k, down, along, sums):
    """Add 8 terms to a warp's 32 x 32 sums: 2 x 4 products of 16 x 8 by 8 x 8.

    left[.., k, down] and right[.., k, along] are this lane's first numbers: see intrinsics.py.
    """
    for i in range(2):
        r = down + 16 * i
        a0, a1 = left[buffer, k, r], left[buffer, k, r + 8]
        a2, a3 = left[buffer, k + 4, r], left[buffer, k + 4, r + 8]
        for j in range(4):
            b0, b1 = right[buffer, k, along + 8 * j], right[buffer, k + 4, along + 8 * j]
            c0, c1 = sums[2 * i, 2 * j], sums[2 * i, 2 * j + 1]
            c2, c3 = sums[2 * i + 1, 2 * j], sums[2 * i + 1, 2 * j + 1]
            c0, c1, c2, c3 = mma_m16n8k8_tf32(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3)
            sums[2 * i, 2 * j], sums[2 * i, 2 * j + 1] = c0, c1
            sums[2 * i + 1, 2 * j], sums[2 * i + 1, 2 * j + 1] = c2, c3


@linked
def round_staged(staged):
    """Round numbers to TF32 on their way to shared memory."""
    for v in range(staged.shape[0]):
        for n in range(4):
            staged[v, n] = round_tf32(staged[v, n])


@linked
def write_tensor(sums, y, task, row, column, add):
    """Write the sums of a lane: 4 rows, 8 apart, of 4 pairs of neighbours, 8 apart."""
    for i in range(4):
        for j in range(8):
            r, c = row + 8 * i, column + offset(j, 2, 8)
            if r < y.shape[1] and c < y.shape[2]:
                y[task, r, c] = plus(y[task, r, c], sums[i, j]) if add else sums[i, j]


@jit
def _join(partial, bias, y, relu, add):
    """A thread adds up the parts of one element of y, in the order of the tasks."""
    i = cuda.grid(1)
    if i < y.size:
        r, c = i // y.shape[1], i % y.shape[1]
        total = y.dtype.type(0)
        for task in range(partial.shape[0]):
            total += partial[task, r, c]
        if bias.size:
            total += bias[c]
        if relu and total <= 0:
            total = y.dtype.type(0)
        y[r, c] = plus(y[r, c], total) if add else total


def plan(m: int, n: int, k: int, large: bool, tensor: bool, size: int = 1) -> tuple[Tile, int, int]:
    """The tile, how many blocks share the sums of one, and how many terms each of these takes.

    size: of a stack of such products.
    By the shape alone, so that the same product has the same bits wherever its matrices lie.
    """
    if large and not tensor and blocks(m, 128) * blocks(n, 128) >= ENOUGH_LARGE:
        return LARGE, 1, k
    tile = TENSOR if tensor else SMALL
    tiles = max(1, size * blocks(m, tile.rows) * blocks(n, tile.columns))
    tasks = max(1, min(ENOUGH_BLOCKS // tiles, k // SHORTEST))
    chunk = max(1, blocks(blocks(k, tasks), tile.step)) * tile.step
    return tile, max(1, blocks(k, chunk)), chunk


def _kernel(tile: Tile, wide: bool, stacks: bool) -> tuple[Tile, Kernel]:
    """The kernel for a tile, and the tile that it really has."""
    if stacks:
        return SMALL, _tiled_64_wide_stacks if wide else _tiled_64_stacks
    if tile is TENSOR:
        return tile, _tensor_wide if wide else _tensor_any
    if wide:
        return tile, _tiled_128_wide if tile is LARGE else _tiled_64_wide
    return SMALL, _tiled_64  # ragged tiles of 128 do not fit into the registers


def gemm(
    a: Array, b: Array, bias: Array | None, y: Array, relu: bool, add: bool, tf32: bool = False
) -> Array:
    """y (M, N) = a (M, K) b (K, N) + bias (N,), by our own kernels.

    relu: 0 where that is below. add: to what is in y. tf32: of float32 rounded to TF32, on tensor
    cores. Matrices in any strides; transposed ones are read as they lie.

    Or stacks of matrices in one launch, y (S, M, N): a and b have S of them, or one for all. Their
    kernels are others, which take more registers: 128 where those for two matrices take 103.
    """
    if not y.flags.c_contiguous:
        whole = gemm(a, b, bias, memory.scratch(y.shape, y.dtype), relu, False, tf32)
        return copy(whole, y, add)
    if y.ndim == 3 and len(y) > MOST_BLOCKS:
        for first in range(0, len(y), MOST_BLOCKS):
            part = slice(first, first + MOST_BLOCKS)
            some_a, some_b = (x[part] if len(x) > 1 else x for x in (a, b))
            gemm(some_a, some_b, bias, y[part], relu, add)
        return y
    stacks = y.ndim == 3
    size = len(y) if stacks else 1
    (m, k), n = a.shape[-2:], b.shape[-1]
    large = y.dtype == "float32" and not stacks
    tile, tasks, chunk = plan(m, n, k, large, tf32, size)
    a, a_by_k = _as_it_lies(a)
    b, b_by_n = _as_it_lies(b)
    none = memory.scratch((0,), y.dtype)
    bias = none if bias is None else memory.contiguous(bias)
    whole = y.reshape(size, m, n)
    parts = whole if tasks == 1 else memory.scratch((tasks * size, m, n), y.dtype)
    wide = aligned(a, b, parts) and a.shape[-1] % 4 == b.shape[-1] % 4 == n % 4 == 0
    tile, kernel = _kernel(tile, wide, stacks)
    launch = kernel[(blocks(m, tile.rows), blocks(n, tile.columns), tasks * size), THREADS]
    if tasks == 1:
        launch(a, b, bias, whole, chunk, a_by_k, not b_by_n, relu, add)
        return y
    launch(a, b, none, parts, chunk, a_by_k, not b_by_n, False, False)
    parts, whole = parts.reshape(tasks, size * m, n), y.reshape(size * m, n)
    _join[blocks(y.size, THREADS), THREADS](parts, bias, whole, relu, add)
    return y


def bias_and_relu(y: Array, bias: Array | None, relu: bool) -> Array:
    """y (M, N) += bias (N,), and 0 where relu and that is below: after a product by others."""
    m, n = y.shape
    if not y.flags.c_contiguous:
        return copy(bias_and_relu(memory.contiguous(y), bias, relu), y, False)
    bias = memory.scratch((0,), y.dtype) if bias is None else memory.contiguous(bias)
    _join[blocks(m * n, THREADS), THREADS](y.reshape(1, m, n), bias, y, relu, False)
    return y


def _as_it_lies(x: Array) -> tuple[Array, bool]:
    """x, or its transpose (of each matrix) and True, as a contiguous array; else a copy."""
    if x.flags.c_contiguous:
        return x, False
    turned = x.swapaxes(-1, -2)
    if turned.flags.c_contiguous:
        return turned, True
    return memory.contiguous(x), False
