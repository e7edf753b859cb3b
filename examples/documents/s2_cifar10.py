"""The third document's program, put right: the CIFAR-10 network, in Keras's words.

    minidl data fetch cifar10
    python examples/documents/s2_cifar10.py
    python examples/documents/s2_cifar10.py --quick     # 2,000 pictures, 2 epochs

What was wrong with it: the data sets have no `.train.images`, load_data() gives them; pixels went
in as 0 to 255; there was no Flatten before Dense; and no optimizer is called "nvq".
"""

import argparse
import json
from pathlib import Path

import minidl
from minidl import keras, plot


def network():
    """Two convolutions and two dense layers: 167,562 parameters."""
    model = keras.models.Sequential()
    model.add(keras.layers.Conv2D(32, (3, 3), activation="relu", input_shape=(32, 32, 3)))
    model.add(keras.layers.MaxPooling2D((2, 2)))
    model.add(keras.layers.Conv2D(64, (3, 3), activation="relu"))
    model.add(keras.layers.MaxPooling2D((2, 2)))
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(64, activation="relu"))
    model.add(keras.layers.Dense(10, activation="softmax"))
    return model


def main():
    """Train, evaluate, predict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, help="10, or 2 with --quick")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="2,000 pictures, 2 epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/s2-cifar10"))
    args = parser.parse_args()
    minidl.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)

    (train_images, train_labels), (test_images, test_labels) = keras.datasets.cifar10.load_data()
    train_images, test_images = train_images / 255.0, test_images / 255.0
    if args.quick:
        train_images, train_labels = train_images[:2000], train_labels[:2000]
        test_images, test_labels = test_images[:500], test_labels[:500]

    model = network()
    model.summary()
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(
        train_images, train_labels, epochs=args.epochs or (2 if args.quick else 10),
        validation_data=(test_images, test_labels), verbose=2,
    )  # fmt: skip
    test_loss, test_acc = model.evaluate(test_images, test_labels, verbose=0)
    print(f"test loss {test_loss:.4f}, test accuracy {test_acc:.2%}")

    guesses = model.predict(test_images[:8], verbose=0).argmax(axis=1)
    print("the first eight:", *guesses, "in truth", *test_labels[:8, 0])
    (args.out / "curves.png").write_bytes(plot.png(history.plot("CIFAR-10")))
    model.save(args.out / "model.safetensors")
    result = {"seed": args.seed, "test_accuracy": test_acc, "history": history.history}
    (args.out / "result.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
