"""keras.utils, as far as the documents use it."""

import numpy as np

from .. import random
from ..data.categorical import to_categorical
from .layer import NAMES

__all__ = ["clear_session", "set_random_seed", "to_categorical"]

clear_session = NAMES.clear  # the next names count from the beginning


def set_random_seed(seed: int) -> None:
    """Make every random number of minidl, and of np.random, follow from this seed."""
    random.manual_seed(seed)
    np.random.seed(seed % 2**32)
