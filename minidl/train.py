"""Training loops: fit, evaluate, predict. What fit does is no secret:

    model = minidl.models.mnist_cnn()
    optimizer = minidl.optim.Adam(model.parameters(), lr=1e-3)
    loader = minidl.data.DataLoader(minidl.data.digits(), 64, shuffle=True)
    for epoch in range(3):
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()

It adds means over all samples, a check of every loss, progress, and a history; and the steps are
captured: see minidl.capture.
"""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from . import check, optim
from .backend import Device, device, every_step
from .capture import capture as captured
from .metrics import Metric, accuracy, top_k_accuracy
from .nn import Module
from .nn import functional as F
from .nn.module import evaluating
from .tensor import Tensor

Loss = Callable[[Tensor, Any], Tensor]
Step = Callable[[Any, Any], tuple[float, Tensor]]  # of x and y, the loss and the model's output


LOSSES: dict[str, Loss] = {"cross_entropy": F.cross_entropy}
METRICS: dict[str, Metric] = {"accuracy": accuracy, "top_5_accuracy": top_k_accuracy(5)}


class History(dict[str, list[float]]):
    """A list per quantity, an entry per epoch: loss, accuracy, val_loss, lr, seconds ...

    `batch_loss`, an attribute, has an entry per batch. A part of a checkpoint like any other.
    """

    def __init__(self) -> None:
        self.batch_loss: list[float] = []
        self.batch = 0  # of the epoch, that is under way

    @property
    def epochs(self) -> int:
        """How many epochs were trained."""
        return len(self.get("loss", ()))

    def add(self, row: Mapping[str, float]) -> None:
        """Append what was measured in one epoch."""
        for name, value in row.items():
            self.setdefault(name, []).append(value)

    def state_dict(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {"batch_loss": self.batch_loss, "epochs": dict(self)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what state_dict returned."""
        self.clear()
        self.update(state["epochs"])
        self.batch_loss = state["batch_loss"]


class Callback:
    """Something for fit to call; minidl.callbacks has some. What is not defined does nothing."""

    def on_epoch_end(self, model: Module, history: History) -> Any:
        """After every epoch. True ends the training."""

    def on_train_end(self, model: Module, history: History) -> None:
        """After the last epoch, also where a callback ended the training."""


def fit(
    model: Module,
    train: Iterable[Any],
    *,
    epochs: int,
    optimizer: Any = "adam",
    lr: float | None = None,
    loss: str | Loss = "cross_entropy",
    metrics: Iterable[str | Metric] = ("accuracy",),
    validation: Iterable[Any] | None = None,
    schedule: Any = None,
    schedule_every: str | None = None,
    clip_grad_norm: float | None = None,
    on_epoch: Callable[[History], Any] | None = None,
    callbacks: Sequence[Callback] = (),
    history: History | None = None,
    progress: bool = True,
    capture: bool = True,
) -> History:
    """Train a model on batches (x, y) for so many epochs, and return what was measured.

    Batches are moved to the device that the model's parameters are on.

    optimizer: one of minidl.optim, or a name, with lr. loss(output, y) is a mean over the batch;
    metrics(output, y) get arrays. schedule: stepped after every "batch" or "epoch", as
    schedule_every says; if it does not, OneCycleLR by the batch, any other by the epoch.
    on_epoch(history) ends the training by returning True, and so do callbacks, called before it.
    history: go on with one of an earlier fit. capture: replay steps as one program, as
    minidl.capture does; where that cannot be, a line on stderr says why, and they run eagerly.

    FloatingPointError when a loss is not finite: the weights are then as the batch before left
    them. ValueError for no batches.
    """
    if epochs < 0:
        raise ValueError(f"fit: epochs is {epochs}, but must be at least 0")
    optimizer, by_batch = _optimizer(optimizer, model, lr), _by_batch(schedule, schedule_every)
    history = History() if history is None else history
    learn = _training(model, optimizer, loss, by_batch, clip_grad_norm, history, capture)
    last = history.epochs + epochs
    for epoch in range(history.epochs + 1, last + 1):
        start, rate = time.perf_counter(), optimizer.param_groups[0]["lr"]
        title = f"epoch {epoch:{len(str(last))}}/{last}"
        with contextlib.closing(_shown(train, title, history, progress)) as batches:
            row = _means(model.train(), batches, learn, metrics, "fit")
        row |= _validated(model, validation, loss, metrics)
        if schedule is not by_batch:
            schedule.step(*_monitored(schedule, row))
        history.add(row | {"lr": rate, "seconds": time.perf_counter() - start})
        if progress:
            tqdm.write(f"{title}  {_line(row)}  {history['seconds'][-1]:.1f} s")
        if _told_to_stop(model, history, callbacks, on_epoch):
            break
    return _ended(model, history, callbacks)


def evaluate(
    model: Module,
    data: Iterable[Any],
    *,
    loss: str | Loss = "cross_entropy",
    metrics: Iterable[str | Metric] = ("accuracy",),
) -> dict[str, float]:
    """The loss and the metrics of a model over a whole set of batches (x, y).

    In evaluation mode, without gradients; each layer's mode is restored. Every sample counts the
    same, in a short last batch too.
    """
    measured = _chosen("loss", loss, LOSSES)

    def look(x: Any, y: Any) -> tuple[float, Tensor]:
        output = model(x)
        return measured(output, y).item(), output

    with evaluating(model):
        return _means(model, data, look, metrics, "evaluate")


def predict(model: Module, data: Any, *, batch_size: int = 256) -> np.ndarray:
    """The probability of each class (N, C): the softmax of the model's output, an array.

    Of one logit (N, 1), its sigmoid: the probability of yes.
    data: samples in one array or Tensor, as the model takes them (scaled as in training), or
    batches x or (x, y). In evaluation mode, without gradients; each layer's mode is restored.
    """
    batches, where = data, _device_of(model)
    if isinstance(data, np.ndarray | Tensor):
        batches = (data[i : i + batch_size] for i in range(0, len(data), batch_size))
    rows = []
    with evaluating(model):
        for batch in batches:
            x = batch[0] if isinstance(batch, tuple | list) else batch
            y = model(_moved(x, where))
            rows.append((F.sigmoid(y) if y.shape[1:] == (1,) else F.exp(F.log_softmax(y))).numpy())
    if not rows:
        raise ValueError("predict: the data set is empty")
    return np.concatenate(rows)


def _optimizer(optimizer: Any, model: Module, lr: float | None) -> Any:
    if isinstance(optimizer, str):
        return optim.get(optimizer, model.parameters(), **({} if lr is None else {"lr": lr}))
    if lr is not None:
        raise ValueError("fit: lr goes with an optimizer given by name; yours has its own")
    return optimizer


def _chosen(what: str, given: Any, names: Mapping[str, Any]) -> Any:
    """What a name stands for, or what was given itself."""
    if not isinstance(given, str):
        return given
    check.known(what, given, names)
    return names[given]


def _training(model, optimizer, loss, schedule, limit, history: History, capture: bool) -> Step:
    """A function of a batch that takes the model one step down its loss."""
    measured = _chosen("loss", loss, LOSSES)
    seen = [math.nan]  # the last loss: each time it is read, the host waits for a GPU

    def finite(value: Tensor) -> None:
        seen[0] = value.item()
        if not math.isfinite(seen[0]):
            raise FloatingPointError(
                f"fit: the loss is {seen[0]} in epoch {history.epochs + 1}, batch "
                f"{history.batch}; try a smaller learning rate or clip_grad_norm=1, and look for "
                "nan, inf and wrong labels in the data"
            )

    def step(x: Any, y: Any) -> Tensor:
        output = model(x)
        value = measured(output, y)
        every_step(finite, value)
        optimizer.zero_grad()
        value.backward()
        if limit is not None:
            optim.clip_grad_norm_(model.parameters(), limit)
        optimizer.step()
        return output

    run = captured(step, tell=_tell_eager) if capture else step

    def learn(x: Any, y: Any) -> tuple[float, Tensor]:
        output = run(x, y)
        if schedule is not None:
            schedule.step()
        history.batch_loss.append(seen[0])
        return seen[0], output

    return learn


def _ended(model: Module, history: History, callbacks: Sequence[Callback]) -> History:
    for callback in callbacks:
        callback.on_train_end(model, history)
    return history


def _validated(model: Module, data: Any, loss: Any, metrics: Any) -> dict[str, float]:
    found = {} if data is None else evaluate(model, data, loss=loss, metrics=metrics)
    return {f"val_{name}": value for name, value in found.items()}


def _tell_eager(why: str) -> None:
    tqdm.write(f"fit: the steps run eagerly, not as a captured program: {why}", file=sys.stderr)


def _by_batch(schedule: Any, every: str | None) -> Any:
    """The schedule if it is stepped after every batch, else None."""
    if every is None:
        every = "batch" if getattr(schedule, "by_batch", False) else "epoch"
    check.known("schedule_every", every, ("batch", "epoch"))
    if every == "batch" and hasattr(schedule, "monitor"):
        kind = type(schedule).__name__
        raise ValueError(f"fit: {kind} goes by what is measured in an epoch, not in a batch")
    return schedule if every == "batch" else None


def _monitored(schedule: Any, row: Mapping[str, float]) -> tuple[float, ...]:
    """What a schedule that goes by a measured number wants to know at the end of an epoch."""
    if not hasattr(schedule, "monitor"):
        return ()
    check.known(f"quantity for {type(schedule).__name__} to monitor", schedule.monitor, row)
    return (row[schedule.monitor],)


def _told_to_stop(
    model: Module, history: History, callbacks: Sequence[Callback], on_epoch: Any
) -> bool:
    """Whether one of those who are to be called says so; all of them are called."""
    told = [callback.on_epoch_end(model, history) for callback in callbacks]
    return any([*told, on_epoch is not None and on_epoch(history)])


def _means(
    model: Module, data: Iterable[Any], step: Step, metrics: Iterable[str | Metric], who: str
) -> dict[str, float]:
    """What is measured on all batches, each sample counting the same, with a step for each."""
    chosen = {m.__name__: m for m in (_chosen("metric", m, METRICS) for m in metrics)}
    samples, sums, where = 0, dict[str, float](), _device_of(model)
    for batch in data:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            kind = type(batch).__name__
            raise TypeError(f"{who}: batches are (x, y), got a {kind}; a DataLoader makes them")
        x, y = batch
        with np.errstate(all="ignore"):  # the loss tells, better than NumPy's warnings
            loss, output = step(_moved(x, where), _moved(y, where))
        target = y.numpy_view() if isinstance(y, Tensor) else np.asarray(y)
        found = {name: metric(output.numpy_view(), target) for name, metric in chosen.items()}
        samples += len(y)
        for name, value in {"loss": loss, **found}.items():
            sums[name] = sums.get(name, 0.0) + value * len(y)
    if not samples:
        raise ValueError(f"{who}: the data set is empty: there was no batch")
    return {name: total / samples for name, total in sums.items()}


def _device_of(model: Module) -> Device:
    """Where the first parameter or buffer is."""
    held = next((t for tensors in (model.parameters(), model.buffers()) for t in tensors), None)
    return device("cpu") if held is None else held.device


def _moved(batch: Any, where: Device) -> Any:
    """A batch on a device: arrays as Tensors; tuples, lists and dicts of them part by part."""
    if isinstance(batch, Tensor):
        return batch.to(where)
    if isinstance(batch, np.ndarray):
        return Tensor(batch, device=where)
    if isinstance(batch, tuple | list):
        return tuple(_moved(part, where) for part in batch)
    if isinstance(batch, dict):
        return {name: _moved(part, where) for name, part in batch.items()}
    return batch


def _shown(
    data: Iterable[Any], title: str, history: History, progress: bool
) -> Generator[Any, None, None]:
    """The batches, with a bar on a terminal that goes away at the end."""
    # None: no bar where it would fill a log with fragments of lines
    hidden = None if progress else True
    with tqdm(data, title, leave=False, disable=hidden, file=sys.stderr) as bar:
        for history.batch, batch in enumerate(bar, 1):
            yield batch
            bar.set_postfix_str(f"loss {history.batch_loss[-1]:.4f}", refresh=False)


def _line(row: Mapping[str, float]) -> str:
    """What was measured, to be read: accuracies as percent."""
    texts = (f"{value:{'.2%' if 'accuracy' in name else '.4f'}}" for name, value in row.items())
    return "  ".join(f"{name.replace('_', ' ')} {text}" for name, text in zip(row, texts))
