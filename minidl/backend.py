"""Devices: where arrays live, and the kernels that work on them.

A backend is a module of flat functions (`minidl.kernels.reference`, `.cpu`, `.cuda`). This file is
the only one of the engine that imports them.
"""

import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

Array = Any

CUDA_MEMORY = 2  # kDLCUDA, as DLPack numbers the kinds of memory
FOR_A_GPU = "pip install 'minidl[cuda13]'"
FOR_AN_OLD_DRIVER = "pip install 'minidl[cuda12]'"
FOR_THE_EMULATOR = "pip install 'minidl[emulate]'"

MATMUL = "kernel", "cublas", "auto"  # what can compute matrix products on "cuda"
_matmul: list[Any] = ["kernel", False]  # which of them does, and whether in TF32


class Device:
    """A place for arrays, "cpu" or "cuda", with the kernels for it as attributes of `kernels`."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"device({self.name!r})"

    @functools.cached_property
    def kernels(self) -> Any:
        """The kernel namespace, loaded when the first op asks for it: Numba takes a while."""
        return _cpu_kernels(os.environ.get("MINIDL_CPU", "numba"))

    def array(self, data: Any, dtype: Any = None) -> Array:
        """data on this device: no copy where it is there already, in this dtype."""
        if getattr(data, "device", "cpu") == "cuda":  # CuPy refuses by itself
            raise TypeError(f"{data} is not on {self.name!r}; give the Tensor that holds it")
        return np.asarray(data, dtype)

    def numpy(self, array: Array) -> np.ndarray:
        """The array on the host: itself on the CPU, else a copy."""
        return array

    def assign(self, array: Array, key: Any, value: Any) -> None:
        """array[key] = value, which is a number, an array here, or one in NumPy."""
        array[key] = value


class Cuda(Device):
    """A GPU, or the emulator in its place. Arrays come there as copies, in C order."""

    @functools.cached_property
    def kernels(self) -> Any:
        """The CUDA kernels. RuntimeError where nothing can run them: see `cuda_problem`."""
        problem = cuda_problem()
        if problem:
            raise RuntimeError(problem)
        return cuda_kernels()

    def array(self, data: Any, dtype: Any = None) -> Array:
        """data on this device: no copy where it is there already, in this dtype."""
        k = self.kernels
        if not k.memory.on_device(data):
            host = np.asarray(data, dtype)
            return k.memory.from_host(host) if host.dtype.kind in "fiub" else host
        if dtype in (None, data.dtype):
            return data
        return k.copy(data, k.empty(data.shape, dtype), False)

    def numpy(self, array: Array) -> np.ndarray:
        """A copy on the host, when all that was launched before is done."""
        return self.kernels.memory.to_host(array)

    def assign(self, array: Array, key: Any, value: Any) -> None:
        """array[key] = value by a kernel. The key is numbers, slices, None and ... only."""
        k = self.kernels
        for part in key if isinstance(key, tuple) else (key,):
            if not (part is None or part is ... or isinstance(part, slice | int | np.integer)):
                kind = type(part).__name__
                raise TypeError(f"assignment on {self.name!r}: no index can be a {kind} there")
        place = array[key]
        if k.memory.on_device(value):
            while value.ndim > place.ndim and len(value) == 1:
                value = value[0]
            value = k.memory.broadcast_to(value, place.shape)
        elif isinstance(value, float) and place.dtype.kind == "f":
            k.fill(place, value)  # nothing has to come from the host
            return
        else:
            host = np.empty(place.shape, place.dtype)
            host[...] = value
            value = k.memory.from_host(host)
        k.copy(value, place, False)


def _cpu_kernels(choice: str) -> SimpleNamespace:
    """The definition, overlaid with what kernels/cpu does faster unless choice is "reference"."""
    if choice not in ("numba", "reference"):
        raise RuntimeError(f"MINIDL_CPU is 'numba' (or unset) or 'reference', not {choice!r}")
    modules = [importlib.import_module("minidl.kernels.reference")]
    if choice == "numba":
        try:
            modules.append(importlib.import_module("minidl.kernels.cpu"))
        except ImportError as error:
            raise ImportError(
                f"the CPU kernels need Numba, which does not load here ({error}); "
                "MINIDL_CPU=reference runs everything on NumPy alone"
            ) from error
    found = {name: f for m in modules for name, f in vars(m).items() if not name.startswith("_")}
    return SimpleNamespace(**found)


def own_kernel(kernel: Any) -> Any:
    """A kernel of numba-cuda's `cuda.jit` as one of minidl's; whatever else it is, as it is."""
    if not hasattr(kernel, "targetoptions"):
        return kernel
    return importlib.import_module("minidl.kernels.cuda._numba").kernel_of(kernel)


def cuda_kernels() -> Any:
    """The CUDA kernels, wherever they can run. ImportError without numba-cuda."""
    kernels = importlib.import_module("minidl.kernels.cuda")
    kernels.set_matmul(*_matmul)
    return kernels


def set_matmul(choice: str, tf32: bool) -> None:
    """What computes matrix products on "cuda"; remembered until its kernels are loaded."""
    _matmul[:] = choice, tf32
    if "minidl.kernels.cuda" in sys.modules:
        cuda_kernels()


def cuda_problem() -> str:
    """Why there is no device "cuda" here and what to do about it, or nothing."""
    asked = os.environ.get("MINIDL_CUDA", "")
    if asked not in ("", "emulate"):
        return f"MINIDL_CUDA is {asked!r}; it can be 'emulate' or unset"
    if importlib.util.find_spec("numba_cuda") is None:
        return (
            f"device 'cuda' needs numba-cuda, which is not installed: {FOR_A_GPU} for a GPU "
            f"({FOR_AN_OLD_DRIVER} where the driver is older than 580), or {FOR_THE_EMULATOR} to "
            "emulate one"
        )
    try:
        kernels = cuda_kernels()
        if asked == "emulate":
            importlib.import_module("minidl.kernels.cuda.emulator")
    except (ImportError, RuntimeError) as error:
        return f"device 'cuda': its kernels do not load here: {error}"
    if asked == "emulate":
        return ""
    if kernels.memory.emulated():
        return (
            "device 'cuda': there is no NVIDIA GPU here, or no driver for it. `minidl doctor` says "
            "more. MINIDL_CUDA=emulate runs the same kernels on the CPU, slowly, to check them"
        )
    if importlib.util.find_spec("cupy") is None:
        return (
            f"device 'cuda' needs CuPy, which is not installed: {FOR_A_GPU}, or where the driver "
            f"is older than 580, {FOR_AN_OLD_DRIVER}"
        )
    return ""


_CPU, _CUDA = Device("cpu"), Cuda("cuda")


recorder: Any = None  # who writes down what a step does, while minidl.capture records one


def every_step(function: Callable[..., Any], *args: Any) -> Any:
    """function(*args), now and wherever a replay of the captured step comes to this place.

    For what has to happen on the host in every step: a check of values, a number brought into an
    array. args: arrays and Tensors of the step, and of those that are not, ones it may change.
    """
    if recorder is None:
        return function(*args)
    return recorder.on_host(function, args)


def devices() -> list[Device]:
    """The devices that were used so far."""
    return [where for where in (_CPU, _CUDA) if "kernels" in vars(where)]


def device(name: "str | Device" = "cpu") -> Device:
    """The device of a name, "cpu" or "cuda". RuntimeError for one that is not there."""
    if isinstance(name, Device):
        return name
    if name == "cpu":
        return _CPU
    if name in ("cuda", "cuda:0"):
        _CUDA.kernels  # noqa: B018  (what is wrong with it is said here, not in the first op)
        return _CUDA
    hint = "; minidl computes on one GPU, 'cuda'" if str(name).startswith("cuda") else ""
    raise RuntimeError(f"there is no device {name!r}; known: 'cpu', 'cuda'{hint}")


def from_dlpack(source: Any) -> tuple[Array, Device]:
    """An array that shares the memory of any object with __dlpack__, and where it is."""
    kind, _ = source.__dlpack_device__()
    if kind == CUDA_MEMORY:
        where = device("cuda")
        return where.kernels.memory.from_dlpack(source), where
    return np.from_dlpack(source), _CPU
