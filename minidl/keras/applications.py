"""keras.applications, as far as the documents use it: VGG16, with Keras's names of its layers."""

from typing import Any

from .. import check
from ..models.vgg import BLOCKS
from . import layers
from .model import Model


def VGG16(
    include_top: bool = True, weights: Any = None, input_tensor: Any = None,
    input_shape: Any = None, pooling: str | None = None, classes: int = 1000, name: str = "vgg16",
) -> Model:  # fmt: skip
    """VGG16 (Simonyan and Zisserman 2015, column D), for images (N, H, W, 3).

    include_top=False ends after the last pool: (N, H / 32, W / 32, 512), or with pooling="avg" in
    the means (N, 512). weights: None, for random ones, or the path of a file, such as Keras's own
    vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5; minidl brings none that are trained.
    """
    if weights == "imagenet":
        raise ValueError("VGG16: weights is None, or the path of Keras's .h5 file of weights")
    check.known("pooling", str(pooling), ("None", "avg"))
    size = 224 if include_top else None
    start = layers.Input(input_shape or (size, size, 3)) if input_tensor is None else input_tensor
    x = start
    for block, (filters, count) in enumerate(BLOCKS, 1):
        for i in range(1, count + 1):
            conv = f"block{block}_conv{i}"
            x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=conv)(x)
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    if include_top:
        x = layers.Flatten(name="flatten")(x)
        x = layers.Dense(4096, "relu", name="fc1")(x)
        x = layers.Dense(4096, "relu", name="fc2")(x)
        x = layers.Dense(classes, "softmax", name="predictions")(x)
    elif pooling == "avg":
        x = layers.GlobalAveragePooling2D()(x)
    model = Model(start, x, name=name)
    if weights is not None:
        model.load_weights(weights)
    return model
