"""Imported in the process that trials are forked from, after what the tests import.

A first kernel takes Numba six times as long as a second one: it reads its own tables. So one of
each kind is compiled here, and every trial begins with the second. Where this fails, trials are
slower, and the tests themselves say why.
"""

import contextlib
import sys


def emulated() -> None:
    """Compile a kernel for the emulator, though it may be on disk, and run it."""
    import numpy as np

    from ..cuda import _numba, arguments
    from ..cuda.emulator import launch, machine, schedule

    cuda = _numba.cuda

    @_numba.jit
    def kernel(x):
        s = cuda.shared.array(2, x.dtype)
        s[0] = x[0]
        cuda.syncthreads()
        x[0] = s[0] + x.dtype.type(1)

    x = np.zeros(2, np.float32)
    given = arguments.checked(kernel, (x,))
    machine.build(kernel, arguments.signature(kernel, given), machine.Instrument())
    with schedule("forward"):  # one worker: no thread, which a fork would lose
        launch(kernel, (1, 1, 1), (1, 1, 1), 0, given)


def on_the_cpu() -> None:
    import numba

    numba.njit(lambda x: x + 1)(1)


with contextlib.suppress(Exception):
    if "minidl.kernels.cuda.emulator" in sys.modules:
        emulated()
    elif "numba" in sys.modules:
        on_the_cpu()
