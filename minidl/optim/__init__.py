"""Optimizers, learning-rate schedules and gradient clipping, under PyTorch's names."""

from typing import Any

from .. import check
from . import lr_scheduler
from .clip import clip_grad_norm_
from .lr_scheduler import CosineAnnealingLR, OneCycleLR, StepLR
from .optimizer import SGD, Adam, Optimizer

__all__ = [
    "SGD", "Adam", "CosineAnnealingLR", "OneCycleLR", "Optimizer", "StepLR", "clip_grad_norm_",
    "get", "lr_scheduler",
]  # fmt: skip

_KNOWN: dict[str, type[Optimizer]] = {"adam": Adam, "sgd": SGD}


def get(name: str, params: Any, **options: Any) -> Optimizer:
    """The optimizer of a name, "sgd" or "adam". ValueError for an unknown one."""
    key = str(name).lower()
    if key not in _KNOWN:
        check.known("optimizer", name, _KNOWN)
    return _KNOWN[key](params, **options)
