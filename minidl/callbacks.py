"""What `fit` may call after every epoch: stop early, keep the best weights, write logs.

    fit(model, loader, epochs=50, validation=test, callbacks=[
        EarlyStopping(patience=5),
        ModelCheckpoint("best.safetensors"),
        CSVLogger("run.csv"),
    ])

What they do follows from the history, so that a run that goes on with the history of an earlier one
goes on with them too.
"""

import csv
import io as text
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import check, io
from .nn import Module
from .train import Callback, History

__all__ = ["CSVLogger", "Callback", "EarlyStopping", "JSONLLogger", "ModelCheckpoint"]


def sense(monitor: str, mode: str) -> str:
    """Whether less ("min") or more ("max") of a quantity is better; "auto": of accuracies more."""
    check.known("mode", mode, ("auto", "min", "max"))
    return mode if mode != "auto" else "max" if "acc" in monitor else "min"


class Monitor(Callback):
    """Watches one quantity of the history, of which less is better, or with mode "max" more.

    mode "auto": more of accuracies, less of all else.
    """

    def __init__(self, monitor: str = "val_loss", mode: str = "min", min_delta: float = 0.0):
        mode = sense(monitor, mode)
        if not min_delta >= 0:
            raise ValueError(f"{type(self).__name__}: min_delta is {min_delta}, must be at least 0")
        self.monitor, self.mode, self.min_delta = monitor, mode, min_delta

    def since_best(self, history: History) -> int:
        """How many epochs ago the best value was: 0 in the epoch that has it.

        Better is what beats the best before by more than min_delta. NaN is never better.
        """
        check.known(f"quantity for {type(self).__name__} to monitor", self.monitor, history)
        sign = 1 if self.mode == "min" else -1
        best, at, values = math.inf, 0, history[self.monitor]
        for i, value in enumerate(values):
            if sign * value < best - self.min_delta:
                best, at = sign * value, i
        return len(values) - 1 - at


class EarlyStopping(Monitor):
    """Ends the training when for `patience` epochs in a row nothing became better.

    restore_best_weights: the model gets those of the best epoch when fit ends, stopped or not. In a
    checkpoint (it has a state_dict) they are kept for a run that goes on later. verbose: say so on
    stderr when it stops.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 3,
        mode: str = "min",
        restore_best_weights: bool = False,
        verbose: bool = False,
    ):
        super().__init__(monitor, mode, min_delta)
        if patience < 1:
            raise ValueError(f"EarlyStopping: patience is {patience}, but must be at least 1")
        self.patience, self.restore_best_weights = patience, restore_best_weights
        self.verbose = verbose
        self.weights: Mapping[str, Any] = {}

    def on_epoch_end(self, model: Module, history: History) -> bool:
        """Whether it is time to stop."""
        ago = self.since_best(history)
        if self.restore_best_weights and not ago:
            self.weights = model.state_dict()
        if self.verbose and ago >= self.patience:
            best = f"the best {self.monitor} was in epoch {history.epochs - ago}"
            print(f"stopped after epoch {history.epochs}: {best}", file=sys.stderr)
        return ago >= self.patience

    def on_train_end(self, model: Module, history: History) -> None:
        """Bring back the best weights."""
        if self.weights:
            model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """The best weights so far."""
        return {"weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what state_dict returned."""
        self.weights = state["weights"]


class ModelCheckpoint(Monitor):
    """Writes the model to a file whenever it is the best so far, whole or not at all.

    minidl.load reads it. With parts (optimizer, loader ...) it is a whole training state, of
    `model`, `history` and those, for minidl.io.load_checkpoint.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        monitor: str = "val_loss",
        mode: str = "min",
        **parts: Any,
    ):
        super().__init__(monitor, mode)
        self.path, self.parts = path, parts

    def on_epoch_end(self, model: Module, history: History) -> None:
        """Write the model if it is the best so far."""
        if self.since_best(history):
            return
        if self.parts:
            io.save_checkpoint(self.path, model=model, history=history, **self.parts)
        else:
            io.save(model, self.path)


class Logger(Callback):
    """Appends a line to a file after every epoch, and brings it down to the disk.

    A file that is there belongs to an earlier part of the same run: of its lines those of epochs
    before the first new one stay, so that the file tells what the history tells.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.written = 0  # the last epoch that this object has written

    def on_epoch_end(self, model: Module, history: History) -> None:
        """Append a line."""
        epoch = history.epochs
        row = {"epoch": epoch} | {name: values[-1] for name, values in history.items()}
        if self.written != epoch - 1 or not self.written or not self.path.exists():
            self.begin(epoch, row)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(self.line(row))
            file.flush()
            os.fsync(file.fileno())
        self.written = epoch

    def begin(self, epoch: int, row: Mapping[str, Any]) -> None:
        """Leave of the file what came before an epoch."""
        raise NotImplementedError(f"{type(self).__name__} does not define begin")

    def line(self, row: Mapping[str, Any]) -> str:
        """A row as a line of the file."""
        raise NotImplementedError(f"{type(self).__name__} does not define line")

    def keep(self, lines: list[str], epoch: int, epoch_of: Callable[[str], int]) -> list[str]:
        """The lines of epochs before this one; one that a crash cut short is left out."""
        kept = []
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                break
            try:
                if epoch_of(line) < epoch:
                    kept.append(line)
            except (ValueError, TypeError, LookupError) as error:
                raise ValueError(f"{self.path}: line {number} is not of a log: {line!r}") from error
        return kept

    def lines(self) -> list[str]:
        """What is in the file now."""
        return self.path.read_text("utf-8").splitlines(True) if self.path.exists() else []


class CSVLogger(Logger):
    """A table: a line of names, then a line of numbers per epoch."""

    def begin(self, epoch: int, row: Mapping[str, Any]) -> None:
        """The names, and the lines of epochs before; ValueError for a table of other columns."""
        names, old = _csv(row), self.lines()
        kept = self.keep(old[1:], epoch, lambda line: int(line.split(",")[0])) if epoch > 1 else []
        if kept and old[0] != names:
            raise ValueError(
                f"{self.path}: has the columns {old[0].strip()}, but now there are {names.strip()}"
            )
        io.write(self.path, "".join([names, *kept]).encode())

    def line(self, row: Mapping[str, Any]) -> str:
        """All digits of every number."""
        return _csv(row.values())


class JSONLLogger(Logger):
    """A JSON object per epoch and line. What is not finite, which JSON cannot say, is null."""

    def begin(self, epoch: int, row: Mapping[str, Any]) -> None:
        """The lines of epochs before."""
        old = self.lines() if epoch > 1 else []
        kept = self.keep(old, epoch, lambda line: json.loads(line)["epoch"])
        io.write(self.path, "".join(kept).encode())

    def line(self, row: Mapping[str, Any]) -> str:
        """All digits of every number."""
        finite = {name: v if math.isfinite(v) else None for name, v in row.items()}
        return json.dumps(finite) + "\n"


def _csv(values: Any) -> str:
    line = text.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()
