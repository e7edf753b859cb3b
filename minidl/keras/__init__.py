"""Keras's way to say it: Sequential, Model, compile, fit, evaluate, predict. Images (N, H, W, C).

    from minidl import keras
    from minidl.keras import layers

    model = keras.Sequential([
        keras.Input((28, 28, 1)),
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x_train, y_train, batch_size=128, epochs=3, validation_split=0.1)

A front, not a second engine: layers are Modules, a fit is minidl.train.fit. Names, arguments and
defaults are those of Keras 3.
"""

from . import (
    applications,
    callbacks,
    datasets,
    layers,
    losses,
    metrics,
    models,
    optimizers,
    utils,
)
from .layer import Input
from .model import Model, Sequential

__all__ = [
    "Input", "Model", "Sequential", "applications", "callbacks", "datasets", "layers", "losses",
    "metrics", "models", "optimizers", "utils",
]  # fmt: skip
