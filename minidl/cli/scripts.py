"""Command lines for scripts of a few lines: where the model is, how long to train, what to tell.

    run = script(lr=0.1)
    model = run.model(models.mnist_mlp)
    run.fit(model, data.digits("train"), data.digits("test"), optimizer="sgd", lr=run.lr)

Saved as train.py, that is

    python train.py --gpustat=on --model_file=digits.safetensors --batch_size=32 --num_epochs=3

"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import io
from ..backend import device
from ..data import DataLoader
from ..energy import GpuStat
from ..nn import Module
from ..random import manual_seed
from ..train import Callback, History, fit
from . import _COUNT, _SEED


class Script(argparse.Namespace):
    """The flags of a script's command line, as attributes, and what they say is to be done.

    model_file: where the network comes from, if the file is there, and where it goes; None: it is
    not kept. gpustat: whether ("on") to tell of the GPU after each epoch.
    """

    model_file: str | None
    batch_size: int
    num_epochs: int
    device: str
    seed: int
    gpustat: str

    def model(self, build: Callable[[], Module]) -> Module:
        """The network that build makes, on the device.

        With the weights of model_file if that is there; ValueError where they are of another one.
        """
        manual_seed(self.seed)
        network = build()
        if self.model_file and Path(self.model_file).exists():
            network = io.load(self.model_file, network)
            print(f"goes on with {self.model_file}")
        return network.to(self.device)

    def fit(
        self,
        model: Module,
        train: Any,
        validation: Any = None,
        *,
        transform: Any = None,
        callbacks: Sequence[Any] = (),
        **options: Any,
    ) -> History:
        """Train on a data set for num_epochs, in shuffled batches of batch_size; then save.

        transform: of the images of both sets, as DataLoader takes it. options: as of
        minidl.train.fit. The model is saved after every epoch, so that none is lost.
        """
        loader = DataLoader(train, self.batch_size, True, seed=self.seed, transform=transform)
        if validation is not None:
            validation = DataLoader(validation, 256, transform=transform)
        told = [GpuStat()] if self.gpustat == "on" else []
        kept = [Saver(self.model_file)] if self.model_file else []
        return fit(
            model, loader, epochs=self.num_epochs, validation=validation,
            callbacks=[*told, *callbacks, *kept], **options,
        )  # fmt: skip


class Saver(Callback):
    """Writes the model to a file after every epoch, whole or not at all."""

    def __init__(self, path: str):
        self.path = path

    def on_epoch_end(self, model: Module, history: History) -> None:
        """Write it."""
        io.save(model, self.path)


def script(
    description: str = "", argv: Sequence[str] | None = None, **numbers: float | int | str
) -> Script:
    """Read a script's command line.

    --model_file, --batch_size, --num_epochs, --device, --seed, --gpustat, each with _ or -.
    numbers: flags of the script's own and their defaults, whose type they have: script(lr=0.1)
    takes --lr. argv: the arguments, by default the process's. A wrong one ends the process with a
    line that says what is wrong.
    """
    parser = argparse.ArgumentParser(description=description or None)

    def flag(name: str, **options: Any) -> None:
        spelled = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
        parser.add_argument(*spelled, dest=name, **options)

    flag("model_file", metavar="FILE", help="the network's file: read if it is there, and written")
    flag("batch_size", type=_COUNT, default=32, metavar="N", help="default 32")
    flag("num_epochs", type=_COUNT, default=1, metavar="N", help="default 1")
    flag("device", default="cpu", help="cpu (default) or cuda")
    flag("seed", type=_SEED, default=0, metavar="N", help="default 0")
    flag("gpustat", choices=("on", "off"), default="off", nargs="?", const="on",
         help="tell after each epoch how busy the GPU was")  # fmt: skip
    for name, value in numbers.items():
        flag(name, type=type(value), default=value, help=f"default {value}")
    read = parser.parse_args(argv, Script())
    device(read.device)  # what is wrong with it is said before anything is loaded
    return read
