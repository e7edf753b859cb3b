"""Data: real sets, verified byte by byte, and batches for training."""

from ..later import later
from .dataset import Dataset
from .loader import DataLoader
from .shipped import digits
from .transforms import Compose, Flip, Normalize, PadCrop, Scale, ToTensor

# who trains on the digits that come with minidl loads nothing that parses or downloads files
__getattr__, _names = later(
    __name__,
    audio="log_mel mel_filters read_wav stft",
    augment="Cutout MixUp RandomAffine",
    boxes="BoxedImages bccd",
    ratings="Ratings movielens",
    readers="Table download load_csv load_idx load_npy load_npz load_text read_arrays",
    sets="CIFAR10 FashionMNIST MNIST cifar10 fashion_mnist mnist",
    sources="fetch",
    speech="Recordings fsdd",
    splits="Splits Subset random_split",
)

__all__ = ["Compose", "DataLoader", "Dataset", "Flip", "Normalize", "PadCrop", "Scale", "ToTensor",
           "digits", *_names]  # fmt: skip
