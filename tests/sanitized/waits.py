"""Threads that wait in loops: locks, flags, queues, and loops without an end."""

import numpy as np
from numba import cuda, float32, int32

from . import count, launched, ones

N = 64


def zeros(*shape):
    return np.zeros(shape, np.int32)


@launched(3, N, lambda: (zeros(1), ones(1)))
def spin_lock(lock, y):
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:
        pass
    y[0] += 1
    cuda.threadfence()
    cuda.atomic.exch(lock, 0, 0)


@launched(3, N, lambda: (zeros(1), ones(1)))
def spin_lock_without_fence(lock, y):
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:
        pass
    y[0] += 1  # race: y
    cuda.atomic.exch(lock, 0, 0)


@launched(1, N, lambda: (zeros(1), ones(1)))
def spin_lock_in_a_block_without_fence(lock, y):
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:
        pass
    y[0] += 1  # race: y
    cuda.atomic.exch(lock, 0, 0)


@launched(3, N, lambda: (zeros(1), ones(1)))
def spin_lock_with_the_fence_too_early(lock, y):
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:
        pass
    cuda.threadfence()
    y[0] += 1  # race: y
    cuda.atomic.exch(lock, 0, 0)


@launched(3, N, lambda: (zeros(1), ones(1)))
def something_after_the_lock(lock, y):
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:
        pass
    y[0] += 1  # race: y
    cuda.threadfence()
    cuda.atomic.exch(lock, 0, 0)
    y[0] += 1  # race: y


@launched(1, N, lambda: (zeros(1), ones(1)))
def unlocked_by_a_store(lock, y):
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:  # race: lock
        pass
    y[0] += 1  # race: y
    cuda.threadfence()
    lock[0] = 0  # race: lock


@launched(2, N, lambda: (ones(2),))
def lock_in_shared_memory(y):
    s = cuda.shared.array(2, int32)
    t = cuda.threadIdx.x
    if t < 2:
        s[t] = 0
    cuda.syncthreads()
    while cuda.atomic.cas(s, 0, 0, 1) != 0:
        pass
    s[1] += t
    cuda.threadfence_block()
    cuda.atomic.exch(s, 0, 0)
    cuda.syncthreads()
    if t == 0:
        y[cuda.blockIdx.x] = s[1]


@launched(2, N, lambda: (zeros(1), ones(1)))
def lock_with_a_fence_for_the_block(lock, y):
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:
        pass
    y[0] += 1  # race: y
    cuda.threadfence_block()
    cuda.atomic.exch(lock, 0, 0)


@launched(3, N, lambda: (zeros(8), ones(8)))
def a_lock_for_each_bin(locks, y):
    i = cuda.grid(1) % 8
    while cuda.atomic.cas(locks, i, 0, 1) != 0:
        pass
    y[i] += 1
    cuda.threadfence()
    cuda.atomic.exch(locks, i, 0)


@launched(3, N, lambda: (zeros(2), ones(8)))
def a_lock_for_half_of_the_bins(locks, y):
    i = cuda.grid(1) % 8
    while cuda.atomic.cas(locks, i // 5, 0, 1) != 0:
        pass
    y[i] += y[(i + 1) % 8]  # race: y
    cuda.threadfence()
    cuda.atomic.exch(locks, i // 5, 0)


@launched(3, N, lambda: (zeros(1), ones(1)))
def lock_with_the_work_in_the_loop(lock, y):
    waits = True
    while waits:
        if cuda.atomic.cas(lock, 0, 0, 1) == 0:
            y[0] += 1
            cuda.threadfence()
            cuda.atomic.exch(lock, 0, 0)
            waits = False


@launched(3, N, lambda: (zeros(1), ones(1)))
def lock_that_is_kept(lock, y):
    waits = True
    while waits:  # endless loop
        if cuda.atomic.cas(lock, 0, 0, 1) == 0:
            cuda.atomic.add(y, 0, 1)
            cuda.threadfence()
            waits = False


@launched(2, N, lambda: (zeros(1), ones(32)))
def lock_of_a_warp(lock, y):
    lane = cuda.threadIdx.x % 32
    if lane == 0:
        while cuda.atomic.cas(lock, 0, 0, 1) != 0:
            pass
    cuda.syncwarp()
    y[(cuda.threadIdx.x // 32 + lane) % 32] += 1
    cuda.syncwarp()
    if lane == 0:
        cuda.threadfence()
        cuda.atomic.exch(lock, 0, 0)


@launched(1, N, lambda: (zeros(1), ones(1)))
def syncwarp_under_a_lock(lock, y):
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:  # endless loop: lock
        pass
    y[0] += 1
    cuda.syncwarp()
    cuda.threadfence()
    cuda.atomic.exch(lock, 0, 0)


@launched(1, N, lambda: (zeros(1), ones(1)))
def barrier_under_a_lock(lock, y):
    while cuda.atomic.cas(lock, 0, 0, 1) != 0:  # endless loop: lock
        pass
    y[0] += 1
    cuda.syncthreads()
    cuda.threadfence()
    cuda.atomic.exch(lock, 0, 0)


@launched(1, N, lambda: (zeros(1),))
def lock_taken_twice(lock):
    if cuda.threadIdx.x == 5:
        for _ in range(2):
            while cuda.atomic.cas(lock, 0, 0, 1) != 0:  # endless loop: lock
                pass
        cuda.atomic.exch(lock, 0, 0)


@launched(1, N, lambda: (zeros(1), ones(N)))
def flag_between_warps(flag, y):
    s = cuda.shared.array(1, float32)
    t = cuda.threadIdx.x
    if t == 40:
        s[0] = 3
        cuda.threadfence_block()
        cuda.atomic.exch(flag, 0, 1)
    while cuda.atomic.add(flag, 0, 0) == 0:
        pass
    y[t] = s[0]


@launched(1, N, lambda: (zeros(1), ones(N)))
def flag_without_fence(flag, y):
    s = cuda.shared.array(1, float32)
    t = cuda.threadIdx.x
    if t == 40:
        s[0] = 3  # race: s
        cuda.atomic.exch(flag, 0, 1)
    while cuda.atomic.add(flag, 0, 0) == 0:
        pass
    y[t] = s[0]  # race: s


@launched(1, N, lambda: (zeros(1), ones(N)))
def flag_that_is_read_plainly(flag, y):
    t = cuda.threadIdx.x
    if t == 40:
        cuda.atomic.exch(flag, 0, 1)  # race: flag
    while flag[0] == 0:  # race: flag
        pass
    y[t] = 1


@launched(1, N, lambda: (zeros(1), ones(N)))
def flag_that_nobody_raises(flag, y):
    t = cuda.threadIdx.x
    if t == N:
        cuda.atomic.exch(flag, 0, 1)
    while cuda.atomic.add(flag, 0, 0) == 0:  # endless loop: flag
        pass
    y[t] = 1


@launched(1, N, lambda: (zeros(1), ones(N)))
def flag_behind_a_barrier(flag, y):
    t = cuda.threadIdx.x
    while cuda.atomic.add(flag, 0, 0) == 0:  # endless loop: flag
        cuda.syncthreads()
    y[t] = 1


@launched(1, 96, lambda: (zeros(2), ones(3)))
def from_hand_to_hand(flags, y):
    t = cuda.threadIdx.x
    if t == 0:
        y[0] = 5
        cuda.threadfence()
        cuda.atomic.exch(flags, 0, 1)
    if t == 32:
        while cuda.atomic.add(flags, 0, 0) == 0:
            pass
        y[1] = y[0]
        cuda.threadfence()
        cuda.atomic.exch(flags, 1, 1)
    if t == 64:
        while cuda.atomic.add(flags, 1, 0) == 0:
            pass
        y[2] = y[0] + y[1]


@launched(1, N, lambda: (count(100), zeros(2), ones(100)))
def producer_and_consumer(x, places, y):
    s = cuda.shared.array(4, float32)
    t = cuda.threadIdx.x
    if t == 0:
        for i in range(x.size):
            while cuda.atomic.add(places, 1, 0) < i - 3:
                pass
            s[i % 4] = x[i]
            cuda.threadfence_block()
            cuda.atomic.add(places, 0, 1)
    if t == 32:
        for i in range(x.size):
            while cuda.atomic.add(places, 0, 0) <= i:
                pass
            y[i] = s[i % 4]
            cuda.threadfence_block()
            cuda.atomic.add(places, 1, 1)


@launched(5, 32, lambda: (count(5), zeros(2), ones(5)))
def block_after_block(x, state, y):
    if cuda.threadIdx.x == 0:
        mine = cuda.atomic.add(state, 0, 1)  # whoever begins first is first
        while cuda.atomic.add(state, 1, 0) < mine:
            pass
        y[mine] = x[mine] + (y[mine - 1] if mine else float32(0))
        cuda.threadfence()
        cuda.atomic.add(state, 1, 1)


@launched(5, 32, lambda: (zeros(1), ones(5)))
def all_blocks_wait_for_all(came, y):
    if cuda.threadIdx.x == 0:
        cuda.atomic.add(came, 0, 1)
        while cuda.atomic.add(came, 0, 0) < cuda.gridDim.x:  # endless loop: came
            pass
        y[cuda.blockIdx.x] = 1


@launched(2, 32, lambda: (zeros(1), count(300), ones(300)))
def queue_of_work(head, x, y):
    while True:
        i = cuda.atomic.add(head, 0, 1)
        if i >= x.size:
            break
        y[i] = 2 * x[i]


@launched(2, 32, lambda: (count(64, np.int32), zeros(1)))
def largest_by_hand(x, y):
    mine = x[cuda.grid(1)]
    seen = cuda.atomic.add(y, 0, 0)
    while seen < mine:
        seen = cuda.atomic.cas(y, 0, seen, mine)


@launched(1, 2, lambda: (ones(7000), ones(2)))
def long_sum(x, y):
    total, i = float32(0), cuda.threadIdx.x
    while i < x.size:
        total += x[i]
        i += 2
    y[cuda.threadIdx.x] = total


@launched(1, 2, lambda: (ones(7000), ones(2)))
def sum_that_stays_where_it_is(x, y):
    total, i = float32(0), cuda.threadIdx.x
    while i < x.size:  # endless loop
        total += x[i]
    y[cuda.threadIdx.x] = total


@launched(1, N, lambda: (count(N), ones(1)))
def sum_that_is_never_halved(x, y):
    s = cuda.shared.array(N, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    step = N // 2
    while step > 0:  # endless loop
        cuda.syncthreads()
        if t < step:
            s[t] += s[t + step]
    y[0] = s[0]


@launched(1, N, lambda: (count(N), ones(N)))
def halves_of_what_was_found(x, y):
    low, high = 0, x.size
    while high - low > 1:
        middle = (low + high) // 2
        if x[middle] <= cuda.threadIdx.x:
            low = middle
        else:
            high = middle
    y[cuda.threadIdx.x] = low


@launched(1, N, lambda: (count(N), ones(N)))
def halves_that_do_not_get_smaller(x, y):
    low, high = 0, x.size
    while low < high:  # endless loop: x
        middle = (low + high) // 2
        if x[middle] <= cuda.threadIdx.x:
            low = middle
        else:
            high = middle
    y[cuda.threadIdx.x] = low


@launched(1, 32, lambda: (ones(32),))
def for_ever(y):
    while True:  # endless loop
        y[cuda.threadIdx.x] = 2


@launched(1, 32, lambda: (ones(32), ones(32)))
def root_by_newton(x, y):
    i = cuda.threadIdx.x
    guess, before = x[i], float32(0)
    while guess != before:  # endless loop
        before = guess
        guess = -before
    y[i] = guess
