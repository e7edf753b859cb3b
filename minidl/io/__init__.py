"""Files: weights and whole training states as safetensors, written whole or not at all."""

from ..atomic import write
from ..later import later
from .checkpoint import load_checkpoint, save_checkpoint
from .tensors import load_tensors, save_tensors
from .weights import load, save

__getattr__, _later = later(__name__, csr="save_csr")
__all__ = [
    "load",
    "load_checkpoint",
    "load_tensors",
    "save",
    "save_checkpoint",
    "save_csr",
    "save_tensors",
    "write",
]
