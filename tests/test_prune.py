"""Pruning: exact zeros, which ones, and that they stay, whatever the optimizer does."""

import copy

import numpy as np
import pytest

import minidl
from minidl import Tensor, io, nn, optim, prune
from minidl.nn import functional as F
from minidl.train import fit


def network(seed=0):
    minidl.manual_seed(seed)
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))


def batches(n, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal((16, 20), np.float32), rng.integers(0, 5, 16)) for _ in range(n)]


def stepper(model, optimizer, capture):
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return minidl.capture(step) if capture else step


def weights(model):
    return {name: p.numpy_view().copy() for name, p in prune.weights_of(model).items()}


# Which weights


def test_the_smallest_of_all_weights_become_exactly_zero():
    model = network()
    before = np.abs(np.concatenate([w.ravel() for w in weights(model).values()]))
    bias = model[0].bias.numpy_view().copy()
    prune.magnitude(model, amount=0.6)
    after = np.concatenate([w.ravel() for w in weights(model).values()])
    assert (after == 0).sum() == round(0.6 * 750) == 450
    assert before[after == 0].max() < before[after != 0].min()
    np.testing.assert_array_equal(np.abs(after[after != 0]), before[after != 0])
    np.testing.assert_array_equal(model[0].bias.numpy_view(), bias)
    assert prune.sparsity(model) == pytest.approx(0.6)


def test_a_layer_by_itself():
    model = network()
    prune.magnitude(model, amount=0.5, scope="layer")
    assert [int((w == 0).sum()) for w in weights(model).values()] == [300, 75]
    alike = network()
    prune.magnitude(alike, amount=0.5)
    assert [int((w == 0).sum()) for w in weights(alike).values()] != [300, 75]


def test_what_is_nearer_to_zero_than_a_threshold():
    model, threshold = network(), 0.1
    before = weights(model)
    pruner = prune.magnitude(model, threshold=threshold)
    for name, w in weights(model).items():
        np.testing.assert_array_equal(
            w, np.where(np.abs(before[name]) < threshold, 0, before[name])
        )
        np.testing.assert_array_equal(pruner.masks[name].numpy(), np.abs(before[name]) >= threshold)


def test_of_equal_weights_the_first_go_and_nan_stays():
    model = nn.Sequential(nn.Linear(2, 3, bias=False))
    model.load_state_dict({"0.weight": np.array([[1, -1, 1], [np.nan, 2, 1]], np.float32)})
    prune.magnitude(model, amount=0.5)
    np.testing.assert_array_equal(weights(model)["0.weight"], [[0, 0, 0], [np.nan, 2, 1]])
    prune.magnitude(model, threshold=1.5)
    np.testing.assert_array_equal(weights(model)["0.weight"], [[0, 0, 0], [np.nan, 2, 0]])


def test_pruned_zeros_are_plus_zero_and_all_or_nothing_is_possible():
    model = network()
    prune.magnitude(model, amount=0)
    assert prune.sparsity(model) == 0
    prune.magnitude(model, amount=1)
    assert prune.sparsity(model) == 1
    assert not any(np.signbit(w).any() for w in weights(model).values())


def test_weights_to_skip():
    model = network()
    before = weights(model)
    prune.magnitude(model, amount=0.9, skip=["0.weight"])
    np.testing.assert_array_equal(weights(model)["0.weight"], before["0.weight"])
    assert (weights(model)["2.weight"] == 0).sum() == 135
    with pytest.raises(ValueError, match=r"did you mean '0\.weight'"):
        prune.magnitude(model, amount=0.9, skip=["0.weights"])


# That they stay


OPTIMIZERS = {
    "momentum and decay": lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, 0.01, weight_decay=0.1),
    "adamw": lambda p: optim.AdamW(p, 0.01),
    "rmsprop": lambda p: optim.RMSprop(p, 0.01, momentum=0.5),
    "adagrad": lambda p: optim.Adagrad(p, 0.01),
}


@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zeros_survive_steps_with_what_the_optimizer_remembers(name, capture):
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    step = stepper(model, optimizer, capture)
    for x, y in batches(5):  # a momentum that points away from 0
        step(Tensor(x), Tensor(y))
    prune.magnitude(model, optimizer, amount=0.7)
    pruned = {n: w == 0 for n, w in weights(model).items()}
    before = weights(model)
    for x, y in batches(8, seed=1):
        step(Tensor(x), Tensor(y))
        for n, w in weights(model).items():
            np.testing.assert_array_equal(w == 0, pruned[n])
    for n, w in weights(model).items():  # the others learn: but for units that relu keeps silent
        assert (w != before[n])[~pruned[n]].mean() > 0.5
    if capture:
        assert "where" in str(step.program)


def test_without_an_optimizer_that_holds_them_they_come_back():
    model = network()
    optimizer = optim.Adam(model.parameters(), 0.01)
    step = stepper(model, optimizer, capture=True)
    for x, y in batches(4):
        step(Tensor(x), Tensor(y))
    pruner = prune.magnitude(model, optimizer, amount=0.5)
    step(*map(Tensor, batches(1)[0]))
    assert prune.sparsity(model) == 0.5
    pruner.release()
    for x, y in batches(4):
        step(Tensor(x), Tensor(y))
    assert prune.sparsity(model) < 0.1


def test_captured_steps_are_the_eager_ones():
    found = []
    for capture in (False, True):
        model = network()
        optimizer = optim.Adam(model.parameters(), 0.01)
        schedule = prune.Cubic(0.9, first=2, last=20, every=3)
        prune.magnitude(model, optimizer, schedule=schedule)
        step = stepper(model, optimizer, capture)
        for x, y in batches(24):
            step(Tensor(x), Tensor(y))
        found.append(weights(model))
    for name, w in found[0].items():
        np.testing.assert_array_equal(w, found[1][name])


# Step by step


def test_the_cubic_schedule_is_the_papers():
    schedule = prune.Cubic(0.9, first=100, last=500, every=100, initial=0.1)
    told = {t: schedule(t) for t in range(1, 700) if schedule(t) is not None}
    # s(t) = sf + (si - sf) (1 - (t - t0) / (n dt))^3
    wanted = {100: 0.1, 200: 0.5625, 300: 0.8, 400: 0.8875, 500: 0.9}
    assert told == pytest.approx(wanted)
    straight = prune.Linear(0.9, last=4, every=1)
    assert [straight(t) for t in range(1, 6)] == pytest.approx([0.225, 0.45, 0.675, 0.9, None])
    odd = prune.Cubic(0.5, last=7, every=5)
    assert [t for t in range(1, 20) if odd(t) is not None] == [5, 7]
    assert odd(7) == 0.5


@pytest.mark.parametrize(
    "words, options",
    [
        ("final is 1.5", dict(final=1.5, last=2)),
        ("initial is -1", dict(final=0.5, last=2, initial=-1)),
        ("steps 5 to 5", dict(final=0.5, first=5, last=5)),
        ("every 0", dict(final=0.5, last=5, every=0)),
    ],
)
def test_schedules_that_make_no_sense(words, options):
    with pytest.raises(ValueError, match=f"Cubic: .*{words}|Cubic: {words}"):
        prune.Cubic(options.pop("final"), **options)


@pytest.mark.parametrize("capture", [False, True])
def test_fit_prunes_on_schedule_and_notes_it(capture):
    model = network()
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
    pruner = prune.magnitude(model, optimizer, schedule=prune.Cubic(0.8, last=12, every=2))
    history = fit(
        model, batches(6), epochs=3, optimizer=optimizer, callbacks=[pruner], progress=False,
        capture=capture,
    )  # fmt: skip
    assert pruner.step == 18
    assert history["sparsity"] == pytest.approx([0.8 - 0.8 / 8, 0.8, 0.8])


def test_a_run_goes_on_with_its_masks(tmp_path):
    def run(path=None, steps=12):
        model = network()
        optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
        pruner = prune.magnitude(model, optimizer, schedule=prune.Cubic(0.8, last=10, every=4))
        step, parts = stepper(model, optimizer, False), dict(m=model, o=optimizer, p=pruner)
        data = batches(12)
        if path:
            io.load_checkpoint(path, **parts)
            data = data[pruner.step :]
        for x, y in data[:steps]:
            step(Tensor(x), Tensor(y))
        return parts

    whole = run()
    io.save_checkpoint(tmp_path / "half.safetensors", **run(steps=6))
    gone_on = run(tmp_path / "half.safetensors")
    assert gone_on["p"].step == whole["p"].step == 12
    for name, w in weights(whole["m"]).items():
        np.testing.assert_array_equal(w, weights(gone_on["m"])[name])


# What is refused


def test_what_cannot_be_pruned_is_told():
    model = network()
    optimizer = optim.Adam(model.parameters())
    for words, call in (
        ("one of amount, threshold and schedule", lambda: prune.magnitude(model)),
        ("one of amount", lambda: prune.magnitude(model, amount=0.5, threshold=1)),
        ("amount is 1.5", lambda: prune.magnitude(model, amount=1.5)),
        ("threshold is -1", lambda: prune.magnitude(model, threshold=-1)),
        ("give that, too", lambda: prune.magnitude(model, schedule=prune.Cubic(0.5, last=9))),
        ("unknown scope 'layers'", lambda: prune.magnitude(model, amount=0.5, scope="layers")),
        ("has no weights", lambda: prune.magnitude(nn.Sequential(nn.ReLU()), amount=0.5)),
        ("another model's", lambda: prune.magnitude(network(), optimizer, amount=0.5)),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match="str is no optimizer"):
        prune.magnitude(model, "adam", amount=0.5)
    pruner, other = prune.Pruner(model), prune.Pruner(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="masks of"):
        pruner.load_state_dict(copy.deepcopy(other.state_dict()))


def test_the_table_tells_each_layer():
    model = network()
    prune.magnitude(model, amount=0.5, scope="layer")
    lines = prune.table(model).splitlines()
    assert [line.split()[0] for line in lines] == ["0.weight", "2.weight", "all"]
    assert "(20, 30)" in lines[0] and lines[0].endswith("600   50.00% zero")
    assert lines[-1].endswith("750   50.00% zero")


# On a GPU, or in the emulator


def test_zeros_survive_on_cuda(cuda):
    model = network().to(cuda)
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    prune.magnitude(model, optimizer, schedule=prune.Cubic(0.7, last=4, every=1))
    step = stepper(model, optimizer, capture=True)
    for x, y in batches(5):
        step(Tensor(x, device=cuda), Tensor(y, device=cuda))
    assert prune.sparsity(model) == pytest.approx(0.7, abs=1e-3)
    alike = network()
    optimizer = optim.SGD(alike.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    prune.magnitude(alike, optimizer, schedule=prune.Cubic(0.7, last=4, every=1))
    step = stepper(alike, optimizer, capture=True)
    for x, y in batches(5):
        step(Tensor(x), Tensor(y))
    for name, w in weights(alike).items():
        np.testing.assert_allclose(weights(model)[name], w, atol=1e-4)
