"""Optimizers, learning-rate schedules and gradient clipping, under PyTorch's names."""

from typing import Any

from .. import check
from . import lr_scheduler
from .clip import clip_grad_norm_
from .lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from .optimizer import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

__all__ = [
    "Adagrad", "Adam", "AdamW", "CosineAnnealingLR", "LinearLR", "OneCycleLR", "Optimizer",
    "ReduceLROnPlateau", "RMSprop", "SequentialLR", "SGD", "StepLR", "clip_grad_norm_", "get",
    "lr_scheduler",
]  # fmt: skip

_KNOWN: dict[str, type[Optimizer]] = {
    kind.__name__.lower(): kind for kind in (SGD, Adam, AdamW, RMSprop, Adagrad)
}


def get(name: str, params: Any, **options: Any) -> Optimizer:
    """The optimizer of a name: sgd, adam, adamw, rmsprop, adagrad. ValueError for another one."""
    key = str(name).lower()
    if key not in _KNOWN:
        check.known("optimizer", name, _KNOWN)
    return _KNOWN[key](params, **options)
