"""The second document's program, put right: pictures from a .npy file, and spoken digits.

    python examples/documents/s1_pictures_and_sounds.py             # digits that come with minidl
    python examples/documents/s1_pictures_and_sounds.py --sounds    # spoken ones, too
    python examples/documents/s1_pictures_and_sounds.py --quick

What was wrong with it, each of which minidl refuses or warns about:

- to_categorical got pictures; what becomes one-hot is their labels;
- TimeDistributed wraps a layer, not data, and knows no sample_rate: a spectrum does;
- Dense on (28, 28, 1) without Flatten gives (28, 28, 60), and is no convolution;
- a softmax, then a loss from_logits=True: it would take the softmax twice;
- sparse labels are whole numbers, one-hot ones go to CategoricalCrossentropy;
- train_on_batch takes no epochs; and who evaluates on what was learnt measures memory.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import minidl
from minidl import data, keras
from minidl.data import audio
from minidl.keras import layers
from minidl.keras.utils import to_categorical

BATCH, FRAMES = 32, 64


def pictures(folder):
    """Digits (N, 28, 28, 1) in [0, 1] and their labels, by way of .npy files as the document does.

    They are mapped into memory: what is not used is not read.
    """
    sets = []
    for split in ("train", "test"):
        digits = data.digits(split)
        np.save(folder / f"{split}.npy", digits.images)
        images = np.load(folder / f"{split}.npy", mmap_mode="r")
        sets.append((images.astype(np.float32) / 255, digits.labels))
    return sets


def sounds(split):
    """Spoken digits as log-mel spectra (N, FRAMES, 40), cut or filled up with silence."""
    recordings, spectra = data.fsdd(split), []
    for i in range(len(recordings)):
        spectrum = audio.log_mel(recordings[i][0], recordings.rate)
        spectrum = spectrum[:FRAMES] - spectrum.mean()
        spectra.append(np.pad(spectrum, ((0, FRAMES - len(spectrum)), (0, 0))))
    return np.stack(spectra).astype(np.float32), recordings.labels


def of_pictures():
    """Flatten, and two dense layers."""
    return keras.Sequential([
        layers.Flatten(input_shape=(28, 28, 1)),
        layers.Dense(32, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ])  # fmt: skip


def of_sounds():
    """The same dense layer at every time, then a recurrent one."""
    return keras.Sequential([
        keras.Input((FRAMES, 40)),
        layers.TimeDistributed(layers.Dense(32, activation="relu")),
        layers.GRU(64),
        layers.Dense(10, activation="softmax"),
    ])  # fmt: skip


def learn(name, model, train, test, epochs, seed):
    """Train batch by batch, as the document does, and evaluate on what was not learnt."""
    (x_train, labels), (x_test, test_labels) = train, test
    y_train, y_test = to_categorical(labels, 10), to_categorical(test_labels, 10)
    model.compile(
        optimizer="adam", loss=keras.losses.CategoricalCrossentropy(), metrics=["accuracy"]
    )
    order = np.random.default_rng(seed)
    for epoch in range(epochs):
        costs = []
        shuffled = order.permutation(len(x_train))
        for i in range(0, len(x_train), BATCH):
            some = shuffled[i : i + BATCH]
            costs.append(model.train_on_batch(x_train[some], y_train[some])[0])
        print(f"{name}: epoch {epoch + 1}, loss {np.mean(costs):.4f}")
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"{name}: {accuracy:.2%} of {len(x_test)} that were not learnt")
    return accuracy


def main():
    """Read the command line; learn pictures and, if asked, sounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, help="10, or 2 with --quick")
    parser.add_argument("--sounds", action="store_true", help="spoken digits (minidl.data.fsdd)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a part of the data, 2 epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/s1-pictures-and-sounds"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    epochs = args.epochs or (2 if args.quick else 10)

    tasks = {"pictures": (of_pictures, lambda: pictures(args.out))}
    if args.sounds:
        tasks["sounds"] = of_sounds, lambda: [sounds(split) for split in ("train", "test")]
    found = {"seed": args.seed}
    for name, (build, read) in tasks.items():
        minidl.manual_seed(args.seed)
        train, test = read()
        if args.quick:
            train = [part[::4] for part in train]
        found[name] = learn(name, build(), train, test, epochs, args.seed)
    (args.out / "result.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
