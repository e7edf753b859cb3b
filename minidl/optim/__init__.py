"""Optimizers, learning-rate schedules and gradient clipping, under PyTorch's names."""

import sys
from importlib import import_module
from typing import Any

from .. import check
from .optimizer import SGD, Adam, Optimizer

__all__ = [
    "Adagrad", "Adam", "AdamW", "CosineAnnealingLR", "LinearLR", "OneCycleLR", "Optimizer",
    "ReduceLROnPlateau", "RMSprop", "SequentialLR", "SGD", "StepLR", "clip_grad_norm_", "get",
    "lr_scheduler",
]  # fmt: skip

# Loaded when they are asked for: name and file.
_LATER = {
    "AdamW": "adamw",
    "RMSprop": "rmsprop",
    "Adagrad": "adagrad",
    "clip_grad_norm_": "clip",
    "StepLR": "lr_scheduler",
    "CosineAnnealingLR": "lr_scheduler",
    "OneCycleLR": "lr_scheduler",
    "LinearLR": "sequential",
    "SequentialLR": "sequential",
    "ReduceLROnPlateau": "plateau",
}
_KNOWN = {name.lower(): name for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad")}


def __getattr__(name: str) -> Any:
    """What few networks need, from files that are loaded when it is asked for."""
    if name == "lr_scheduler":
        return import_module(f".{name}", __name__)
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(f".{_LATER[name]}", __name__), name)
    return found


def get(name: str, params: Any, **options: Any) -> Optimizer:
    """The optimizer of a name: sgd, adam, adamw, rmsprop, adagrad. ValueError for another one."""
    key = str(name).lower()
    if key not in _KNOWN:
        check.known("optimizer", name, _KNOWN)
    return getattr(sys.modules[__name__], _KNOWN[key])(params, **options)
