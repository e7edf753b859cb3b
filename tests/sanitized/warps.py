"""Threads of one warp: syncwarp, shuffles, votes, and their masks."""

import numpy as np
from numba import cuda, float32, int32

from . import count, launched, ones

FULL = 0xFFFFFFFF


@launched(1, 32, lambda: (count(32), ones(1)))
def sum_with_syncwarp(x, y):
    s = cuda.shared.array(32, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    step = 16
    while step:
        cuda.syncwarp()
        if t < step:
            s[t] += s[t + step]
        step //= 2
    if t == 0:
        y[0] = s[0]


@launched(1, 32, lambda: (count(32), ones(1)))
def sum_without_syncwarp(x, y):
    s = cuda.shared.array(32, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncwarp()
    step = 16
    while step:
        if t < step:
            s[t] += s[t + step]  # race: s
        step //= 2
    if t == 0:
        y[0] = s[0]


@launched(1, 64, lambda: (count(64),))
def syncwarp_between_warps(x):
    s = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]  # race: s
    cuda.syncwarp()
    x[t] = s[63 - t]  # race: s


@launched(1, 64, lambda: (count(64),))
def syncwarp_within_warps(x):
    s = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncwarp()
    x[t] = s[t ^ 31]


@launched(1, 32, lambda: (count(32),))
def syncwarp_of_halves(x):
    s = cuda.shared.array(32, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    if t < 16:
        cuda.syncwarp(0xFFFF)
    else:
        cuda.syncwarp(0xFFFF0000)
    x[t] = s[t ^ 15]


@launched(1, 32, lambda: (count(32),))
def syncwarp_of_the_wrong_halves(x):
    s = cuda.shared.array(32, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]  # race: s
    if t < 16:
        cuda.syncwarp(0xFFFF)
    else:
        cuda.syncwarp(0xFFFF0000)
    x[t] = s[31 - t]  # race: s


@launched(1, 32, lambda: (count(32),))
def shifted_in_step(x):
    t = cuda.threadIdx.x
    if t < 31:
        x[t] = x[t + 1]  # race: x


@launched(1, 32, lambda: (count(32),))
def shifted_by_a_shuffle(x):
    t = cuda.threadIdx.x
    below = cuda.shfl_down_sync(FULL, x[t], 1)
    if t < 31:
        x[t] = below


@launched(2, 64, lambda: (count(128), ones(4)))
def sum_by_shuffles(x, y):
    i = cuda.grid(1)
    total = x[i]
    step = 16
    while step:
        total += cuda.shfl_down_sync(FULL, total, step)
        step //= 2
    if i % 32 == 0:
        y[i // 32] = total


@launched(1, 128, lambda: (count(128), ones(1)))
def sum_of_a_block_by_shuffles(x, y):
    s = cuda.shared.array(4, float32)
    t = cuda.threadIdx.x
    total = x[t]
    for step in (16, 8, 4, 2, 1):
        total += cuda.shfl_xor_sync(FULL, total, step)
    if t % 32 == 0:
        s[t // 32] = total
    cuda.syncthreads()
    if t == 0:
        y[0] = s[0] + s[1] + s[2] + s[3]


@launched(1, 128, lambda: (count(128), ones(1)))
def sum_of_a_block_by_shuffles_alone(x, y):
    s = cuda.shared.array(4, float32)
    t = cuda.threadIdx.x
    total = x[t]
    for step in (16, 8, 4, 2, 1):
        total += cuda.shfl_xor_sync(FULL, total, step)
    if t % 32 == 0:
        s[t // 32] = total  # race: s
    if t == 0:
        y[0] = s[0] + s[1] + s[2] + s[3]  # race: s


@launched(1, 32, lambda: (count(32),))
def a_shuffle_is_no_syncwarp(x):
    s = cuda.shared.array(32, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]  # race: s
    here = cuda.shfl_xor_sync(FULL, t, 1)
    x[t] = s[here]  # race: s


@launched(1, 32, lambda: (count(32),))
def shuffle_in_a_branch(x):
    t = cuda.threadIdx.x
    if t < 16:
        x[t] = cuda.shfl_down_sync(FULL, x[t], 1)  # divergent shuffle


@launched(1, 32, lambda: (count(32),))
def shuffle_in_a_branch_with_its_mask(x):
    t = cuda.threadIdx.x
    if t < 16:
        x[t] = cuda.shfl_xor_sync(0xFFFF, x[t], 1)


@launched(1, 32, lambda: (count(32),))
def shuffle_from_behind_the_mask(x):
    t = cuda.threadIdx.x
    if t < 16:
        x[t] = cuda.shfl_down_sync(0xFFFF, x[t], 1)  # shuffle of a silent lane


@launched(1, 48, lambda: (count(48),))
def shuffle_in_a_part_of_a_warp(x):
    t = cuda.threadIdx.x
    x[t] = cuda.shfl_xor_sync(FULL, x[t], 16)  # shuffle of a silent lane


@launched(2, 20, lambda: (count(40), ones(2), 20))
def sum_of_a_part_of_a_warp(x, y, n):
    t = cuda.threadIdx.x
    total = x[cuda.grid(1)]
    for step in (16, 8, 4, 2, 1):
        other = cuda.shfl_down_sync(FULL, total, step)  # of nobody, near the end
        if t + step < n:
            total += other
    if t == 0:
        y[cuda.blockIdx.x] = total


@launched(2, 20, lambda: (count(40), ones(2), 20))
def sum_of_a_part_of_a_warp_without_guard(x, y, n):
    t = cuda.threadIdx.x
    total = x[cuda.grid(1)]
    for step in (16, 8, 4, 2, 1):
        total += cuda.shfl_down_sync(FULL, total, step)  # shuffle of a silent lane
    if t == 0:
        y[cuda.blockIdx.x] = total


@launched(2, 20, lambda: (count(40, np.float64), ones(2, dtype=np.float64), 20))
def sum_of_a_part_of_a_warp_by_one_too_many(x, y, n):
    t = cuda.threadIdx.x
    total = x[cuda.grid(1)]
    for step in (16, 8, 4, 2, 1):
        other = cuda.shfl_down_sync(FULL, total, step)  # shuffle of a silent lane
        if t + step <= n:
            total += other
    if t == 0:
        y[cuda.blockIdx.x] = total


@launched(1, 20, lambda: (count(20, np.int64), ones(20, dtype=np.int64)))
def differences_in_a_part_of_a_warp(x, y):
    t = cuda.threadIdx.x
    right, left = cuda.shfl_down_sync(FULL, x[t], 1), cuda.shfl_up_sync(FULL, x[t], 1)
    last = t == 19
    y[t] = x[t] - left if last else right - x[t]


@launched(1, 20, lambda: (count(20), ones(20)))
def variable_of_another_value(x, y):
    t = cuda.threadIdx.x
    value = cuda.shfl_down_sync(FULL, x[t], 1)
    if t == 19:
        value = x[t]
    y[t] = value


@launched(1, 32, lambda: (count(32, np.int32),))
def vote(x):
    t = cuda.threadIdx.x
    x[t] = cuda.ballot_sync(FULL, x[t] > 3) + cuda.all_sync(FULL, x[t] > 40)


@launched(1, 32, lambda: (count(32, np.int32),))
def vote_in_a_branch(x):
    t = cuda.threadIdx.x
    if x[t] > 3:
        x[t] = cuda.ballot_sync(FULL, True)  # divergent shuffle


@launched(1, 32, lambda: (count(32, np.int32),))
def syncwarp_in_a_branch(x):
    s = cuda.shared.array(32, int32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    if t % 2:
        cuda.syncwarp()  # divergent shuffle
    x[t] = s[t]


@launched(1, 32, lambda: (count(32, np.int32),))
def two_votes_at_once(x):
    t = cuda.threadIdx.x
    if t < 16:
        x[t] = cuda.ballot_sync(0xFFFF, x[t] > 3)
    else:
        x[t] = cuda.ballot_sync(0xFFFF0000, x[t] > 20)


@launched(1, 32, lambda: (count(32),))
def warp_scan(x):
    t = cuda.threadIdx.x
    total = x[t]
    for step in (1, 2, 4, 8, 16):
        left = cuda.shfl_up_sync(FULL, total, step)
        if t >= step:
            total += left
    x[t] = total


@launched(1, 64, lambda: (ones(2, dtype=np.int32),))
def one_atomic_for_a_warp(y):
    mask = cuda.match_any_sync(FULL, cuda.threadIdx.x // 32)
    if cuda.laneid == 0:
        cuda.atomic.add(y, cuda.threadIdx.x // 32, cuda.popc(mask))
