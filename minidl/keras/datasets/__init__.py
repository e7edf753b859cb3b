"""Data sets as Keras hands them out: load_data() -> (x_train, y_train), (x_test, y_test).

The files are those of minidl.data: $MINIDL_DATA, or what `minidl data fetch` brought.
"""

from . import cifar10, digits, fashion_mnist, mnist

__all__ = ["cifar10", "digits", "fashion_mnist", "mnist"]
