"""The documents' three networks, in minidl and as the same network in PyTorch."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import models, nn, optim


@dataclass(frozen=True)
class Recipe:
    """One network with its data set and its optimizer."""

    name: str
    data: str
    optimizer: str
    lr: float
    epochs: int
    image: tuple[int, int, int]
    mean: float = 0.0  # of (pixel / 255 - mean) / std
    std: float = 1.0

    def model(self, dtype: str = "float32") -> nn.Module:
        """The network, freshly drawn, without dropout."""
        make = {"S4": models.mnist_mlp, "S0": models.mnist_cnn, "S2": models.cifar10_cnn}[self.name]
        network = make(dropout=0.0) if self.name == "S0" else make()
        return network.double() if dtype == "float64" else network

    def optim(self, parameters: Any) -> optim.Optimizer:
        """Its optimizer in minidl."""
        return {"sgd": optim.SGD, "adam": optim.Adam}[self.optimizer](parameters, lr=self.lr)

    def torch_optim(self, parameters: Any) -> Any:
        """Its optimizer in PyTorch."""
        import torch

        make = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[self.optimizer]
        return make(parameters, lr=self.lr)

    def inputs(self, images: np.ndarray, dtype: str = "float32") -> np.ndarray:
        """Images (N, H, W, C) uint8 as the network's input."""
        scaled = (images / 255 - self.mean) / self.std
        return scaled.astype(dtype)


RECIPES = {
    "S4": Recipe("S4", "mnist", "sgd", 0.01, 10, (28, 28, 1), 0.1307, 0.3081),
    "S0": Recipe("S0", "mnist", "adam", 1e-3, 5, (28, 28, 1)),
    "S2": Recipe("S2", "cifar10", "adam", 1e-3, 10, (32, 32, 3)),
}


def to_torch(model: nn.Module) -> Any:
    """A PyTorch network (images N, C, H, W) with the layers and the weights of a Sequential."""
    import torch

    layers: list[Any] = []
    for layer in model.children():
        if isinstance(layer, nn.Flatten):
            layers += [_ToNHWC(), torch.nn.Flatten()]
        elif isinstance(layer, nn.ReLU):
            layers.append(torch.nn.ReLU())
        elif isinstance(layer, nn.Dropout):
            layers.append(torch.nn.Dropout(layer.p))
        elif isinstance(layer, nn.MaxPool2d):
            layers.append(torch.nn.MaxPool2d(layer.kernel_size, layer.stride))
        elif isinstance(layer, nn.Linear):
            w = layer.weight.detach().numpy().T
            layers.append(_filled(torch.nn.Linear(w.shape[1], w.shape[0]), w, layer.bias))
        elif isinstance(layer, nn.Conv2d):
            w = layer.weight.detach().numpy().transpose(3, 2, 0, 1)
            how = layer.stride, layer.padding, layer.dilation, layer.groups
            conv = torch.nn.Conv2d(layer.in_channels, layer.out_channels, w.shape[2:], *how)
            layers.append(_filled(conv, w, layer.bias))
        else:
            raise TypeError(f"no PyTorch twin for {layer}")
    return torch.nn.Sequential(*layers)


def _filled(layer: Any, weight: np.ndarray, bias: Any) -> Any:
    import torch

    layer.weight = torch.nn.Parameter(torch.tensor(np.ascontiguousarray(weight)))
    layer.bias = torch.nn.Parameter(torch.tensor(bias.detach().numpy().copy()))
    return layer


def _ToNHWC() -> Any:
    import torch

    class ToNHWC(torch.nn.Module):
        """Images in minidl's order before they are flattened; vectors as they are."""

        def forward(self, x: Any) -> Any:
            return x.permute(0, 2, 3, 1) if x.ndim == 4 else x

    return ToNHWC()


def nchw(x: np.ndarray) -> Any:
    """Images for PyTorch."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
