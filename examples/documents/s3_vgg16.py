"""The fourth document's program, put right: VGG16 without its top, a new head, MNIST, one file.

    python examples/documents/s3_vgg16.py --gpustat=on --model_file=your_model.h5 --batch_size=64
    python examples/documents/s3_vgg16.py --weights vgg16_notop.h5
    python examples/documents/s3_vgg16.py --quick

What was wrong with it: a symbolic output has no flatten(), Flatten is a layer; a convolution cannot
follow it; layers[-2].output is a tensor, not something to call; MNIST is grey, 28 x 28, and was
loaded twice, but VGG16 wants three channels and at least 32 x 32; fit was given no labels, and
evaluate has no epochs. Where --weights names a file of trained weights, the base is frozen, and the
head alone learns. Without, all of it does: frozen random layers tell hardly one digit from another.
"""

import json
import sys
from pathlib import Path

import numpy as np

from minidl import keras
from minidl.cli import script
from minidl.energy import GpuStat
from minidl.keras.layers import Dense, Flatten
from minidl.keras.optimizers import Adam


def pictures(images):
    """Digits (N, 28, 28) as VGG16 takes them: (N, 32, 32, 3), from 0 to 1."""
    framed = np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None]
    return framed.repeat(3, axis=3).astype(np.float32) / 255


def network(weights):
    """VGG16, frozen where it has learnt before, and two dense layers."""
    base = keras.applications.VGG16(include_top=False, weights=weights, input_shape=(32, 32, 3))
    base.trainable = not weights
    for layer in [] if weights else base.layers:
        # Keras's (Glorot's) halve the variance in each layer that ends in relu; He's keep it
        layer.set_weights([2**0.5 * weight for weight in layer.get_weights()])
    x = Flatten()(base.output)
    x = Dense(128, activation="relu")(x)
    model = keras.Model(inputs=base.input, outputs=Dense(10, activation="softmax")(x))
    model.compile(Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main():
    """Train the head, evaluate, and keep the network in the file that the command line names."""
    quick = "--quick" in sys.argv
    words = [word for word in sys.argv[1:] if word != "--quick"]
    run = script(__doc__.splitlines()[0] + " --quick: few pictures.", words, weights="")
    read = keras.datasets.digits if quick else keras.datasets.mnist
    (x_train, y_train), (x_test, y_test) = read.load_data()
    few = slice(0, 400 if quick else 5000)
    x_train, y_train, x_test, y_test = x_train[few], y_train[few], x_test[few], y_test[few]

    file = Path(run.model_file) if run.model_file else None
    found = file is not None and file.exists()
    model = keras.models.load_model(file) if found else network(run.weights or None)
    model.fit(
        pictures(x_train), y_train, batch_size=run.batch_size, epochs=run.num_epochs, verbose=2,
        callbacks=[GpuStat()] if run.gpustat == "on" else [],
    )  # fmt: skip
    loss, accuracy = model.evaluate(pictures(x_test), y_test, verbose=0)
    print(f"Model accuracy: {accuracy:.2%} of {len(x_test)} test pictures, loss {loss:.4f}")
    if file:
        model.save(file)
    print(json.dumps({"epochs": run.num_epochs, "test_accuracy": accuracy}))


if __name__ == "__main__":
    main()
