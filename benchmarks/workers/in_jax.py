"""Training steps in JAX: forward, backward and update in one jit, buffers donated."""

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
from jax import lax

from .task import Task

VERSIONS = {"jax": jax.__version__}
IMAGES = ("NHWC", "HWIO", "NHWC")


def weights(layers: list[dict[str, Any]]) -> list[Any]:
    """All trained arrays, in the order in which apply takes them."""
    found: list[Any] = []
    for layer in layers:
        if layer["kind"] == "Residual":
            found += weights(layer["body"]) + weights(layer["shortcut"])
        found += [layer[n] for n in ("weight", "bias") if layer.get(n) is not None]
    return found


def apply(layers: list[dict[str, Any]], given: Iterator[Any], x: Any) -> Any:
    """The output of layers; given yields their weights."""
    for layer in layers:
        match layer["kind"]:
            case "Residual":
                body = apply(layer["body"], given, x)
                x = jax.nn.relu(body + apply(layer["shortcut"], given, x))
            case "Conv2d":
                x = lax.conv_general_dilated(
                    x, next(given), layer["stride"], layer["padding"], None, layer["dilation"],
                    dimension_numbers=IMAGES, feature_group_count=layer["groups"],
                )  # fmt: skip
                x = x if layer["bias"] is None else x + next(given)
            case "Linear":
                x = x @ next(given)
                x = x if layer["bias"] is None else x + next(given)
            case "BatchNorm2d":
                centred = x - x.mean((0, 1, 2))
                scale = lax.rsqrt(jnp.square(centred).mean((0, 1, 2)) + layer["eps"])
                x = centred * (scale * next(given)) + next(given)
            case "MaxPool2d":
                size, stride = (1, *layer["size"], 1), (1, *layer["stride"], 1)
                x = lax.reduce_window(x, -jnp.inf, lax.max, size, stride, "VALID")
            case "ReLU":
                x = jax.nn.relu(x)
            case "Flatten":
                x = x.reshape(len(x), -1)
            case "GlobalAvgPool2d":
                x = x.mean((1, 2))
            case kind:
                raise ValueError(f"JAX has no {kind} here")
    return x


def start(task: Task, variant: str) -> Callable[[int], float]:
    """step(i) trains on batch i and returns its loss."""
    x, y = [jnp.asarray(a) for a in task["x"]], [jnp.asarray(a) for a in task["y"]]
    lr, momentum, adam = task["lr"], task["momentum"], task["optimizer"] == "adam"

    def loss_of(p: list[Any], x: Any, y: Any) -> Any:
        logits = apply(task["layers"], iter(p), x)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def train(p: list[Any], m: list[Any], v: list[Any], t: Any, x: Any, y: Any) -> Any:
        loss, g = jax.value_and_grad(loss_of)(p, x, y)
        if adam:
            m = [0.9 * a + 0.1 * b for a, b in zip(m, g)]
            v = [0.999 * a + 0.001 * b * b for a, b in zip(v, g)]
            first, second = 1 - 0.9**t, 1 - 0.999**t
            change = [(a / first) / (jnp.sqrt(b / second) + 1e-8) for a, b in zip(m, v)]
        elif momentum:
            m = change = [momentum * a + b for a, b in zip(m, g)]
        else:
            change = g
        return [a - lr * b for a, b in zip(p, change)], m, v, loss

    p = [jnp.asarray(a) for a in weights(task["layers"])]
    state = [p, [a * 0 for a in p] if adam or momentum else [], [a * 0 for a in p] if adam else []]

    def step(i: int) -> float:
        *state[:], loss = train(*state, jnp.float32(i + 1), x[i % len(x)], y[i % len(y)])
        return float(loss)

    return step
