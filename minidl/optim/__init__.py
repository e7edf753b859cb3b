"""Optimizers, learning-rate schedules and gradient clipping, under PyTorch's names."""

import sys
from importlib import import_module
from typing import Any

from .. import check
from . import lr_scheduler
from .clip import clip_grad_norm_
from .lr_scheduler import CosineAnnealingLR, OneCycleLR, StepLR
from .optimizer import SGD, Adam, Optimizer

__all__ = [
    "Adagrad", "Adam", "AdamW", "CosineAnnealingLR", "LinearLR", "OneCycleLR", "Optimizer",
    "ReduceLROnPlateau", "RMSprop", "SequentialLR", "SGD", "StepLR", "clip_grad_norm_", "get",
    "lr_scheduler",
]  # fmt: skip

_LATER = {"AdamW": "adamw", "RMSprop": "rmsprop", "Adagrad": "adagrad", **lr_scheduler.LATER}
_KNOWN = {name.lower(): name for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad")}


def __getattr__(name: str) -> Any:
    """Optimizers and schedules from files that are loaded when they are asked for."""
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
