"""keras.models: networks, and how to get one back from a file."""

from .files import load_model
from .model import Model, Sequential

__all__ = ["Model", "Sequential", "load_model"]
