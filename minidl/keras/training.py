"""compile, fit, evaluate, predict and single steps, on top of minidl.train."""

import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from .. import optim, train
from ..capture import capture
from ..nn import Module
from ..nn.module import evaluating
from ..tensor import Tensor
from . import callbacks as calls
from . import losses, metrics, optimizers
from .feeding import Batches, split
from .symbols import shape_of

BAR = "\u2501" * 20


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
        self.metrics = [metrics.get(metric) for metric in measured or []]
        self.eager = eager
        self._step: Any = None

    def learner(self, model: Any) -> Learner:
        """The network to train; ValueError where its end and the loss do not fit."""
        if len(model.outputs) > 1:
            n = len(model.outputs)
            raise ValueError(f"{model.name}: one output can be trained, but there are {n}")
        wants, ending, last = self.loss.wants, model.ends_in, model.last_layer()
        name = f"{type(self.loss).__name__}()"
        if wants and self.loss.from_logits and ending == wants:
            raise ValueError(
                f"{model.name}: double {wants}: {last.name} ends in {wants}, and from_logits=True "
                f"does it once more; write loss={name}, or leave out the activation"
            )
        linear = last.fuses and last.linear
        if wants and not self.loss.from_logits and not ending and linear:
            raise ValueError(
                f"{model.name}: {name} wants probabilities, but {last.name} ends in logits; give "
                f"it activation={wants!r}, or the loss from_logits=True"
            )
        return Learner(model, bool(wants) and not self.loss.from_logits and ending == wants)

    def measure(self, learner: Learner) -> Any:
        """The loss of (output, y, weights), as minidl.train wants it."""
        loss, logits = self.loss, learner.logits
        return lambda output, y, weights=None: loss(y, output, weights, logits)

    def watched(self, learner: Learner) -> list[Any]:
        """The metrics as minidl.train wants them: of probabilities, where there is a softmax."""
        finish = _FINISH[learner.model.ends_in if learner.logits else ""]

        def named(metric: Any) -> Any:
            def value(output: np.ndarray, target: np.ndarray) -> float:
                return metric(target, finish(output))

            value.__name__ = metric.name
            return value

        return [named(metric) for metric in self.metrics]

    def step(self, model: Any) -> Any:
        """A training step of one batch, captured: the loss and the output."""
        learner, optimizer = self.learner(model), self.optimizer.of(model.parameters())
        if self._step is None or self._step[0] is not optimizer:
            measure, limit = self.measure(learner), self.optimizer.global_clipnorm

            def step(x: Any, *y: Any) -> tuple[Tensor, Tensor]:
                output = learner(x)
                loss = measure(output, *y)
                optimizer.zero_grad()
                loss.backward()
                if limit is not None:
                    optim.clip_grad_norm_(model.parameters(), limit)
                optimizer.step()
                return loss, output

            self._step = optimizer, step if self.eager else capture(step, tell=lambda why: None)
        return self._step[1], learner


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


_FINISH: dict[str, Any] = {
    "": lambda x: x,
    "softmax": _softmax,
    "sigmoid": lambda x: 0.5 + 0.5 * np.tanh(0.5 * x),
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
        measured = metrics if isinstance(metrics, list | tuple | None) else [metrics]
        self._compiled = Compiled(optimizer, loss, measured, run_eagerly)

    @property
    def optimizer(self) -> optimizers.Optimizer:
        """The optimizer, with its learning_rate."""
        return self._plan("optimizer").optimizer

    @property
    def metrics_names(self) -> list[str]:
        """What evaluate returns, in order."""
        return ["loss", *(metric.name for metric in self._plan("metrics_names").metrics)]

    def _plan(self, who: str) -> Compiled:
        if self._compiled is None:
            raise RuntimeError(f"{who}: the network is not compiled: call compile(optimizer, loss)")
        return self._compiled

    def fit(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, epochs: int = 1,
        verbose: Any = "auto", callbacks: Any = None, validation_split: float = 0.0,
        validation_data: Any = None, shuffle: bool = True,
        class_weight: dict[int, float] | None = None, sample_weight: Any = None,
        initial_epoch: int = 0, steps_per_epoch: int | None = None,
        validation_steps: int | None = None, validation_batch_size: int | None = None,
    ) -> calls.History:  # fmt: skip
        """Train on arrays x, y, or on batches (x, y), and return what was measured by epoch."""
        plan, verbose = self._plan("fit"), 1 if verbose == "auto" else int(verbose)
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = split(validation_split, x, y, sample_weight)
        options: Any = dict(batch_size=batch_size, shuffle=shuffle, class_weight=class_weight)
        batches = Batches("fit", x, y, sample_weight, steps=steps_per_epoch, **options)
        size = validation_batch_size or batch_size
        held_out = _held_out(validation_data, size, validation_steps)
        learner = self._ready(batches)
        optimizer = plan.optimizer.of(self.parameters())  # type: ignore[attr-defined]
        run = Run(self, calls.checked(callbacks), batches, verbose, initial_epoch, epochs)
        run.begin()
        try:
            train.fit(
                learner, run, epochs=max(epochs - initial_epoch, 0), optimizer=optimizer,
                loss=plan.measure(learner), metrics=plan.watched(learner), validation=held_out,
                clip_grad_norm=plan.optimizer.global_clipnorm, callbacks=[run],
                history=run.record, progress=False, capture=not plan.eager,
            )  # fmt: skip
        finally:
            self.eval()  # type: ignore[attr-defined]
        return run.history

    def evaluate(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, verbose: Any = "auto",
        sample_weight: Any = None, steps: int | None = None, return_dict: bool = False,
    ) -> Any:  # fmt: skip
        """The loss, or with metrics [loss, metrics ...], over a whole set."""
        plan, start = self._plan("evaluate"), time.perf_counter()
        batches = Batches("evaluate", x, y, sample_weight, batch_size=batch_size, steps=steps)
        learner = self._ready(batches)
        row = train.evaluate(
            learner, batches, loss=plan.measure(learner), metrics=plan.watched(learner)
        )
        if verbose:
            form = 1 if verbose == "auto" else verbose
            print(_line(row, len(batches), time.perf_counter() - start, form))
        return _result(row, return_dict)

    def predict(
        self, x: Any, batch_size: int | None = None, verbose: Any = "auto",
        steps: int | None = None,
    ) -> Any:  # fmt: skip
        """The network's output for each sample: an array, or a list of them for several outputs."""
        batches = Batches("predict", x, batch_size=batch_size, steps=steps, labels=False)
        self._grown(batches)
        parts: list[list[np.ndarray]] = []
        where = train._device_of(self)  # type: ignore[arg-type]
        with evaluating(self):  # type: ignore[arg-type]
            for batch in batches:
                found = self(train._moved(batch, where))  # type: ignore[operator]
                outputs = found if isinstance(found, list | tuple) else [found]
                parts.append([output.numpy() for output in outputs])
        joined = [np.concatenate(rows) for rows in zip(*parts, strict=True)]
        return joined[0] if len(joined) == 1 else joined

    def train_on_batch(
        self, x: Any, y: Any, sample_weight: Any = None,
        class_weight: dict[int, float] | None = None, return_dict: bool = False,
    ) -> Any:  # fmt: skip
        """One step on one batch; its loss, or with metrics [loss, metrics ...]."""
        options: Any = dict(batch_size=len(y), class_weight=class_weight)
        batches = Batches("train_on_batch", x, y, sample_weight, **options)
        self._grown(batches)
        step, learner = self._plan("train_on_batch").step(self)

        def learn(*batch: Any) -> tuple[float, Tensor]:
            loss, output = step(*batch)
            return loss.item(), output

        learner.train()
        try:
            chosen = self._plan("train_on_batch").watched(learner)
            row = train._means(learner, batches, learn, chosen, "train_on_batch")
        finally:
            learner.eval()
        return _result(row, return_dict)

    def test_on_batch(
        self, x: Any, y: Any, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """What evaluate says of one batch."""
        return self.evaluate(x, y, len(y), 0, sample_weight, return_dict=return_dict)

    def _ready(self, batches: Batches) -> Learner:
        """The network to train or measure, with its weights."""
        self._grown(batches)
        return self._plan(batches.who).learner(self)

    def _grown(self, batches: Batches) -> None:
        self.grow(shape_of(batches.example))  # type: ignore[attr-defined]


def _held_out(data: Any, batch_size: int | None, steps: int | None) -> Batches | None:
    if data is None:
        return None
    if isinstance(data, tuple | list) and len(data) in (2, 3):
        return Batches("validation_data", *data, batch_size=batch_size, steps=steps)
    return Batches("validation_data", data, steps=steps)


class Run(train.Callback):
    """One fit: minidl.train iterates over it, and tells it of every epoch; it tells the others."""

    def __init__(
        self, model: Any, told: list, batches: Batches, verbose: int, first: int, epochs: int
    ):
        self.model, self.batches, self.verbose = model, batches, verbose
        self.first, self.epochs, self.start = first, epochs, 0.0
        self.record, self.plain = train.History(), train.History()
        self.history = calls.History()
        self.history.batch_loss = self.plain.batch_loss = self.record.batch_loss
        self.keras = [c for c in told if isinstance(c, calls.Callback)] + [self.history]
        self.others = [c for c in told if isinstance(c, train.Callback)]

    def begin(self) -> None:
        """Before the first epoch."""
        self.model.stop_training = False
        params = {"verbose": self.verbose, "epochs": self.epochs, "steps": len(self.batches)}
        for callback in self.keras:
            callback.set_model(self.model)
            callback.set_params(params)
            callback.on_train_begin({})

    def __iter__(self) -> Iterator[Any]:
        """The batches of one epoch."""
        epoch, self.start = self.first + self.record.epochs, time.perf_counter()
        for callback in self.keras:
            callback.on_epoch_begin(epoch, {})
        if self.verbose == 1:
            print(f"Epoch {epoch + 1}/{self.epochs}")
        hidden = None if self.verbose == 1 else True  # None: a bar on a terminal only
        total = len(self.batches) or None
        with tqdm(self.batches, total=total, leave=False, disable=hidden, file=sys.stderr) as bar:
            for i, batch in enumerate(bar):
                for callback in self.keras:
                    callback.on_train_batch_begin(i, {})
                yield batch
                for callback in self.keras:
                    callback.on_train_batch_end(i, {"loss": self.record.batch_loss[-1]})
        self.steps = i + 1 if total is None else total

    def on_epoch_end(self, model: Module, history: train.History) -> bool:
        """Tell everybody; True if somebody wants to stop."""
        epoch, seconds = self.first + history.epochs - 1, time.perf_counter() - self.start
        now = {name: values[-1] for name, values in history.items()}
        names = [name for name in now if name not in ("lr", "seconds")]
        order = sorted(names, key=lambda name: (name.startswith("val_"), name))
        logs = {name: now[name] for name in order}
        if self.verbose:
            print(f"Epoch {epoch + 1}/{self.epochs}\n" * (self.verbose > 1), end="")
            print(_line(logs, self.steps, seconds, self.verbose))
        for callback in self.keras:
            callback.on_epoch_end(epoch, logs)
        self.plain.add(logs)
        stops = [callback.on_epoch_end(self.model, self.plain) for callback in self.others]
        return any(stops) or self.model.stop_training

    def on_train_end(self, model: Module, history: train.History) -> None:
        """After the last epoch."""
        for callback in self.keras:
            callback.on_train_end({})
        for other in self.others:
            other.on_train_end(self.model, self.plain)


def _line(row: dict[str, float], steps: int, seconds: float, verbose: int) -> str:
    """What was measured in an epoch, as Keras prints it."""
    each = f"{1000 * seconds / max(steps, 1):.0f}ms/step"
    head = [f"{steps}/{steps}", f"{seconds:.0f}s", each]
    numbers = (f"{n}: {v:.4f}" if abs(v) > 1e-3 else f"{n}: {v:.4e}" for n, v in row.items())
    if verbose == 1:
        head = [f"{steps}/{steps} {BAR} {seconds:.0f}s {each}"]
    return " - ".join([*head, *numbers])


def _result(row: dict[str, float], return_dict: bool) -> Any:
    values = list(row.values())
    return row if return_dict else values[0] if len(values) == 1 else values
