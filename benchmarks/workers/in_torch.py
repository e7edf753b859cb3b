"""Training steps in PyTorch. Images are (N, C, H, W) in its own order, or channels_last."""

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from .task import Task

VERSIONS = {"torch": torch.__version__}


class Residual(nn.Module):
    """relu(body(x) + shortcut(x))."""

    def __init__(self, body: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (N, C, H, W) -> (N, F, OH, OW)."""
        return torch.relu(self.body(x) + self.shortcut(x))


class GlobalAvgPool(nn.Module):
    """The mean of each channel over the whole image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (N, C, H, W) -> (N, C)."""
        return x.mean((2, 3))


def network(layers: list[dict[str, Any]]) -> nn.Sequential:
    """The network that describe() wrote down, in (N, C, H, W) throughout.

    Flatten sees channels first, so the rows of the weight after it are put in that order.
    """
    modules: list[nn.Module] = []
    flattened: list[int] = []
    for layer in layers:
        if layer["kind"] == "Linear" and len(flattened) == 3:
            w = layer["weight"]
            w = w.reshape(*flattened, w.shape[1]).transpose(2, 0, 1, 3).reshape(w.shape)
            layer = layer | {"weight": w}
        flattened = layer["of"] if layer["kind"] == "Flatten" else []
        modules.append(module(layer))
    return nn.Sequential(*modules)


def module(layer: dict[str, Any]) -> nn.Module:
    """One layer."""
    match layer["kind"]:
        case "Conv2d":
            w, (top, left) = layer["weight"], _symmetric(layer["padding"])
            made = nn.Conv2d(
                w.shape[2] * layer["groups"], w.shape[3], w.shape[:2], layer["stride"],
                (top, left), layer["dilation"], layer["groups"], layer["bias"] is not None,
            )  # fmt: skip
            return _filled(made, weight=w.transpose(3, 2, 0, 1), bias=layer["bias"])
        case "Linear":
            w = layer["weight"]
            return _filled(nn.Linear(*w.shape), weight=w.T, bias=layer["bias"])
        case "BatchNorm2d":
            made = nn.BatchNorm2d(len(layer["weight"]), layer["eps"], layer["momentum"])
            made = _filled(made, weight=layer["weight"], bias=layer["bias"])
            return made.to(made.weight.dtype)  # its buffers
        case "ReLU":
            return nn.ReLU()
        case "MaxPool2d":
            return nn.MaxPool2d(layer["size"], layer["stride"], _symmetric(layer["padding"]))
        case "Dropout":
            return nn.Dropout(layer["p"])
        case "Flatten":
            return nn.Flatten()
        case "GlobalAvgPool2d":
            return GlobalAvgPool()
        case "Residual":
            return Residual(network(layer["body"]), network(layer["shortcut"]))
    raise ValueError(f"PyTorch has no {layer['kind']} here")


def _symmetric(padding: list[list[int]]) -> tuple[int, int]:
    (top, bottom), (left, right) = padding
    if top != bottom or left != right:
        raise ValueError(f"padding {padding}: PyTorch's layers pad both sides alike")
    return top, left


def _filled(made: Any, **arrays: np.ndarray | None) -> Any:
    for name, array in arrays.items():
        if array is not None:
            setattr(made, name, nn.Parameter(torch.tensor(np.ascontiguousarray(array))))
    return made


def images(x: np.ndarray, memory_format: torch.memory_format) -> torch.Tensor:
    """Images (N, H, W, C) for PyTorch, (N, C, H, W)."""
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=memory_format)


def optimizer(task: Task, parameters: Any, fused: bool | None = None) -> torch.optim.Optimizer:
    """The task's optimizer; fused None is PyTorch's default."""
    if task["optimizer"] == "adam":
        return torch.optim.Adam(parameters, lr=task["lr"], fused=fused)
    return torch.optim.SGD(parameters, lr=task["lr"], momentum=task["momentum"], fused=fused)


def start(task: Task, variant: str) -> Callable[[int], float]:
    """step(i) trains on batch i and returns its loss.

    variant: of "channels_last", "compile", "fused" and "bf16", those that apply, joined by "+".
    """
    chosen = variant.split("+")
    if "compile" in chosen and not (shutil.which("g++") or shutil.which("clang++")):
        raise RuntimeError("torch.compile needs a C++ compiler, and there is none")
    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    order = torch.channels_last if "channels_last" in chosen else torch.contiguous_format
    model = network(task["layers"]).to(memory_format=order)
    update = optimizer(task, model.parameters(), True if "fused" in chosen else None)
    x = [images(batch, order) for batch in task["x"]]
    y = [torch.from_numpy(labels) for labels in task["y"]]

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in chosen):
            return nn.functional.cross_entropy(model(x), y)

    forward = torch.compile(loss_of) if "compile" in chosen else loss_of

    def step(i: int) -> float:
        update.zero_grad()
        loss = forward(x[i % len(x)], y[i % len(y)])
        loss.backward()
        update.step()
        return loss.item()

    return step
