"""find_lr: a learning rate from one short run, which leaves no trace."""

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.data import DataLoader, digits
from minidl.lr_finder import LRCurve
from minidl.train import fit


def network():
    minidl.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.BatchNorm2d(32), nn.Linear(32, 10))


def batches():
    return DataLoader(digits("test")[:320], 32, shuffle=True, seed=0)


def test_it_suggests_a_rate_that_trains_and_leaves_no_trace():
    model = network()
    before = model.state_dict()
    found = minidl.find_lr(model, batches(), start=1e-4, end=1000.0, steps=60)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert found.lrs == sorted(found.lrs) and len(found.lrs) == len(found.losses) < 60
    ratio = np.diff(np.log(found.lrs))
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
    assert 0.01 < found.suggestion < found.lrs[int(np.argmin(found.losses))]
    loss = {}
    for lr in (found.suggestion / 1000, found.suggestion):
        model.load_state_dict(before)
        history = fit(model, batches(), epochs=3, optimizer="sgd", lr=lr, progress=False)
        loss[lr] = history["loss"][-1]
    assert loss[found.suggestion] < 0.5 * loss[found.suggestion / 1000]


def test_an_optimizer_of_ones_own_goes_on_as_it_was():
    model = network()
    adam = optim.Adam(model.parameters(), lr=3e-4)
    fit(model, batches(), epochs=1, optimizer=adam, progress=False)
    before = adam.state_dict()
    minidl.find_lr(model, batches(), optimizer=adam, steps=12)
    after = adam.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for number, entry in before["state"].items():
        for name, value in entry.items():
            np.testing.assert_array_equal(after["state"][number][name], value)
    assert all(p.grad is None for p in model.parameters())


def test_few_batches_are_used_again():
    few = DataLoader(digits("test")[:64], 32)
    assert len(minidl.find_lr(network(), few, end=1e-3, steps=11).lrs) == 11


def test_it_is_drawn():
    pytest.importorskip("matplotlib")
    (axes,) = LRCurve([0.1, 1.0], [2.0, 1.0], 0.1).plot().axes
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "learning rate"


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="must rise"):
        minidl.find_lr(network(), batches(), start=1, end=0.1)
    with pytest.raises(ValueError, match="there was no batch"):
        minidl.find_lr(network(), [])
    with pytest.raises(ValueError, match="unknown loss 'entropy'"):
        minidl.find_lr(network(), batches(), loss="entropy")


def test_modes_come_back_and_so_do_weights_after_an_error():
    model = network().eval()
    model[0].train()
    modes, before = [m.training for m in model.modules()], model.state_dict()
    minidl.find_lr(model, batches(), steps=12)
    assert [m.training for m in model.modules()] == modes

    def broken():
        yield from batches()
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        minidl.find_lr(model, broken(), steps=1000)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert [m.training for m in model.modules()] == modes
