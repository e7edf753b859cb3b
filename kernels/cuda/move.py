"""Copies, and rows picked by number."""

import functools
import sys
from collections.abc import Callable
from typing import Any

from ..roles import Array, Out, roles
from . import memory
from ._numba import blocks, cuda, jit
from .layout import collapse

THREADS = 256


@jit(mixed=True)
def _copy(x, y, add):
    """A thread copies one element of a row; rows are the grid's y and z."""
    i = cuda.grid(1)
    if i < y.shape[2]:
        value = y.dtype.type(x[cuda.blockIdx.z, cuda.blockIdx.y, i])
        y[cuda.blockIdx.z, cuda.blockIdx.y, i] = (
            y[cuda.blockIdx.z, cuda.blockIdx.y, i] + value if add else value
        )


def copy(x: Array, y: Out, add: bool) -> Array:
    """y = x, cast to y's dtype."""
    shape, (from_, to) = collapse(y.shape, x.strides, y.strides)
    _copy_axes(shape, x, from_, y, to, add)
    return y


def _copy_axes(shape: Any, x: Array, from_: Any, y: Array, to: Any, add: bool) -> None:
    as_strided = sys.modules[type(y).__module__.partition(".")[0]].lib.stride_tricks.as_strided
    if len(shape) > 3:
        raise NotImplementedError
    wide = (1,) * (3 - len(shape)) + tuple(shape)
    x3 = as_strided(x, wide, (0,) * (3 - len(shape)) + tuple(from_))
    y3 = as_strided(y, wide, (0,) * (3 - len(shape)) + tuple(to))
    _copy[(blocks(wide[2], THREADS), wide[1], wide[0]), THREADS](x3, y3, add)


def dense(launcher: Callable[..., Any]) -> Callable[..., Any]:
    """Let a launcher see arrays in C order alone, so that its kernels need one layout.

    Others are copied to scratch before the call, and outputs back after it.
    """
    kinds = tuple(roles(launcher).values())

    @functools.wraps(launcher)
    def call(*args: Any) -> Any:
        if all(a.flags.c_contiguous for a in args if hasattr(a, "flags")):
            return launcher(*args)
        inside = list(args)
        strided = [
            i for i, a in enumerate(args) if hasattr(a, "flags") and not a.flags.c_contiguous
        ]
        for i in strided:
            inside[i] = memory.scratch(args[i].shape, args[i].dtype)
            copy(args[i], inside[i], False)
        launcher(*inside)
        for i in strided:
            if "out" in kinds[i]:
                copy(inside[i], args[i], False)
        outputs = tuple(a for a, kind in zip(args, kinds) if "out" in kind)
        return outputs if len(outputs) > 1 else outputs[0]

    return call
