"""Optimizers, learning-rate schedules and gradient clipping, under PyTorch's names."""

import sys
from typing import Any

from .. import check
from ..later import later
from .optimizer import SGD, Adam, Optimizer

__getattr__, _later = later(
    __name__,
    adamw="AdamW",
    rmsprop="RMSprop",
    adagrad="Adagrad",
    lion="Lion",
    lamb="LAMB",
    clip="clip_grad_norm_",
    lr_scheduler="StepLR CosineAnnealingLR OneCycleLR",
    sequential="LinearLR SequentialLR",
    plateau="ReduceLROnPlateau",
    decay="CosineAnnealingWarmRestarts ExponentialLR LambdaLR MultiStepLR PolynomialLR",
)
__all__ = ["Adam", "Optimizer", "SGD", "lr_scheduler", *_later]
_NAMES = "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Lion", "LAMB"
_KNOWN = {name.lower(): name for name in _NAMES}


def get(name: str, params: Any, **options: Any) -> Optimizer:
    """The optimizer of a name: sgd, adam, adamw, rmsprop, adagrad, lion, lamb.

    ValueError for another one.
    """
    key = str(name).lower()
    if key not in _KNOWN:
        check.known("optimizer", name, _KNOWN)
    return getattr(sys.modules[__name__], _KNOWN[key])(params, **options)
