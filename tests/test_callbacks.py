"""What fit calls after every epoch: early stopping, the best weights, logs that go on."""

import csv
import json
import math

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.callbacks import Callback, CSVLogger, EarlyStopping, JSONLLogger, ModelCheckpoint
from minidl.train import History, fit


def history_of(*values, name="val_loss"):
    history = History()
    for value in values:
        history.add({"loss": 1.0, name: value})
    return history


def line():
    """One number to learn: y = w x."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False)).double()
    model.load_state_dict({"0.weight": np.array([[0.0]])})
    return model


def run(model, epochs, *callbacks, history=None, on_epoch=None):
    """Epochs in which the weight goes 1, 2, 3 ...: the loss falls to 0 at the third, then rises."""
    data = [(np.array([[1.0]]), np.array([[3.0]]))]
    optimizer = optim.SGD(model.parameters(), lr=1.0)

    def up_by_one(output, y):
        return -output.sum()  # a gradient of -1

    def distance(output, y):
        # of the weight that the epoch leaves behind
        return abs(float(model[0].weight.item()) - float(y.item()))

    return fit(
        model, data, epochs=epochs, optimizer=optimizer, loss=up_by_one, metrics=[distance],
        validation=data, callbacks=callbacks, history=history, on_epoch=on_epoch, progress=False,
    )  # fmt: skip


def test_callbacks_are_all_called_in_order_and_any_of_them_ends_the_training():
    calls = []

    class Recorder(Callback):
        def __init__(self, name, last):
            self.name, self.last = name, last

        def on_epoch_end(self, model, history):
            calls.append((self.name, history.epochs))
            return history.epochs == self.last

        def on_train_end(self, model, history):
            calls.append((self.name, "end"))

    def on_epoch(history):
        calls.append(("f", history.epochs))

    history = run(line(), 9, Recorder("a", 2), Recorder("b", 7), Callback(), on_epoch=on_epoch)
    assert history.epochs == 2
    epochs = [(name, epoch) for epoch in (1, 2) for name in "abf"]
    assert calls == [*epochs, ("a", "end"), ("b", "end")]


@pytest.mark.parametrize(
    "values, options, stops",
    [
        ([3, 2, 1, 2, 2, 2], {"patience": 2}, 5),
        ([3, 2, 1, 2, 0.5, 2], {"patience": 2}, None),
        ([3, 2.5, 2.2, 1.9, 1.8], {"patience": 2, "min_delta": 0.6}, 5),
        ([1, 2, 3, 2, 2], {"patience": 2, "mode": "max"}, 5),
        ([1, math.nan, math.nan], {"patience": 2}, 3),
        ([math.nan, 5, 4, 3], {"patience": 2}, None),
        ([1, 1], {"patience": 1}, 2),
    ],
)
def test_early_stopping_stops_when_nothing_became_better(values, options, stops):
    stopping = EarlyStopping(**options)
    ends = [
        n
        for n in range(1, len(values) + 1)
        if stopping.on_epoch_end(line(), history_of(*values[:n]))
    ]
    assert ends[:1] == ([] if stops is None else [stops])


@pytest.mark.parametrize("epochs", [4, 9])
def test_early_stopping_brings_the_best_weights_back(epochs):
    best, last = line(), line()
    watch = {"monitor": "val_distance", "patience": 2}
    history = run(best, epochs, EarlyStopping(**watch, restore_best_weights=True))
    run(last, epochs, EarlyStopping(**watch))
    assert history["val_distance"] == [2, 1, 0, 1, 2][:epochs]
    assert best[0].weight.item() == 3 and last[0].weight.item() == min(epochs, 5)


def test_the_best_weights_outlive_a_process(tmp_path):
    def stopping():
        return EarlyStopping("val_distance", patience=3, restore_best_weights=True)

    path, model, first = tmp_path / "state.safetensors", line(), stopping()
    history = run(model, 3, first)
    run(model, 1, history=history)
    minidl.io.save_checkpoint(path, model=model, history=history, stopping=first)
    resumed, again, second = line(), History(), stopping()
    minidl.io.load_checkpoint(path, model=resumed, history=again, stopping=second)
    assert resumed[0].weight.item() == 4
    run(resumed, 9, second, history=again)
    assert again.epochs == 6 and resumed[0].weight.item() == 3


def test_the_best_model_is_in_the_file(tmp_path):
    path, model, seen = tmp_path / "best.safetensors", line(), []

    def read(history):
        seen.append(minidl.load(path, line())[0].weight.item())

    run(model, 5, ModelCheckpoint(path, monitor="val_distance"), on_epoch=read)
    assert seen == [1, 2, 3, 3, 3]
    assert [p.name for p in tmp_path.iterdir()] == ["best.safetensors"]
    run(line(), 5, ModelCheckpoint(path, monitor="val_distance", mode="max"))
    assert minidl.load(path, line())[0].weight.item() == 1


def test_the_best_model_is_known_after_going_on(tmp_path):
    path, model = tmp_path / "best.safetensors", line()
    history = run(model, 3, ModelCheckpoint(path, monitor="val_distance"))
    run(model, 2, ModelCheckpoint(path, monitor="val_distance"), history=history)
    assert minidl.load(path, line())[0].weight.item() == 3


def test_a_checkpoint_with_parts_is_a_whole_training_state(tmp_path):
    path, model = tmp_path / "best.safetensors", line()
    stopping = EarlyStopping("val_distance")
    run(model, 5, ModelCheckpoint(path, monitor="val_distance", stopping=stopping))
    best, history = line(), History()
    minidl.io.load_checkpoint(path, model=best, history=history, stopping=stopping)
    assert best[0].weight.item() == 3 and history.epochs == 3


LOGS = {
    CSVLogger: lambda path: [
        {name: float(v) for name, v in row.items()}
        for row in csv.DictReader(path.read_text().splitlines())
    ],
    JSONLLogger: lambda path: [json.loads(line) for line in path.read_text().splitlines()],
}


def rows_of(history):
    names = ("epoch", *history)
    table = zip(range(1, history.epochs + 1), *history.values(), strict=True)
    return [dict(zip(names, row, strict=True)) for row in table]


@pytest.mark.parametrize("kind", LOGS)
def test_a_log_has_a_line_for_every_epoch_as_soon_as_it_is_over(kind, tmp_path):
    path, lengths = tmp_path / "log", []
    history = run(line(), 3, kind(path), on_epoch=lambda h: lengths.append(len(LOGS[kind](path))))
    assert lengths == [1, 2, 3]
    assert LOGS[kind](path) == rows_of(history)  # to the last digit


@pytest.mark.parametrize("kind", LOGS)
@pytest.mark.parametrize("tail", ["", "whole", "cut"])
def test_a_log_goes_on_where_the_history_does(kind, tail, tmp_path):
    path = tmp_path / "log"
    history = run(line(), 2, kind(path))
    if tail:  # an epoch after the state that the next process starts from
        more = path.read_text().splitlines(True)[-1].replace("2", "3", 1)
        path.write_text(path.read_text() + (more if tail == "whole" else more[:-5]))
    run(line(), 2, kind(path), history=history)
    assert history.epochs == 4 and LOGS[kind](path) == rows_of(history)


@pytest.mark.parametrize("kind", LOGS)
def test_a_new_run_begins_a_new_log_also_with_the_same_callback(kind, tmp_path):
    logger = kind(tmp_path / "log")
    run(line(), 3, logger)
    history = run(line(), 2, logger)
    assert LOGS[kind](tmp_path / "log") == rows_of(history)


def test_what_is_not_finite_is_null_in_json(tmp_path):
    path = tmp_path / "log"
    JSONLLogger(path).on_epoch_end(line(), history_of(math.nan))
    JSONLLogger(path).on_epoch_end(line(), history_of(1.0, -math.inf))
    assert [row["val_loss"] for row in LOGS[JSONLLogger](path)] == [None, None]
    assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()


@pytest.mark.parametrize("kind", LOGS)
def test_a_file_that_is_no_log_is_left_alone(kind, tmp_path):
    path = tmp_path / "log"
    path.write_text("epoch,loss,val_loss\nDear diary,\n")
    with pytest.raises(ValueError, match=r"line \d is not of a log"):
        kind(path).on_epoch_end(line(), history_of(2.0, 1.0))
    assert path.read_text() == "epoch,loss,val_loss\nDear diary,\n"


def test_a_table_keeps_its_columns(tmp_path):
    path = tmp_path / "log"
    CSVLogger(path).on_epoch_end(line(), history_of(1.0))
    with pytest.raises(ValueError, match=r"has the columns epoch,loss,val_loss, but now there are"):
        CSVLogger(path).on_epoch_end(line(), history_of(1.0, 1.0, name="val_other"))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: EarlyStopping(mode="least"), "unknown mode 'least'"),
        (lambda: EarlyStopping(patience=0), "patience is 0, but must be at least 1"),
        (lambda: EarlyStopping(min_delta=-1), "EarlyStopping: min_delta is -1"),
        (
            lambda: EarlyStopping("val_los").on_epoch_end(line(), history_of(1)),
            "quantity for EarlyStopping to monitor 'val_los'; did you mean 'val_loss'",
        ),
        (
            lambda: ModelCheckpoint("x", monitor="acc").on_epoch_end(line(), history_of(1)),
            "quantity for ModelCheckpoint to monitor 'acc'",
        ),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# a schedule that goes by what is measured


def test_fit_tells_the_plateau_schedule_what_it_monitors():
    model = line()
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    data = [(np.array([[1.0]]), np.array([[3.0]]))]
    options = {"optimizer": optimizer, "loss": lambda output, y: ((output - y) * 0.0).sum()}
    options |= {"metrics": [], "progress": False, "epochs": 4}
    by_loss = optim.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, monitor="loss")
    history = fit(model, data, schedule=by_loss, **options)
    assert history["lr"] == [1, 1, 1, 0.5]  # epochs 2 and 3 are no better than the first
    schedule = optim.ReduceLROnPlateau(optimizer)
    with pytest.raises(ValueError, match="ReduceLROnPlateau to monitor 'val_loss'; did you mean"):
        fit(model, data, schedule=schedule, **options)
    with pytest.raises(ValueError, match="goes by what is measured in an epoch"):
        fit(model, data, schedule=schedule, schedule_every="batch", **options)
