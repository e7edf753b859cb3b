"""The way to a fast matrix product, step by step: y (M, N) = a (M, K) b (K, N).

Each step is a whole kernel of its own and removes what held the one before it back. All take any
sizes. The product that minidl itself runs stands in gemm.py.
"""

from ..roles import Array, Out
from ._numba import blocks, cuda, device, jit
from .intrinsics import aligned, ld4, mma_m16n8k8_tf32, round_tf32, st4
from .move import dense

TILE = 16  # of y, and of its block of threads, in the first two steps


@jit
def _naive(a, b, y):
    """A thread computes one element of y, from a row of a and a column of b.

    Two reads for every multiplication, all of them from global memory.
    """
    j, i = cuda.grid(2)
    if i < y.shape[0] and j < y.shape[1]:
        total = y.dtype.type(0)
        for k in range(a.shape[1]):
            total += a[i, k] * b[k, j]
        y[i, j] = total


@dense
def naive(a: Array, b: Array, y: Out) -> Array:
    """y = a b, one thread per element."""
    m, n = y.shape
    _naive[(blocks(n, TILE), blocks(m, TILE)), (TILE, TILE)](a, b, y)
    return y


@jit
def _tiled(a, b, y):
    """A block brings tiles of a and b to shared memory, where each number is read 16 times.

    So global memory is read a sixteenth as often as by the first step.
    """
    left = cuda.shared.array((TILE, TILE), y.dtype)
    right = cuda.shared.array((TILE, TILE), y.dtype)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    j, i = cuda.grid(2)
    total = zero = y.dtype.type(0)
    for first in range(0, a.shape[1], TILE):
        k = first + tx
        left[ty, tx] = a[i, k] if i < a.shape[0] and k < a.shape[1] else zero
        k = first + ty
        right[ty, tx] = b[k, j] if k < b.shape[0] and j < b.shape[1] else zero
        cuda.syncthreads()  # the tiles are whole
        for k in range(TILE):
            total += left[ty, k] * right[k, tx]
        cuda.syncthreads()  # nobody reads them any more
    if i < y.shape[0] and j < y.shape[1]:
        y[i, j] = total


@dense
def tiled(a: Array, b: Array, y: Out) -> Array:
    """y = a b, in tiles of shared memory."""
    m, n = y.shape
    _tiled[(blocks(n, TILE), blocks(m, TILE)), (TILE, TILE)](a, b, y)
    return y


WIDE = 64  # tile of y of the later steps
DEEP = 16  # terms of the sum that they bring to shared memory at a time
SIDE = 16  # their block has 16 x 16 threads
EACH = 4  # a thread computes 4 x 4 elements
ODD = WIDE + 1  # row of a tile whose columns are stored: 16 of them would meet in two banks


@jit
def _blocked(a, b, y):
    """A thread computes 4 x 4 elements of a 64 x 64 tile, with its numbers in registers.

    It reads 8 numbers of shared memory for 16 multiplications, where the step before reads 32.
    """
    left = cuda.shared.array((DEEP, ODD), y.dtype)
    right = cuda.shared.array((DEEP, WIDE), y.dtype)
    sums = cuda.local.array((EACH, EACH), y.dtype)
    zero = y.dtype.type(0)
    for r in range(EACH):
        for s in range(EACH):
            sums[r, s] = zero
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    row, column = cuda.blockIdx.y * WIDE, cuda.blockIdx.x * WIDE
    for first in range(0, a.shape[1], DEEP):
        for r in range(EACH):
            i, k = row + ty + r * SIDE, first + tx
            left[tx, ty + r * SIDE] = a[i, k] if i < a.shape[0] and k < a.shape[1] else zero
            k, j = first + ty, column + tx + r * SIDE
            right[ty, tx + r * SIDE] = b[k, j] if k < b.shape[0] and j < b.shape[1] else zero
        cuda.syncthreads()
        k = 0
        while k < DEEP:  # not range, whose way to count keeps the compiler from unrolling it
            for r in range(EACH):
                for s in range(EACH):
                    sums[r, s] += left[k, ty + r * SIDE] * right[k, tx + s * SIDE]
            k += 1
        cuda.syncthreads()
    for r in range(EACH):
        for s in range(EACH):
            i, j = row + ty + r * SIDE, column + tx + s * SIDE
            if i < y.shape[0] and j < y.shape[1]:
                y[i, j] = sums[r, s]


@dense
def blocked(a: Array, b: Array, y: Out) -> Array:
    """y = a b, with 4 x 4 elements per thread in registers."""
    m, n = y.shape
    _blocked[(blocks(n, WIDE), blocks(m, WIDE)), (SIDE, SIDE)](a, b, y)
    return y


PITCH = WIDE + 4  # rows of a tile that start at multiples of 16 bytes, in different banks


@device
def four(m, r, c):
    """m[r, c : c + 4] by one load, zeros outside of m, whose rows are whole fours."""
    p = q = s = t = m.dtype.type(0)
    if r < m.shape[0] and c < m.shape[1]:
        p, q, s, t = ld4(m, r * m.shape[1] + c)
    return p, q, s, t


@jit
def _vectorised(a, b, y):
    """A thread moves four neighbours at a time, and fetches the next ones while it multiplies.

    2 reads of shared memory for 16 multiplications. With two buffers that take turns, one barrier
    is enough: what is stored next is the one that all have finished with.
    """
    left = cuda.shared.array((2, DEEP, PITCH), y.dtype, 16)
    right = cuda.shared.array((2, DEEP, PITCH), y.dtype, 16)
    sums = cuda.local.array((EACH, EACH), y.dtype)
    for r in range(EACH):
        for s in range(EACH):
            sums[r, s] = y.dtype.type(0)
    t = cuda.threadIdx.x
    row, column = cuda.blockIdx.y * WIDE, cuda.blockIdx.x * WIDE
    i, along = t // 4, t % 4 * 4  # its four of the tile of a, which run along k
    down, j = t // SIDE, t % SIDE * 4  # its four of the tile of b
    from_a = four(a, row + i, along)
    from_b = four(b, down, column + j)
    buffer = 0
    for first in range(0, a.shape[1], DEEP):
        for n in range(4):
            left[buffer, along + n, i] = from_a[n]
        st4(right, (buffer * DEEP + down) * PITCH + j, *from_b)
        cuda.syncthreads()
        from_a = four(a, row + i, first + DEEP + along)
        from_b = four(b, first + DEEP + down, column + j)
        k = 0
        while k < DEEP:
            place = (buffer * DEEP + k) * PITCH
            of_a, of_b = ld4(left, place + down * 4), ld4(right, place + j)
            for r in range(EACH):
                for s in range(EACH):
                    sums[r, s] += of_a[r] * of_b[s]
            k += 1
        buffer = 1 - buffer
    for r in range(EACH):
        if row + down * 4 + r < y.shape[0] and column + j < y.shape[1]:
            place = (row + down * 4 + r) * y.shape[1] + column + j
            st4(y, place, sums[r, 0], sums[r, 1], sums[r, 2], sums[r, 3])


@dense
def vectorised(a: Array, b: Array, y: Out) -> Array:
    """y = a b, with 128-bit loads and stores: as `blocked` where rows are not whole fours."""
    m, n = y.shape
    if n % 4 or a.shape[1] % 4 or not aligned(a, b, y):
        return blocked(a, b, y)
    _vectorised[(blocks(n, WIDE), blocks(m, WIDE)), SIDE * SIDE](a, b, y)
    return y


WARPS = 4  # of the last step: each computes 32 x 32 elements
APART = WIDE + 8  # its pitch: the 32 numbers of a fragment lie in 32 banks


@jit(min_cc=(8, 0))
def _tensor_cores(a, b, y):
    """A warp multiplies 16 x 8 by 8 x 8 numbers in one instruction, on a tensor core.

    Inputs are rounded to TF32, which has float32's range and 10 bits after the leading one; sums
    are float32. intrinsics.py says which lane of the warp holds which numbers.
    """
    left = cuda.shared.array((DEEP, APART), y.dtype)
    right = cuda.shared.array((DEEP, APART), y.dtype)
    sums = cuda.local.array((2, 4, 4), y.dtype)
    zero = y.dtype.type(0)
    for i in range(2):
        for j in range(4):
            for n in range(4):
                sums[i, j, n] = zero
    lane, warp = cuda.threadIdx.x, cuda.threadIdx.y
    g, t = lane // 4, lane % 4
    row, column = cuda.blockIdx.y * WIDE, cuda.blockIdx.x * WIDE
    down, along = warp // 2 * 32 + g, warp % 2 * 32 + g
    for first in range(0, a.shape[1], DEEP):
        load_tf32(a, row, first, b, column, left, right)
        cuda.syncthreads()
        k = t
        while k < DEEP:
            for i in range(2):
                r = down + 16 * i
                for j in range(4):
                    s = along + 8 * j
                    d = mma_m16n8k8_tf32(
                        left[k, r], left[k, r + 8], left[k + 4, r], left[k + 4, r + 8],
                        right[k, s], right[k + 4, s],
                        sums[i, j, 0], sums[i, j, 1], sums[i, j, 2], sums[i, j, 3],
                    )  # fmt: skip
                    for n in range(4):
                        sums[i, j, n] = d[n]
            k += 8
        cuda.syncthreads()
    store_tf32(sums, y, row + down, column + along - g + 2 * t)


@device
def load_tf32(a, row, first, b, column, left, right):
    """Bring tiles of a and b to shared memory, rounded to TF32; zeros outside."""
    lane, warp = cuda.threadIdx.x, cuda.threadIdx.y
    zero = a.dtype.type(0)
    for n in range(warp * 2, WIDE, WARPS * 2):
        i, k = row + n + lane // DEEP, first + lane % DEEP  # half a warp along k
        value = a[i, k] if i < a.shape[0] and k < a.shape[1] else zero
        left[lane % DEEP, n + lane // DEEP] = round_tf32(value)
    for n in range(warp, DEEP, WARPS):
        for j in range(lane, WIDE, 32):
            inside = first + n < b.shape[0] and column + j < b.shape[1]
            right[n, j] = round_tf32(b[first + n, column + j] if inside else zero)


@device
def store_tf32(sums, y, row, column):
    """Write the sums that a lane holds: two neighbours in each of two rows, 8 times."""
    for i in range(2):
        for j in range(4):
            for n in range(4):
                r, c = row + 16 * i + n // 2 * 8, column + 8 * j + n % 2
                if r < y.shape[0] and c < y.shape[1]:
                    y[r, c] = sums[i, j, n]


@dense
def tensor_cores(a: Array, b: Array, y: Out) -> Array:
    """y = a b on tensor cores, of float32 rounded to TF32. From compute capability 8.0 on.

    Two factors that are off by 2**-11 each: |error| <= (2**-10 + 2**-22 + K 2**-23) |a| |b|.
    """
    if y.dtype != "float32":
        raise TypeError(f"tensor_cores: y is {y.dtype}; TF32 is a way to multiply float32")
    m, n = y.shape
    _tensor_cores[(blocks(n, WIDE), blocks(m, WIDE)), (32, WARPS)](a, b, y)
    return y


STEPS = naive, tiled, blocked, vectorised, tensor_cores
