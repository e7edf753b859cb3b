"""Callbacks by Keras's names and arguments. Those of minidl.callbacks are welcome, too."""

from typing import Any

from .. import callbacks, check, optim
from ..train import Callback as Plain
from ..train import History as Record

CSVLogger = callbacks.CSVLogger


class Callback:
    """Something for fit to call: on_train_begin(logs), on_epoch_end(epoch, logs) ... Epochs from 0.

    self.model is the network, self.params what fit was told; self.model.stop_training = True ends
    the training after this epoch.
    """

    model: Any = None
    params: dict[str, Any]

    def set_model(self, model: Any) -> None:
        """Note the network."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Note what fit was told."""
        self.params = params

    def __getattr__(self, name: str) -> Any:
        """What a subclass does not define does nothing."""
        if not name.startswith("on_"):
            raise AttributeError(f"{type(self).__name__} has no {name!r}", name=name)
        return lambda *given: None


class History(Record):
    """What fit returns: history, a list per quantity with an entry per epoch, and epoch."""

    history = property(lambda self: dict(self), doc="A list per quantity.")
    epoch = property(lambda self: list(range(self.epochs)), doc="The epochs, counted from 0.")

    def plot(self, title: str = "") -> Any:
        """Loss and accuracy per epoch, training and validation: a Matplotlib figure."""
        from .. import plot

        return plot.curves(self, title)


class EarlyStopping(callbacks.EarlyStopping):
    """Ends the training when for `patience` epochs in a row nothing became better."""

    def __init__(
        self, monitor: str = "val_loss", min_delta: float = 0.0, patience: int = 0,
        verbose: int = 0, mode: str = "auto", restore_best_weights: bool = False,
    ):  # fmt: skip
        patience, verbose = max(patience, 1), bool(verbose)
        super().__init__(monitor, abs(min_delta), patience, mode, restore_best_weights, verbose)


class ModelCheckpoint(callbacks.Monitor):
    """Saves the network after each epoch, or (save_best_only) where it is the best so far.

    filepath may hold {epoch:02d}, from 1, and the names of what is measured: {val_loss:.2f}.
    """

    def __init__(
        self, filepath: Any, monitor: str = "val_loss", verbose: int = 0,
        save_best_only: bool = False, save_weights_only: bool = False, mode: str = "auto",
    ):  # fmt: skip
        super().__init__(monitor, mode)
        self.filepath, self.verbose = str(filepath), verbose
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only

    def on_epoch_end(self, model: Any, history: Record) -> None:
        """Save it, if it is time."""
        if self.save_best_only and self.since_best(history):
            return
        now = {name: values[-1] for name, values in history.items()}
        path = self.filepath.format(epoch=history.epochs, **now)
        (model.save_weights if self.save_weights_only else model.save)(path)
        if self.verbose:
            print(f"Epoch {history.epochs}: saved to {path}")


class ReduceLROnPlateau(Callback):
    """Multiplies the learning rate by factor where `patience` epochs brought nothing better."""

    def __init__(
        self, monitor: str = "val_loss", factor: float = 0.1, patience: int = 10, verbose: int = 0,
        mode: str = "auto", min_delta: float = 1e-4, cooldown: int = 0, min_lr: float = 0.0,
    ):  # fmt: skip
        self.monitor, self.verbose = monitor, verbose
        # PyTorch's patience and cooldown, which optim's has, end an epoch later than Keras's
        self.options = dict(
            mode=callbacks.sense(monitor, mode), factor=factor, patience=max(patience, 1) - 1,
            threshold=min_delta, threshold_mode="abs", cooldown=max(cooldown - 1, 0),
            min_lr=min_lr, eps=0.0,
        )  # fmt: skip

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin anew."""
        self.schedule = optim.ReduceLROnPlateau(self.model.optimizer.inner, **self.options)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Note an epoch's number, and reduce the rate if it is time."""
        optimizer = self.model.optimizer
        before = logs["learning_rate"] = optimizer.learning_rate
        check.known("quantity for ReduceLROnPlateau to monitor", self.monitor, logs)
        self.schedule.step(logs[self.monitor])
        if self.verbose and optimizer.learning_rate < before:
            print(f"Epoch {epoch + 1}: the learning rate falls to {optimizer.learning_rate:g}")


def checked(given: Any) -> list[Any]:
    """The callbacks of a fit; TypeError for what is none."""
    for callback in given or []:
        if not isinstance(callback, Callback | Plain):
            hint = f": write {callback.__name__}()" if isinstance(callback, type) else ""
            raise TypeError(f"fit: {callback!r} is no callback{hint}")
    return list(given or [])
