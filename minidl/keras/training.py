"""compile, fit, evaluate, predict and single steps, on top of minidl.train."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import train
from ..nn import Module
from ..nn import functional as F
from ..nn.module import evaluating
from ..tensor import Tensor
from . import callbacks as calls
from . import losses, metrics, optimizers
from .feeding import Batches, split
from .symbols import shape_of


class Learner(Module):
    """The network as minidl.train sees it: up to the logits, where the loss wants these."""

    def __init__(self, model: Any, logits: bool):
        self.model, self.logits = model, logits

    def forward(self, x: Any) -> Tensor:
        """The output for a batch."""
        return self.model(x, logits=True) if self.logits else self.model(x)


class Compiled:
    """What compile was told, and what follows from it for a network that has its weights."""

    def __init__(self, optimizer: Any, loss: Any, measured: Any, eager: bool):
        self.optimizer, self.loss = optimizers.get(optimizer), losses.get(loss)
        given = measured if isinstance(measured, list | tuple | None) else [measured]
        self.metrics, self.eager = [metrics.get(metric) for metric in given or []], eager
        self._step: Any = (None, None)

    def learner(self, model: Any) -> Learner:
        """The network to train; ValueError where its end and the loss do not fit."""
        if len(model.outputs) > 1:
            raise ValueError(f"{model.name}: only a network of one output can be trained")
        wants, ending, last = self.loss.wants, model.ends_in, model.last_layer()
        name = f"{type(self.loss).__name__}()"
        if wants and self.loss.from_logits and ending == wants:
            raise ValueError(
                f"{model.name}: double {wants}: {last.name} ends in {wants}, and from_logits=True "
                f"does it once more; write loss={name}, or leave out the activation"
            )
        if wants and not self.loss.from_logits and not ending and last.fuses and last.linear:
            raise ValueError(
                f"{model.name}: {name} wants probabilities, but {last.name} ends in logits; give "
                f"it activation={wants!r}, or the loss from_logits=True"
            )
        return Learner(model, bool(wants) and not self.loss.from_logits and ending == wants)

    def told(self, learner: Learner) -> dict[str, Any]:
        """Loss and metrics as minidl.train wants them: of (output, y), outputs up to the end."""
        finish = _FINISH[learner.model.ends_in if learner.logits else ""]

        def named(metric: metrics.Metric) -> Any:
            def value(output: np.ndarray, target: np.ndarray) -> float:
                return metric(target, finish(output))

            value.__name__ = metric.name
            return value

        def loss(output: Tensor, y: Tensor, weights: Any = None) -> Tensor:
            return self.loss(y, output, weights, learner.logits)

        return {"loss": loss, "metrics": [named(metric) for metric in self.metrics]}

    def step(self, learner: Learner) -> train.Step:
        """A training step of one batch, captured: the loss and the output."""
        optimizer = self.optimizer.of(learner.parameters())
        if self._step[0] is not optimizer:
            how = None, None, 1, train.History(), not self.eager
            step = train._training(learner, optimizer, self.told(learner)["loss"], *how)
            self._step = optimizer, step
        return self._step[1]


_FINISH: dict[str, Any] = {
    "": lambda x: x,
    "softmax": lambda x: F.softmax(Tensor(x)).numpy(),
    "sigmoid": lambda x: F.sigmoid(Tensor(x)).numpy(),
}


class Trained:
    """What a network has to learn, and to say what it learned."""

    stop_training = False
    _compiled: Compiled | None = None

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, metrics: Any = None,
        run_eagerly: bool = False,
    ) -> None:  # fmt: skip
        """Say how to train: an optimizer, a loss and metrics, by name or as objects."""
        if loss is None:
            raise TypeError("compile: the loss is missing; loss='mse', for instance")
        self._compiled = Compiled(optimizer, loss, metrics, run_eagerly)

    @property
    def optimizer(self) -> optimizers.Optimizer:
        """The optimizer, with its learning_rate."""
        return self._plan("optimizer").optimizer

    def _plan(self, who: str) -> Compiled:
        if self._compiled is None:
            raise RuntimeError(f"{who}: the network is not compiled: call compile(optimizer, loss)")
        return self._compiled

    def fit(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, epochs: int = 1,
        verbose: Any = "auto", callbacks: Any = None, validation_split: float = 0.0,
        validation_data: Any = None, shuffle: bool = True,
        class_weight: dict[int, float] | None = None, sample_weight: Any = None,
    ) -> calls.History:  # fmt: skip
        """Train on arrays x, y, or on batches (x, y), and return what was measured by epoch."""
        plan, verbose = self._plan("fit"), 1 if verbose == "auto" else int(verbose)
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = split(validation_split, x, y, sample_weight)
        options: Any = dict(batch_size=batch_size, shuffle=shuffle, class_weight=class_weight)
        batches = Batches("fit", x, y, sample_weight, **options)
        if getattr(x, "dtype", None) == np.uint8 and len(x.shape) == 4:
            warnings.warn("fit: x has bytes from 0 to 255: learn from x / 255", stacklevel=2)
        held_out, learner = Batches.held_out(validation_data, batch_size), self._ready(batches)
        optimizer = plan.optimizer.of(learner.parameters())
        params = {"verbose": verbose, "epochs": epochs, "steps": len(batches)}
        run = Run(self, calls.checked(callbacks), batches, params)
        try:
            train.fit(
                learner, run, epochs=epochs, optimizer=optimizer, validation=held_out,
                callbacks=[run], history=run.record, progress=verbose > 0, capture=not plan.eager,
                **plan.told(learner),
            )  # fmt: skip
        finally:
            learner.eval()
        return run.history

    def evaluate(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, verbose: Any = "auto",
        sample_weight: Any = None, return_dict: bool = False, **unknown: Any,
    ) -> Any:  # fmt: skip
        """The loss, or with metrics [loss, metrics ...], over a whole set, best a held-out one."""
        _once("evaluate", unknown)
        batches = Batches("evaluate", x, y, sample_weight, batch_size=batch_size)
        learner = self._ready(batches)
        row = train.evaluate(learner, batches, **self._plan("evaluate").told(learner))
        if verbose:
            print(train._line(row))
        return _result(row, return_dict)

    def predict(self, x: Any, batch_size: int | None = None, verbose: Any = "auto") -> Any:
        """The network's output for each sample: an array, or a list of them for several outputs."""
        batches = Batches("predict", x, batch_size=batch_size, labels=False)
        model = self._grown(batches)
        with evaluating(model):
            found = [model(train._moved(batch, train._device_of(model))) for batch in batches]
        parts = ([y.numpy() for y in ([f] if isinstance(f, Tensor) else f)] for f in found)
        joined = [np.concatenate(rows) for rows in zip(*parts, strict=True)]
        return joined[0] if len(joined) == 1 else joined

    def train_on_batch(
        self, x: Any, y: Any, sample_weight: Any = None,
        class_weight: dict[int, float] | None = None, return_dict: bool = False, **unknown: Any,
    ) -> Any:  # fmt: skip
        """One step on one batch; its loss, or with metrics [loss, metrics ...]."""
        _once("train_on_batch", unknown)
        options: Any = dict(batch_size=len(y), class_weight=class_weight)
        batches = Batches("train_on_batch", x, y, sample_weight, **options)
        plan, learner = self._plan("train_on_batch"), self._ready(batches)
        step, chosen = plan.step(learner), plan.told(learner)["metrics"]
        learner.train()
        try:
            row = train._means(learner, batches, step, chosen, "train_on_batch")
        finally:
            learner.eval()
        return _result(row, return_dict)

    def test_on_batch(
        self, x: Any, y: Any, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """What evaluate says of one batch."""
        return self.evaluate(x, y, len(y), 0, sample_weight, return_dict)

    def _ready(self, batches: Batches) -> Learner:
        """The network to train or measure, with its weights."""
        return self._plan(batches.who).learner(self._grown(batches))

    def _grown(self, batches: Batches) -> Any:
        self.grow(shape_of(batches.example))  # type: ignore[attr-defined]
        return self


def _once(who: str, unknown: dict[str, Any]) -> None:
    if unknown:
        names = ", ".join(unknown)
        raise TypeError(f"{who} has no {names}: it goes over x and y once; fit has epochs")


class Run(train.Callback):
    """One fit: minidl.train iterates over it, and tells it of every epoch; it tells the others."""

    def __init__(self, model: Any, told: list, batches: Batches, params: dict):
        self.model, self.batches = model, batches
        self.record, self.history = train.History(), calls.History()
        self.history.batch_loss = self.record.batch_loss
        self.keras = [c for c in told if isinstance(c, calls.Callback)]
        self.others = [c for c in told if isinstance(c, train.Callback)]
        model.stop_training = False
        self.tell("set_model", model)
        self.tell("set_params", params)
        self.tell("on_train_begin", {})

    def tell(self, what: str, *given: Any) -> None:
        """Call a method of every callback of Keras's kind."""
        for callback in self.keras:
            getattr(callback, what)(*given)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        """The batches of one epoch."""
        self.tell("on_epoch_begin", self.record.epochs, {})
        for i, batch in enumerate(self.batches):
            self.tell("on_train_batch_begin", i, {})
            yield batch
            self.tell("on_train_batch_end", i, {"loss": self.record.batch_loss[-1]})

    def on_epoch_end(self, model: Module, history: train.History) -> bool:
        """Tell everybody; True if somebody wants to stop."""
        now = {name: v[-1] for name, v in history.items() if name not in ("lr", "seconds")}
        logs = {name: now[name] for name in sorted(now, key=lambda n: (n.startswith("val_"), n))}
        self.tell("on_epoch_end", history.epochs - 1, logs)
        self.history.add(logs)
        stops = [callback.on_epoch_end(self.model, self.history) for callback in self.others]
        return any(stops) or self.model.stop_training

    def on_train_end(self, model: Module, history: train.History) -> None:
        """After the last epoch."""
        self.tell("on_train_end", {})
        for other in self.others:
            other.on_train_end(self.model, self.history)


def _result(row: dict[str, float], return_dict: bool) -> Any:
    values = list(row.values())
    return row if return_dict else values[0] if len(values) == 1 else values
