"""Training steps in Keras 3 on TensorFlow: one tf.function, as model.fit makes it."""

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import tensorflow as tf
from keras import layers as kl

from .task import Task

VERSIONS = {"keras": keras.__version__, "tensorflow": tf.__version__}
NO_PADDING = [[0, 0], [0, 0]]


def apply(layers: list[dict[str, Any]], x: Any, filled: list[tuple[Any, list[Any]]]) -> Any:
    """The output of layers, given x; filled gets each layer with its weights."""
    for layer in layers:
        match layer["kind"]:
            case "Residual":
                body = apply(layer["body"], x, filled)
                x = kl.ReLU()(kl.Add()([body, apply(layer["shortcut"], x, filled)]))
                continue
            case "Conv2d":
                made, weights, x = convolution(layer, x)
            case "Linear":
                weights = [layer["weight"], layer["bias"]]
                made = kl.Dense(layer["weight"].shape[1], use_bias=layer["bias"] is not None)
            case "BatchNorm2d":
                weights = [layer["weight"], layer["bias"]]
                made = kl.BatchNormalization(momentum=1 - layer["momentum"], epsilon=layer["eps"])
            case "MaxPool2d" if layer["padding"] == NO_PADDING:
                made, weights = kl.MaxPooling2D(layer["size"], layer["stride"]), []
            case "ReLU" | "Flatten":
                made, weights = getattr(kl, layer["kind"])(), []
            case "Dropout":
                made, weights = kl.Dropout(layer["p"]), []
            case "GlobalAvgPool2d":
                made, weights = kl.GlobalAveragePooling2D(), []
            case kind:
                raise ValueError(f"Keras has no {kind} here")
        x = made(x)
        filled.append((made, [w for w in weights if w is not None]))
    return x


def convolution(layer: dict[str, Any], x: Any) -> tuple[Any, list[Any], Any]:
    """A layer, its weights, and x, padded where no word of Keras's pads the same way."""
    w, padding, groups = layer["weight"], layer["padding"], layer["groups"]
    plain = layer["stride"] == layer["dilation"] == [1, 1]
    same = plain and padding == [[n // 2, n // 2] for n in w.shape[:2]]
    if not same and padding != NO_PADDING:
        x = kl.ZeroPadding2D(padding)(x)
    options = dict(
        strides=layer["stride"],
        dilation_rate=layer["dilation"],
        padding="same" if same else "valid",
        use_bias=layer["bias"] is not None,
    )
    if groups > 1 and groups == w.shape[3]:
        made = kl.DepthwiseConv2D(w.shape[:2], **options)
        w = w.transpose(0, 1, 3, 2)
    else:
        made = kl.Conv2D(w.shape[3], w.shape[:2], groups=groups, **options)
    return made, [w, layer["bias"]], x


def start(task: Task, variant: str) -> Callable[[int], float]:
    """step(i) trains on batch i and returns its loss."""
    if not tf.config.list_logical_devices("CPU"):
        raise RuntimeError("TensorFlow sees no CPU")
    filled: list[tuple[Any, list[Any]]] = []
    given = keras.Input(task["x"].shape[2:])
    model = keras.Model(given, apply(task["layers"], given, filled))
    for layer, weights in filled:
        if weights:  # moving statistics, if any, come after them
            layer.set_weights(weights + layer.get_weights()[len(weights) :])
    if task["optimizer"] == "adam":
        update = keras.optimizers.Adam(task["lr"], epsilon=1e-8)
    else:
        update = keras.optimizers.SGD(task["lr"], momentum=task["momentum"])
    x, y = [tf.constant(a) for a in task["x"]], [tf.constant(a) for a in task["y"]]

    @tf.function
    def train(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
            )
        weights = model.trainable_variables
        update.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    return lambda i: float(train(x[i % len(x)], y[i % len(y)]))
