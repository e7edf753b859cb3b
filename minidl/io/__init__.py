"""Files: weights and whole training states, written whole or not at all, never unpickled."""

from ..atomic import write
from .checkpoint import load_checkpoint, save_checkpoint
from .keras import from_keras
from .pytorch import from_torch, to_torch
from .tensors import load_tensors, save_tensors
from .weights import load, save

__all__ = [
    "from_keras",
    "from_torch",
    "load",
    "load_checkpoint",
    "load_tensors",
    "save",
    "save_checkpoint",
    "save_tensors",
    "to_torch",
    "write",
]
