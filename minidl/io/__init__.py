"""Files: weights and whole training states as safetensors, written whole or not at all."""

from ..atomic import write
from .checkpoint import load_checkpoint, save_checkpoint
from .tensors import load_tensors, save_tensors
from .weights import load, save

__all__ = [
    "load",
    "load_checkpoint",
    "load_tensors",
    "save",
    "save_checkpoint",
    "save_tensors",
    "write",
]
