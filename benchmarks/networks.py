"""The networks that benchmarks train, in minidl, and as plain data for other frameworks."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import minidl
from minidl import Tensor, models, nn, optim
from minidl.kernels import shapes


@dataclass(frozen=True)
class Recipe:
    """One of the documents' three networks with its data set and its optimizer."""

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


@dataclass(frozen=True)
class Case:
    """A network, the size of its batches, and its optimizer."""

    make: Callable[[], nn.Module]
    batch: int
    image: tuple[int, int, int]
    optimizer: str = "adam"
    lr: float = 1e-3  # small for the deep ones, so that rounding does not decide their losses
    momentum: float = 0.0

    def model(self) -> nn.Module:
        """The network, with the same initial weights every time.

        He's, which keep the size of the activations: with PyTorch's default those of VGG16 vanish,
        and its loss would be right whatever a convolution did.
        """
        minidl.manual_seed(0)
        model = self.make()
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        return model

    def optim(self, parameters: Any) -> optim.Optimizer:
        """Its optimizer in minidl."""
        if self.optimizer == "adam":
            return optim.Adam(parameters, lr=self.lr)
        return optim.SGD(parameters, lr=self.lr, momentum=self.momentum)


def vgg16(batch_norm: bool = False) -> nn.Sequential:
    """VGG16 for images 32 x 32 x 3, with dense layers of 512."""
    small = dict(input_shape=SMALL, classes=10, hidden=512, dropout=0.0)
    return models.VGG16(**small, batch_norm=batch_norm)


def mobilenet() -> nn.Sequential:
    """Half of MobileNet's channels, for images 32 x 32 x 3, with what every framework fuses."""
    small = dict(input_shape=SMALL, classes=10, alpha=0.5, stride=1, dropout=0.0)
    return models.MobileNet(**small, activation="relu", padding=1)


def resnet20() -> nn.Sequential:
    """ResNet-20 with convolutions for shortcuts."""
    return models.ResNet20(projection=True)


SMALL, GREY = (32, 32, 3), (28, 28, 1)
CASES = {
    "A64": Case(models.mnist_mlp, 64, GREY, "sgd", 0.01),
    "A256": Case(models.mnist_mlp, 256, GREY, "sgd", 0.01),
    "B32": Case(models.cifar10_cnn, 32, SMALL),
    "B128": Case(models.cifar10_cnn, 128, SMALL),
    "C128": Case(models.mnist_cnn, 128, GREY),
    "D32": Case(vgg16, 32, SMALL, lr=1e-4),
    "D32bn": Case(lambda: vgg16(batch_norm=True), 32, SMALL, lr=1e-4),
    "E32": Case(mobilenet, 32, SMALL, lr=1e-4),
    "F128": Case(resnet20, 128, SMALL, "sgd", 0.01, 0.9),
}


Layer = dict[str, Any]


def flat(model: nn.Module) -> Iterator[nn.Module]:
    """The layers of a network one after the other, also of a Sequential inside one."""
    for module in model if isinstance(model, nn.Sequential) else [model]:
        yield from flat(module) if isinstance(module, nn.Sequential) else [module]


def describe(model: nn.Module, image: tuple[int, ...]) -> list[Layer]:
    """A network as plain data: each layer's kind, weights and numbers, and the `shape` it returns.

    image: the shape of what goes in, without the batch.
    """
    layers: list[Layer] = []
    for module in flat(model):
        layers.append({"kind": type(module).__name__} | _told(module, tuple(image)))
        image = layers[-1]["shape"]
    return layers


def _told(module: nn.Module, of: tuple[int, ...]) -> Layer:
    """What a layer holds, and the shape that it makes of an image's."""
    match module:
        case nn.Conv2d() | nn.DepthwiseConv2d():  # the latter as every framework's grouped one
            w, stride, dilation = _array(module.weight), module.stride, module.dilation
            w = w if isinstance(module, nn.Conv2d) else w.reshape(*w.shape[:2], 1, -1)
            size = shapes.extent(w.shape[:2], dilation)
            pad = shapes.padding(module.padding, of[:2], size, stride)
            told = {"kind": "Conv2d", "weight": w, "bias": _array(module.bias), "stride": stride}
            told |= {"padding": pad, "dilation": dilation, "groups": of[2] // w.shape[2]}
            return told | {"shape": shapes.conv2d((1, *of), w.shape, stride, pad, dilation)[1:]}
        case nn.Linear():
            told = {"weight": _array(module.weight), "bias": _array(module.bias)}
            return told | {"shape": (module.out_features,)}
        case nn.BatchNorm2d():
            told = {"weight": _array(module.weight), "bias": _array(module.bias)}
            return told | {"eps": module.eps, "momentum": module.momentum, "shape": of}
        case nn.MaxPool2d():
            size, stride = module.kernel_size, module.stride
            pad = shapes.padding(module.padding, of[:2], size, stride)
            shape = shapes.pool2d((1, *of), size, stride, pad)[1:]
            return {"size": size, "stride": stride, "padding": pad, "shape": shape}
        case nn.Dropout():
            return {"p": module.p, "shape": of}
        case nn.Flatten():
            return {"of": of, "shape": (math.prod(of),)}
        case nn.ReLU():
            return {"shape": of}
        case nn.GlobalAvgPool2d():
            return {"shape": of[-1:]}
        case models.BasicBlock():
            parts = module.conv1, module.bn1, nn.ReLU(), module.conv2, module.bn2
            body = describe(nn.Sequential(*parts), of)
            shortcut = describe(module.downsample or nn.Sequential(), of)
            told = {"kind": "Residual", "body": body, "shortcut": shortcut}
            return told | {"shape": body[-1]["shape"]}
    raise TypeError(f"no description of {module}")


def _array(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().numpy().copy()


def operations(layers: list[Layer]) -> int:
    """Multiplications and additions of products and convolutions, forward, for one image."""
    total = 0
    for layer in layers:
        if layer["kind"] == "Residual":
            total += operations(layer["body"]) + operations(layer["shortcut"])
        elif layer["kind"] in ("Conv2d", "Linear"):
            w = layer["weight"]  # (KH, KW, C, F) or (I, O)
            total += 2 * math.prod(layer["shape"]) * math.prod(w.shape[:-1])
    return total


def step_operations(layers: list[Layer]) -> int:
    """The same of a training step: backward costs twice forward, but the images get no gradient."""
    first = next(layer for layer in layers if layer["kind"] in ("Conv2d", "Linear"))
    return 3 * operations(layers) - operations([first])


def to_torch(model: nn.Module, image: tuple[int, ...]) -> Any:
    """The same network in PyTorch, images (N, C, H, W), with the same weights."""
    from .workers import in_torch

    return in_torch.network(describe(model, image))


def nchw(x: np.ndarray) -> Any:
    """Images for PyTorch."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
