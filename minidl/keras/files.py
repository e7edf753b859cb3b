"""Networks in files: what these may name. Reading and writing them is minidl.io's."""

import sys
from typing import Any

from ..io import keras_files
from . import layers, losses, metrics, optimizers
from .model import Model, Sequential

KINDS = {name: getattr(layers, name) for name in layers.__all__ if name not in ("Input", "Layer")}
KINDS |= {"Sequential": Sequential, "Functional": Model}
HOMES = optimizers, losses, metrics


def save(model: Model, path: Any) -> None:
    """Write architecture, weights, compile's arguments and the optimizer's state."""
    keras_files.save(model, path, sys.modules[__name__])


def load_model(path: Any, compile: bool = True) -> Model:
    """Read a network that model.save, or Keras, wrote, ready to be trained further.

    .safetensors or .h5. ValueError for damaged files, and for what minidl does not have.
    """
    return keras_files.load_model(path, compile, sys.modules[__name__])


Model.save, Model.save_weights = save, keras_files.save_weights
Model.load_weights = keras_files.load_weights
