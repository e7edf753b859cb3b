"""Devices: where arrays live, and the kernels that work on them.

A backend is a module of flat functions (`minidl.kernels.reference`, `.cpu`, `.cuda`). This file is
the only one of the engine that imports them.
"""

import functools
import importlib
import os
from types import SimpleNamespace
from typing import Any

import numpy as np

Array = Any


class Device:
    """A place for arrays ("cpu"), with the kernels for it as attributes of `kernels`."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"device({self.name!r})"

    @functools.cached_property
    def kernels(self) -> SimpleNamespace:
        """The kernel namespace, loaded when the first op asks for it: Numba takes a while."""
        return _cpu_kernels(os.environ.get("MINIDL_CPU", "numba"))

    def array(self, data: Any, dtype: Any = None) -> Array:
        """data on this device: no copy where it is there already, in this dtype."""
        return np.asarray(data, dtype)

    def numpy(self, array: Array) -> np.ndarray:
        """The array on the host."""
        return array


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


_CPU = Device("cpu")


def device(name: "str | Device" = "cpu") -> Device:
    """The device of a name. RuntimeError for one that is not there."""
    if isinstance(name, Device):
        return name
    if name == "cpu":
        return _CPU
    if name.split(":")[0] == "cuda":
        raise RuntimeError(
            "device 'cuda': tensors do not live there yet. Three ops have CUDA kernels "
            "(minidl.kernels.cuda), checked by the emulator; the whole device comes next"
        )
    raise RuntimeError(f"there is no device {name!r}; known: 'cpu'")
