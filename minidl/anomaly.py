"""detect_anomaly: where the first NaN or infinity came from, forward or backward."""

from types import ModuleType
from typing import Any

import numpy as np

from . import backend
from .backend import Array, Device
from .capture import step as capturing
from .capture.record import where
from .kernels.roles import roles


class _Checked:
    """A device's kernels, each of which is run, and then its outputs are looked at."""

    def __init__(self, device: Device, raw: Any):
        self._device, self._raw = device, raw

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._raw, name)
        if name.startswith("_") or isinstance(found, type | ModuleType) or not callable(found):
            return found
        kinds = roles(found)
        if not {"out", "inout"} & set(kinds.values()) or name == "fill":  # it is told to
            return found

        def launch(*args: Any, **named: Any) -> Any:
            result = found(*args, **named)
            given = dict(zip(kinds, args)) | named
            for parameter, kind in kinds.items():
                if kind in ("out", "inout") and given.get(parameter) is not None:
                    self._look(name, parameter, given, kinds)
            return result

        vars(self)[name] = launch
        return launch

    def _look(self, name: str, parameter: str, given: dict[str, Any], kinds: dict) -> None:
        values = self._host(given[parameter])
        if values.dtype.kind != "f" or np.isfinite(values).all():
            return
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        inputs = [
            f"{n} {self._told(a)}"
            for n, a in given.items()
            if kinds[n] == "in" and hasattr(a, "dtype") and a.size
        ]
        op, line = where()
        at = f" in {op}" * bool(op) + f" at {line}" * bool(line)
        raise FloatingPointError(
            f"{name}{at}: {parameter} {values.shape} is {values[place]} at {place}; "
            f"{', '.join(inputs)}"
        )

    def _host(self, array: Array) -> np.ndarray:
        return np.asarray(self._device.numpy(array))

    def _told(self, array: Array) -> str:
        values = self._host(array)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            return f"{values.shape} with {int((~np.isfinite(values)).sum())} not finite"
        return f"{values.shape} from {values.min():.4g} to {values.max():.4g}"


class detect_anomaly:
    """Within `with detect_anomaly():` the first kernel that makes a NaN or infinity is an error.

    FloatingPointError names the kernel, the op, the line of your code and the inputs, in the
    forward pass, in its backward, whose kernels are called <op>_grad, and in optimizers. It reads
    every array back, so it is slow, and captured steps run eagerly: for the search, not for
    training.
    """

    def __enter__(self) -> "detect_anomaly":
        if backend.recorder is not None:
            raise RuntimeError("detect_anomaly: not within a step that is captured; put it around")
        self._saved = [(device, device.kernels) for device in backend.devices()]
        if not self._saved:
            self._saved = [(backend.device("cpu"), backend.device("cpu").kernels)]
        for device, raw in self._saved:
            vars(device)["kernels"] = _Checked(device, raw)
        self._outer, capturing._inside.step = capturing._inside.step, self  # no replays
        return self

    def __exit__(self, *error: object) -> None:
        capturing._inside.step = self._outer
        for device, raw in self._saved:
            vars(device)["kernels"] = raw
