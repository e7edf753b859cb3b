"""Small networks written for Keras, which run on minidl.keras and on Keras itself.

What Keras 3.15.1 on JAX says of them stands in test_keras.py. It was made by

    KERAS_BACKEND=jax python tests/keras_networks.py

in an environment with Keras and JAX; minidl needs neither.
"""

import numpy as np


def wave(*shape, start=0.0):
    """Numbers from -1 to 1 that are the same everywhere."""
    return np.sin(start + 1.7 * np.arange(np.prod(shape))).reshape(shape).astype("float32")


def convnet(keras):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((10, 10, 2)),
            layers.Conv2D(4, (3, 3), activation="relu", padding="same"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(6, kernel_size=3, activation="relu"),
            layers.MaxPooling2D(pool_size=2, padding="same"),
            layers.Flatten(),
            layers.Dropout(0.0),
            layers.Dense(5, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, wave(12, 10, 10, 2), np.arange(12) % 5, None


def separable(keras):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((9, 9, 3)),
            layers.SeparableConv2D(4, 3, strides=2, padding="same", depth_multiplier=2),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(max_value=6.0),
            layers.DepthwiseConv2D(3, depth_multiplier=2, activation="tanh", padding="same"),
            layers.AveragePooling2D(2, padding="same"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    optimizer = keras.optimizers.SGD(learning_rate=0.1, momentum=0.9, nesterov=True)
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy", "mse"])
    return model, wave(8, 9, 9, 3), (np.arange(8) % 3 == 0).astype("float32"), None


def residual(keras):
    layers = keras.layers
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, dilation_rate=2)(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    y = layers.Conv2D(4, 1, activation="elu")(x)
    x = layers.Add()([x, y])
    x = layers.Concatenate()([x, inputs])
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile(keras.optimizers.Adam(0.01, epsilon=1e-3), loss, metrics=["accuracy"])
    return model, wave(10, 6, 6, 3), keras.utils.to_categorical(np.arange(10) % 3, 3), None


def sequences(keras):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(11, 4),
            layers.TimeDistributed(layers.Dense(3, activation="gelu")),
            layers.Reshape((18,)),
            layers.Dense(4, activation="swish"),
            layers.Dense(2),
        ]
    )
    model.compile(keras.optimizers.Adagrad(0.05), "mean_squared_error", metrics=["mae"])
    x = (np.arange(8 * 6) * 7 % 11).reshape(8, 6)
    return model, x, wave(8, 2, start=1.0), np.linspace(0.5, 2, 8).astype("float32")


NETWORKS = {f.__name__: f for f in (convnet, separable, residual, sequences)}


def values(keras, name, reset=lambda model: None):
    """Losses of three steps, then evaluate, and what predict says before and after."""
    model, x, y, weights = NETWORKS[name](keras)
    model.set_weights(
        [
            # a variance is positive
            np.abs(a) + 0.5 if "moving_var" in path or "gamma" in path else a
            for path, a in (
                (path, 0.5 * wave(*shape, start=i) if shape else 0)
                for i, (path, shape) in enumerate(shapes(model))
            )
        ]
    )
    before, losses = model.predict(x, verbose=0), []
    for _ in range(3):
        reset(model)
        losses.append(model.train_on_batch(x, y, sample_weight=weights, return_dict=True)["loss"])
    measured = model.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    after = model.predict(x, verbose=0)
    return {
        "before": np.asarray(before, float).ravel()[:4].tolist(),
        "losses": [float(loss) for loss in losses],
        "measured": {key: float(value) for key, value in measured.items()},
        "after": np.asarray(after, float).ravel()[:4].tolist(),
    }


def shapes(model):
    """The name and shape of each weight, in order."""
    for layer in model.layers:
        for i, a in enumerate(layer.get_weights()):
            norm = type(layer).__name__ == "BatchNormalization"
            yield (["gamma", "beta", "moving_mean", "moving_var"][i] if norm else ""), a.shape


if __name__ == "__main__":
    import keras

    print({name: values(keras, name, lambda model: model.reset_metrics()) for name in NETWORKS})
