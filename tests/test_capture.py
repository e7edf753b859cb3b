"""Captured steps: bit for bit what eager ones do, and nothing ever baked in unnoticed."""

import array
import collections
import contextlib
import io
import itertools
import queue
import random
import re
import threading
import types
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl import Tensor, nn, optim
from minidl.capture import CaptureWarning, plan, program, rewrite
from minidl.capture.record import Recorder
from minidl.kernels.cases import CASES, Blank, Draw, Seeded, draw_example, gradients
from minidl.kernels.roles import Out, roles
from minidl.nn import functional as F
from minidl.op import op

RNG = np.random.default_rng(0)
X = RNG.normal(size=(220, 8, 6, 6, 2)).astype(np.float32)
Y = RNG.integers(0, 5, (220, 8))


def batches(n, dtype="float32"):
    return [(Tensor(x.astype(dtype)), Tensor(y)) for x, y in zip(X[:n], Y[:n])]


def network(dropout=0.3):
    minidl.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(dropout), nn.Linear(36, 5),
    )  # fmt: skip


def bits(value):
    """All numbers of results and states, to compare."""
    if isinstance(value, Tensor):
        return value.numpy_view().tobytes()
    if isinstance(value, np.ndarray | np.generic):
        return value.tobytes()
    if isinstance(value, dict):
        return {name: bits(part) for name, part in value.items()}
    return [bits(part) for part in value] if isinstance(value, list | tuple) else value


class Plain:
    """A network, an optimizer and a step, from scratch each time."""

    def __init__(self, capture, model=network, optimizer=optim.SGD, **options):
        self.model = model()
        self.optimizer = optimizer(self.model.parameters(), **({"lr": 0.05} | options))
        self.step = minidl.capture(self.train, fuse=False) if capture else self.train

    def train(self, x, y):
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def state(self):
        grads = [p.grad for p in self.model.parameters()]
        generator = minidl.random.default_generator().get_state()
        return bits([self.model.state_dict(), self.optimizer.state_dict(), grads, generator])


def agree(world, data, each=lambda world, i: None):
    """Run a world eagerly and captured: every result and the last state have the same bits."""
    runs = []
    for capture in (False, True):
        w = world(capture)
        minidl.manual_seed(1)
        results = []
        for i, batch in enumerate(data):
            each(w, i)
            results.append(bits(w.step(*batch)))
        runs.append((results, w.state()))
    assert runs[0] == runs[1]
    return w


def warned(call):
    """The text of the one warning of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    found = [w for w in caught if issubclass(w.category, CaptureWarning)]
    assert len(found) == 1, [str(w.message) for w in found]
    assert found[0].filename == __file__
    return str(found[0].message)


# ---- bit for bit what eager steps do


OPTIMIZERS = {
    "sgd": (optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": (optim.Adam, {"lr": 1e-2}),
    "adamw": (optim.AdamW, {"lr": 1e-2}),
    "rmsprop": (optim.RMSprop, {"lr": 1e-3, "momentum": 0.5, "centered": True}),
    "adagrad": (optim.Adagrad, {"lr_decay": 0.01}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_hundred_steps_with_a_schedule_have_the_same_bits(name, dtype):
    kind, options = OPTIMIZERS[name]

    class World(Plain):
        def __init__(self, capture):
            model = (lambda: network().double()) if dtype == "float64" else network
            super().__init__(capture, model, kind, **options)
            self.schedule = (
                optim.CosineAnnealingLR(self.optimizer, 150)
                if name == "adagrad"
                else optim.OneCycleLR(self.optimizer, 0.05, total_steps=300)
            )

        def train(self, x, y):
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(x), y) * 0.5 + 0.0
            loss.backward()
            norm = optim.clip_grad_norm_(self.model.parameters(), 0.5)
            self.optimizer.step()
            return {"loss": loss, "norm": norm}

    def by_batch(world, i):
        if i:
            world.schedule.step()

    steps = 200 if dtype == "float32" else 60
    world = agree(World, batches(steps, dtype), by_batch)
    assert world.step.replayed
    assert len(list(itertools.chain(*world.step.programs.values()))) == 1
    assert world.step._calls == steps


def test_a_schedule_within_the_step():
    class World(Plain):
        def __init__(self, capture):
            super().__init__(capture, momentum=0.9)
            self.schedule = optim.OneCycleLR(self.optimizer, 0.05, total_steps=60)

        def train(self, x, y):
            loss = super().train(x, y)
            self.schedule.step()
            return loss

    world = agree(World, batches(40))
    assert world.step.replayed
    assert world.schedule.last_epoch == 40


def test_gradients_accumulate_over_batches():
    class World(Plain):
        def train(self, x, y):
            loss = F.cross_entropy(self.model(x), y) / 3
            loss.backward()
            return loss

    def apply(world, i):
        if i and not i % 3:
            world.optimizer.step()
            world.optimizer.zero_grad()

    world = agree(World, batches(24), apply)
    assert world.step.replayed
    assert len(next(iter(world.step.programs.values()))) == 2  # the first share fills, others add


def test_gradients_without_an_optimizer():
    class World(Plain):
        def __init__(self, capture):
            self.model = network()
            self.step = minidl.capture(self.train, fuse=False) if capture else self.train

        def train(self, x, y):
            for p in self.model.parameters():
                p.grad = None
            F.cross_entropy(self.model(x), y).backward()
            with minidl.no_grad():
                for p in self.model.parameters():
                    p.copy_(p - p.grad * 0.05)

        def state(self):
            return bits([self.model.state_dict(), [p.grad for p in self.model.parameters()]])

    assert agree(World, batches(12)).step.replayed


def test_several_networks_in_one_step():
    """A generator and its critic: two optimizers, detached parts, gradients that go two ways."""

    class World(Plain):
        def __init__(self, capture):
            super().__init__(capture, optimizer=optim.Adam, lr=1e-2)
            self.critic = nn.Sequential(nn.Linear(5, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
            self.second = optim.RMSprop(self.critic.parameters(), lr=1e-3)

        def train(self, x, y):
            made = self.model(x)
            self.second.zero_grad()
            real = minidl.randn(8, 5)
            loss = (self.critic(made.detach()) - self.critic(real)).mean()
            loss.backward()
            self.second.step()
            self.optimizer.zero_grad()
            other = -self.critic(made).mean()
            other.backward()
            self.optimizer.step()
            return loss, other

        def state(self):
            return super().state(), bits(self.critic.state_dict())

    assert agree(World, batches(12)).step.replayed


def test_lr_and_momentum_set_by_hand():
    def each(world, i):
        world.optimizer.param_groups[0]["lr"] = 0.1 / (i + 1)
        world.optimizer.param_groups[0]["momentum"] = 0.5 + i / 100

    world = agree(lambda capture: Plain(capture, momentum=0.9), batches(20), each)
    assert world.step.replayed


def test_an_exponential_mean_of_the_weights():
    class World(Plain):
        def __init__(self, capture):
            super().__init__(capture)
            self.mean = network()

        def train(self, x, y):
            loss = super().train(x, y)
            with minidl.no_grad():
                for slow, p in zip(self.mean.parameters(), self.model.parameters()):
                    slow.copy_(slow * 0.9 + p * 0.1)
            return loss

        def state(self):
            return super().state(), bits(self.mean.state_dict())

    assert agree(World, batches(12)).step.replayed


def test_arguments_of_every_form():
    class World(Plain):
        def train(self, batch, *, scale, name=None):
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(Tensor(batch["x"])), batch["y"]) * scale
            loss.backward()
            self.optimizer.step()
            return types.SimpleNamespace() if name else [loss, (loss + 1, None, "text", 3)]

    runs = []
    for capture in (False, True):
        world, results = World(capture), []
        minidl.manual_seed(1)
        for x, y in zip(X[:10], Y[:10]):
            results.append(bits(world.step({"x": x, "y": Tensor(y)}, scale=0.5)))
        runs.append((results, world.state()))
    assert runs[0] == runs[1]
    assert world.step.replayed


def test_memory_order_of_inputs():
    data = [(Tensor(x.numpy().transpose(0, 2, 1, 3)), y) for x, y in batches(6)]
    data += [(Tensor(np.asfortranarray(x.numpy())), y) for x, y in batches(6)]
    world = agree(Plain, data)
    assert world.step.replayed
    assert programs(world.step) == 2  # as eager steps may take other paths


def test_as_a_method_and_with_options():
    class Trainer:
        def __init__(self):
            self.model = network()
            self.optimizer = optim.SGD(self.model.parameters(), lr=0.1)

        @minidl.capture(fuse=False, check_every=0)
        def step(self, x, y):
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            return loss

    one, two = Trainer(), Trainer()
    for x, y in batches(5):
        one.step(x, y)
    assert Trainer.step.replayed
    minidl.manual_seed(1)
    a = [one.step(x, y).item() for x, y in batches(3)]
    b = [two.step(x, y).item() for x, y in batches(3)]
    assert a != b  # each trains its own network
    with pytest.raises(TypeError, match="step is a int"):
        minidl.capture(3)


# ---- what comes out


def test_results_are_copies_without_history():
    world, losses = Plain(True), []
    for x, y in batches(6):
        losses.append(world.step(x, y))
        assert not losses[-1].requires_grad
    assert world.step.replayed
    values = [loss.item() for loss in losses]
    assert len(set(values)) == 6
    world.step(*batches(1)[0])
    assert [loss.item() for loss in losses] == values


def test_what_is_not_the_steps_own_comes_back_as_a_copy_too():
    model = network()

    @minidl.capture
    def step(x):
        return x, model[0].bias, model[0].bias * 2

    for x, _ in batches(4):
        same, bias, twice = step(x)
        same.data[...] = 0
        bias.data[...] = 0
        assert x.numpy().any()
        assert np.array_equal(twice.numpy(), model[0].bias.detach().numpy() * 2)
        assert twice.numpy().any()
    assert step.replayed


def test_one_tensor_given_twice_is_two_inputs():
    @minidl.capture
    def step(a, b):
        return a - b

    x, y = (Tensor(np.full(3, v, np.float32)) for v in (2, 5))
    for _ in range(3):
        assert step(x, x).tolist() == [0, 0, 0]
    assert step.replayed
    assert step(x, y).tolist() == [-3, -3, -3]
    assert step.replayed


def test_a_graph_from_before_a_replayed_step_is_refused():
    world = Plain(True)
    for x, y in batches(4):
        world.step(x, y)
    assert world.step.replayed
    loss = F.cross_entropy(world.model(x), y)
    world.step(x, y)
    assert world.step.replayed
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


# ---- states of the world, each with a program of its own


def programs(step):
    return sum(map(len, step.programs.values()))


def test_another_batch_size_gets_a_program():
    data = [(x[:5], y[:5]) if i % 4 == 3 else (x, y) for i, (x, y) in enumerate(batches(20))]
    world = agree(Plain, data)
    assert world.step.replayed
    assert programs(world.step) == 2


def test_training_and_evaluation_take_turns():
    def each(world, i):
        world.model.train(i % 5 != 4)

    world = agree(Plain, batches(25), each)
    assert programs(world.step) == 2
    for single in (False, True):
        world.model.train()
        world.model[5].training = not single
        world.step(*batches(1)[0])
        assert world.step.replayed is not single


def test_what_the_step_reads_may_change_at_any_time():
    """Every one of these would be baked in by whoever compares two recordings alone."""
    changes = {
        4: lambda w: setattr(w.model[5], "p", 0.6),
        8: lambda w: w.model[0].weight.requires_grad_(False),
        12: lambda w: w.optimizer.param_groups[0].update(weight_decay=0.1),
        16: lambda w: w.model.__setattr__("2", nn.Tanh()),
        20: lambda w: w.model[0].weight.requires_grad_(True),
        24: lambda w: w.model.load_state_dict(network().state_dict()),
        28: lambda w: setattr(w.model[0].bias, "data", np.ones(4, np.float32)),
        32: lambda w: minidl.manual_seed(7),
        36: lambda w: w.optimizer.zero_grad(),
        40: lambda w: setattr(w.model[1], "momentum", 0.5),
        44: lambda w: w.model[6].bias.register_hook(lambda g: g * 2),
        48: lambda w: w.optimizer.load_state_dict(w.optimizer.state_dict()),
    }

    def each(world, i):
        changes.get(i, lambda w: None)(world)

    world = agree(lambda capture: Plain(capture, momentum=0.9), batches(52), each)
    assert world.step.replayed


SCALE = 1.0


class Config:
    scale = 1.0


def test_numbers_from_anywhere_in_python_are_watched():
    table, listed, holder, many = (
        {"scale": 1.0},
        [1.0],
        types.SimpleNamespace(scale=1.0),
        np.ones(3),
    )
    module = types.ModuleType("settings")
    module.scale = cell = 1.0

    def inner(x):
        return x * cell * module.scale

    def step(x):
        return inner(x * SCALE * table["scale"] * listed[0] * holder.scale * Config.scale * many[1])

    captured = minidl.capture(step, check_every=0)
    x = Tensor(np.arange(3, dtype=np.float32))

    def expect(n):
        for _ in range(4):
            assert captured(x).tolist() == (x * n).tolist()
        assert captured.replayed

    global SCALE
    expect(1)
    SCALE = 2.0
    expect(2)
    table["scale"] = 2.0
    expect(4)
    listed[0] = 2.0
    expect(8)
    holder.scale = 2.0
    expect(16)
    Config.scale = 2.0
    expect(32)
    many[1] = 2.0
    expect(64)
    cell = 2.0
    expect(128)
    module.scale = 2.0
    expect(256)
    SCALE = 1.0
    Config.scale = 1.0


def test_objects_that_answer_to_no_name_are_left_in_peace():
    class Touchy:
        scale = 2.0

        def __getattr__(self, name):
            raise RuntimeError(f"nobody may ask for {name}")

    touchy = Touchy()

    @minidl.capture
    def step(x):
        return x * touchy.scale

    x = Tensor(np.ones(1, np.float32))
    assert [step(x).item() for _ in range(4)] == [2, 2, 2, 2]
    assert step.replayed
    touchy.scale = 3.0
    assert step(x).item() == 3


def test_a_step_that_reaches_too_much_runs_eagerly():
    world = [[float(i)] for i in range(30_000)]

    @minidl.capture
    def step(x):
        return x * world[3][0]

    x = Tensor(np.ones(1, np.float32))
    assert "it reaches more than 20000 objects" in warned(lambda: step(x))
    assert step(x).item() == 3


def test_loop_variables_of_the_same_name_as_a_method_do_not_matter():
    world = Plain(True)
    globals()["step"] = 0  # `optimizer.step` is an attribute; nobody reads the global
    try:
        for globals()["step"], (x, y) in enumerate(batches(5)):
            world.step(x, y)
    finally:
        del globals()["step"]
    assert world.step.replayed


def test_gradients_on_or_off_around_the_step():
    weight = nn.Parameter(np.ones(3, np.float32))

    @minidl.capture
    def step(x):
        return (weight * x).sum()

    x = Tensor(np.ones(3, np.float32))
    for _ in range(3):
        step(x)
    assert step.replayed
    with minidl.no_grad():
        assert step(x).item() == 3
        assert not step.replayed


# ---- what cannot be replayed is named, and runs eagerly


class Reading(Plain):
    """A step that does something with its loss, which a test gives."""

    def __init__(self, capture, deed):
        super().__init__(capture)
        self.deed = deed

    def train(self, x, y):
        loss = super().train(x, y)
        other = self.deed(loss)
        return loss if other is None else other


def printed(loss):
    with contextlib.redirect_stdout(io.StringIO()):
        print(loss)


def branch(loss):
    return loss * 2 if loss > 1.4 else loss * 3


READINGS = {
    "item": (lambda loss: loss.item() and None, "loss.item()"),
    "numpy": (lambda loss: loss.detach().numpy() and None, "loss.detach().numpy()"),
    "array": (lambda loss: np.asarray(loss.detach()) and None, "np.asarray(loss.detach())"),
    "float": (lambda loss: float(loss) and None, "float(loss)"),
    "int": (lambda loss: int(loss) and None, "int(loss)"),
    "bool": (lambda loss: bool(loss) and None, "bool(loss)"),
    "tolist": (lambda loss: loss.tolist() and None, "loss.tolist()"),
    "format": (lambda loss: f"{loss}" and None, 'f"{loss}"'),
    "print": (printed, "print(loss)"),
    "a branch": (branch, "return loss * 2 if loss > 1.4 else loss * 3"),
    "a tensor of it": (lambda loss: Tensor(loss.item()) * 2, "Tensor(loss.item()) * 2"),
}


@pytest.mark.parametrize("name", READINGS)
def test_a_value_read_back_is_named_with_its_line(name):
    deed, line = READINGS[name]
    found = warned(lambda: agree(lambda capture: Reading(capture, deed), batches(9)))
    assert "Reading.train" in found or "Plain.train" in found
    assert "a value is read back from a tensor" in found
    assert "test_capture.py:" in found
    assert line in found


class Counting(Plain):
    count, scale = 0, 1.0

    def train(self, x, y):
        self.count += 1
        return super().train(x, y) * self.count


def test_a_python_counter_is_named():
    found = warned(lambda: agree(Counting, batches(9)))
    assert "the step itself changes what it reads of Python" in found
    assert ".count was 2 and is 3" in found


def test_a_number_that_is_another_one_in_every_step_is_named():
    def each(world, i):
        world.scale = 1 / (i + 1)

    class World(Plain):
        scale = 1.0

        def train(self, x, y):
            return super().train(x, y) * self.scale

    found = warned(lambda: agree(World, batches(14), each))
    assert "every call finds another state" in found
    assert re.search(r"scale was 0\.\d+ and is 0\.\d+", found)


def test_an_argument_that_is_another_number_in_every_step_is_named():
    @minidl.capture
    def step(x, n):
        return x * n

    x = Tensor(np.ones(2, np.float32))

    def run():
        for n in range(12):
            assert step(x, n).tolist() == [n, n]

    assert "its arguments are others" in warned(run)


def test_a_number_that_nobody_watches_is_found_in_two_recordings():
    box = array.array("d", [0.0])

    class World(Plain):
        def train(self, x, y):
            return super().train(x, y) * box[0]

    def each(world, i):
        box[0] = i + 1.0

    found = warned(lambda: agree(World, batches(9), each))
    assert "`b` of 'mul'" in found
    assert "was 3.0 and is 4.0" in found
    assert "return super().train(x, y) * box[0]" in found


def test_a_static_number_that_nobody_watches():
    box = array.array("q", [0])

    def step(x):
        box[0] += 1
        return x.clip(0, box[0])

    captured = minidl.capture(step)
    x = Tensor(np.arange(20, dtype=np.float32))

    def run():
        for i in range(6):
            assert captured(x).numpy().max() == i + 1

    found = warned(run)
    assert "`high` of 'clip'" in found
    assert "return x.clip(0, box[0])" in found


def test_another_result_of_the_same_kernels():
    box = array.array("q", [0])

    @minidl.capture
    def step(x):
        box[0] += 1
        return (x + 1, x + 2)[box[0] % 2]

    x = Tensor(np.zeros(1, np.float32))
    found = warned(lambda: [step(x) for _ in range(6)])
    assert "what the step returns is another array of the step" in found


def test_a_check_finds_what_changes_late():
    box = array.array("d", [1.0])

    @minidl.capture(check_every=10)
    def step(x):
        return x * box[0]

    x, told = Tensor(np.ones(1, np.float32)), []
    step._tell = told.append
    for i in range(1, 40):
        if i == 15:
            box[0] = 2.0
        result = step(x).item()
        assert result == (1.0 if i < 15 else 2.0) or 15 <= i < 20
    assert "the replays since the last check, 10 calls, missed it" in step.reason
    assert step.replayed


@pytest.mark.parametrize("draw", [random.random, np.random.rand], ids=["random", "numpy"])
def test_numbers_that_python_draws_are_named(draw):
    def step(x):
        return x * float(draw() < 2)  # the same kernels, whatever it draws

    captured, x = minidl.capture(step), Tensor(np.ones(1, np.float32))
    found = warned(lambda: [captured(x) for _ in range(6)])
    assert "draws from" in found
    assert draw.__name__[:4] in found


def test_numpys_generators_and_iterators_are_named():
    rng, counter = np.random.default_rng(0), itertools.count()
    x = Tensor(np.ones(1, np.float32))
    one = minidl.capture(lambda x: x * float(rng.random() < 2))
    two = minidl.capture(lambda x: x * float(next(counter) >= 0))
    assert "the state of rng" in warned(lambda: [one(x) for _ in range(6)])
    assert "counter, an iterator" in warned(lambda: [two(x) for _ in range(6)])


def test_arrays_of_numpys_made_in_the_step_are_named():
    def step(x):
        return x + Tensor(np.full(3, 2.0, np.float32))

    captured, x = minidl.capture(step), Tensor(np.ones(3, np.float32))
    found = warned(lambda: [captured(x) for _ in range(6)])
    assert "`b` of 'add'" in found
    assert "is an array from outside, another one in every step" in found
    assert "return x + Tensor(np.full(3, 2.0, np.float32))" in found


@op
def ufunc(k, x):
    return np.tanh(x), None


@op
def ufunc_after_a_kernel(k, x):
    y = k.exp(x, k.empty_like(x))
    y += 1
    return y, None


@op
def into_memory_of_the_program(k, x):
    y = k.empty_like(x)
    np.tanh(x, out=y)
    return k.exp(y, k.empty_like(x)), None


@op
def behind_the_back(k, x):
    y = k.empty_like(x)
    np.asarray(y)[...] = np.asarray(x) + 1
    return k.exp(y, k.empty_like(x)), None


@op
def assignment(k, x):
    y = k.fill(k.empty_like(x), 1)
    y[0] = 3
    return y, None


@op
def function(k, x):
    return np.concatenate([x, x]), None


@op
def method(k, x):
    return x.copy(), None


@op
def scalar(k, x):
    return k.mul(x, k.fill(k.empty((), x.dtype), x.max()), k.empty_like(x)), None


@op
def element(k, x):
    return k.fill(k.empty_like(x), x[1]), None


OPS = [ufunc, ufunc_after_a_kernel, into_memory_of_the_program, behind_the_back, assignment,
       function, method, scalar, element]  # fmt: skip


@pytest.mark.parametrize("made", OPS, ids=lambda made: made.__name__)
def test_numpy_inside_an_op_is_named_with_its_line(made):
    def step(x):
        return made(x * 2) * 3

    captured = minidl.capture(step)

    def run():
        for i in range(7):
            x = Tensor(np.arange(3, dtype=np.float32) + i)
            assert bits(captured(x)) == bits(step(x))

    found = warned(run)
    hidden = made is behind_the_back
    assert ("no kernel wrote" if hidden else "where only kernels and views can") in found
    assert "test_capture.py:" in found


def test_numpy_on_a_parameters_memory_is_found_by_a_trial():
    class World(Plain):
        def train(self, x, y):
            loss = super().train(x, y)
            for p in self.model.parameters():
                p.data *= np.float32(0.99)  # in place, past all kernels
            return loss

    found = warned(lambda: agree(World, batches(9)))
    assert "does something else than a kernel change it?" in found


def test_numpy_on_memory_that_the_step_only_reads():
    mask = Tensor(np.ones(5, np.float32))

    class World(Plain):
        def train(self, x, y):
            loss = super().train(x, y * 1 if False else y)
            mask.data[...] = 2.0 * mask.data
            return loss * mask.sum()

    def each(world, i):
        if i == 0:
            mask.data[...] = 1.0

    found = warned(lambda: agree(World, batches(9), each))
    assert "something else than a kernel changes" in found or "content of" in found
    assert "mask" in found


def test_an_argument_changed_in_place_is_named_and_changed():
    def step(x):
        x[0] = 5.0
        return x * 2

    captured = minidl.capture(step)

    def run():
        for i in range(6):
            x = Tensor(np.full(2, i, np.float32))
            assert captured(x).tolist() == [10, 2 * i]
            assert x.tolist() == [5, i]

    assert "changes an argument of the step in place" in warned(run)


def test_arrays_kept_after_the_step_are_named():
    kept, recent, box = [], collections.deque(maxlen=3), threading.local()

    class Keeping(Plain):
        def train(self, x, y):
            self.last = x * 2
            return super().train(x, y)

    found = warned(lambda: agree(Keeping, batches(9)))
    assert ".last" in found or "kept after it" in found

    @minidl.capture
    def listing(x):
        kept.append(x * 2)

    @minidl.capture
    def recalling(x):
        recent.append(x * 2)

    @minidl.capture
    def hiding(x):
        box.last = x * 2

    x = Tensor(np.ones(2, np.float32))
    assert "the number of parts of kept" in warned(lambda: [listing(x) for _ in range(6)])
    found = warned(lambda: [hiding(x) for _ in range(6)])
    assert "an array that the step made is kept after it" in found
    assert "box.last = x * 2" in found
    assert "of recent" in warned(lambda: [recalling(x) for _ in range(6)])
    assert len(kept) == 6


def test_an_input_that_requires_gradients_runs_eagerly():
    @minidl.capture
    def step(x):
        (x * x).sum().backward()

    x = Tensor(np.ones(2, np.float32), requires_grad=True)
    assert "an input requires gradients" in warned(lambda: [step(x) for _ in range(4)])
    assert x.grad.tolist() == [8, 8]


def test_memory_that_the_user_swaps_in_the_step():
    class World(Plain):
        def train(self, x, y):
            loss = super().train(x, y)
            self.model[0].bias.data = self.model[0].bias.data * np.float32(0.5)
            return loss

    warned(lambda: agree(World, batches(9)))


def test_a_first_call_may_differ():
    """What is set up when it is first needed: a cache, the optimizer's state, a line printed."""

    class World(Plain):
        scale = None

        def train(self, x, y):
            if self.scale is None:
                self.scale = Tensor(np.float32(0.5))
                print(self.scale, file=io.StringIO())
            return super().train(x, y) * self.scale

    assert agree(World, batches(8)).step.replayed


def test_there_is_a_reason_where_there_is_no_program():
    @minidl.capture(tell=lambda text: None)
    def step(x):
        return float(x.sum())

    with pytest.raises(RuntimeError, match="made of the first two calls"):
        step.program  # noqa: B018
    x = Tensor(np.ones(2, np.float32))
    for _ in range(5):
        assert step(x) == 2.0
    with pytest.raises(RuntimeError, match=r"read back .*return float\(x.sum\(\)\)"):
        step.program  # noqa: B018


# ---- checks and errors


def test_labels_are_checked_in_every_replay():
    world = Plain(True)
    for x, y in batches(5):
        world.step(x, y)
    assert world.step.replayed
    before = world.state()
    bad = Tensor(np.where(np.arange(8) == 3, -1, y.numpy()))
    with pytest.raises(ValueError, match=r"label -1 is out of range for 5 classes.*x \(8, 5\)"):
        world.step(x, bad)
    assert world.step.replayed
    after = world.state()
    assert after[1:3] == before[1:3]
    assert after[0]["0.weight"] == before[0]["0.weight"]


def test_an_error_in_a_recorded_step_leaves_all_as_it_was():
    @minidl.capture
    def step(x):
        return x @ Tensor(np.ones((7, 2), np.float32))

    kernels = minidl.device("cpu").kernels
    for _ in range(3):
        with pytest.raises(ValueError, match="columns"):
            step(Tensor(np.ones((2, 3), np.float32)))
    assert minidl.device("cpu").kernels is kernels
    assert not {"numpy", "array", "assign"} & vars(minidl.device("cpu")).keys()
    x = Tensor(np.ones((2, 2), np.float32))
    assert x.sum().item() == 4


def test_other_threads_are_not_recorded():
    jobs, done = queue.SimpleQueue(), queue.SimpleQueue()

    def elsewhere():
        while jobs.get():
            done.put((x + x).sum().item())

    @minidl.capture
    def step(x):
        jobs.put(True)
        assert done.get(timeout=10) == 6
        return x * 2

    x = Tensor(np.ones(3, np.float32))
    thread = threading.Thread(target=elsewhere, daemon=True)
    thread.start()
    for _ in range(4):
        step(x)
    jobs.put(False)
    thread.join()
    assert step.replayed
    assert [e.name for e in step.program.entries] == ["mul"]


def test_a_step_within_a_step():
    inner = minidl.capture(lambda x: x * 2)

    @minidl.capture
    def outer(x):
        return inner(x) + inner(x + 1)

    for i in range(5):
        x = Tensor(np.full(2, i, np.float32))
        assert outer(x).tolist() == [4 * i + 2] * 2
    assert [e.name for e in outer.program.entries] == ["mul", "add", "mul", "add"]


# ---- memory


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 3000)), min_size=1)
)
def test_memory_is_never_shared_by_two_that_live(drawn):
    device = minidl.device("cpu")
    found = {}
    for a, b, size in drawn:
        storage = types.SimpleNamespace(device=device)
        found[Key(storage)] = plan.Span(min(a, b), max(a, b), size)
    spans = list(found.values())
    size = plan.place(found)[device]
    for s, t in itertools.combinations(spans, 2):
        if s.first <= t.last and t.first <= s.last:
            assert s.offset + s.nbytes <= t.offset or t.offset + t.nbytes <= s.offset
    assert all(s.offset % plan.ALIGNMENT == 0 for s in spans)
    assert max(s.offset + s.nbytes for s in spans) == size
    assert size <= sum(plan.aligned(s.nbytes) for s in spans)


class Key:
    def __init__(self, storage):
        self.device = storage.device


def test_memory_is_shared_within_a_program_and_between_programs():
    world = Plain(True)
    for x, y in batches(4):
        world.step(x, y)
    large = world.step.program
    apart = sum(storage.nbytes for storage in large.spans)
    assert large.nbytes < 0.8 * apart
    for x, y in batches(4):
        world.step(x[:3], y[:3])
    small = world.step.program
    assert small is not large
    (a,), (b,) = large.blocks.values(), small.blocks.values()
    assert a is b
    for p in world.model.parameters():
        assert not np.shares_memory(p.data, a)
        assert not np.shares_memory(p.grad.data, a)


def test_parameters_gradients_and_buffers_are_never_planned():
    world = Plain(True, optimizer=optim.Adam)
    for x, y in batches(4):
        world.step(x, y)
    (block,) = world.step.program.blocks.values()
    held = [*world.model.parameters(), *world.model.buffers()]
    arrays = [t.data for t in held] + [p.grad.data for p in world.model.parameters()]
    arrays += [flat.state(n) for fs in world.optimizer._flats for flat in fs for n in "mv"]
    assert not any(np.shares_memory(a, block) for a in arrays)


@pytest.mark.parametrize("name", sorted(plan.IN_PLACE))
def test_kernels_that_may_write_where_they_read(name):
    writes_where_it_reads(minidl.device("cpu"), name)


@pytest.mark.parametrize("name", sorted(plan.IN_PLACE))
def test_cuda_kernels_that_may_write_where_they_read(name, cuda):
    writes_where_it_reads(cuda, name)


def writes_where_it_reads(device, name):
    """With the first output in the place of each input of its form, the bits are the same."""
    kernel, tried = getattr(device.kernels, name), 0
    kinds = roles(kernel)
    outs = [n for n, kind in kinds.items() if kind == "out"]
    for dtype, seed in itertools.product(("float32", "float64"), range(16)):
        args = arguments(name, dtype, seed)
        if args is None or args[outs[0]] is None:
            continue
        form = args[outs[0]].shape
        alike = [n for n, k in kinds.items() if k == "in" and np.shape(args[n]) == form]
        for n, a in args.items():
            args[n] = np.full(a.shape, 7.0, a.dtype or dtype) if isinstance(a, Blank) else a
        want = placed(device, kernel, args, outs, outs[0])
        assert all(placed(device, kernel, args, outs, n) == want for n in alike)
        tried += len(alike)
    assert tried


def arguments(name, dtype, seed):
    """Arguments of a kernel as the Case draws them whose kernel or gradient it is, or None."""
    case = next(c for c in CASES.values() if name in (c.name, *gradients(c)))
    draw = Draw(Seeded(seed), dtype, "large" if seed % 2 else "any")
    calls = draw_example(case, draw).calls
    return next((call.args for call in calls if call.kernel == name), None)


def placed(device, kernel, args, outs, where):
    """Results of a kernel whose first output lies where an argument does."""
    here = {n: device.array(a.copy()) if isinstance(a, np.ndarray) else a for n, a in args.items()}
    here[outs[0]] = here[where]
    with np.errstate(all="ignore"):
        kernel(*here.values())
    return [here[n] is None or device.numpy(here[n]).tobytes() for n in outs]


def test_an_output_takes_over_the_memory_of_an_input_of_its_form_alone():
    def spans(step):
        for _ in range(3):
            step(Tensor(X[0, 0, :, :, 0]))
        assert step.replayed
        made = {e.name: [r.storage for _, r in e.refs()][-1] for e in step.program.entries}
        return {name: step.program.spans[storage] for name, storage in made.items()}

    found = spans(minidl.capture(lambda x: (x * 2).exp() + 1))
    assert found["mul"] is found["exp"] is found["add"]

    @minidl.capture
    def turned(x):  # its memory is left, but lies the other way round
        kept = x + 1
        return kept * (-x).T, kept

    found = spans(turned)
    assert found["mul"] is not found["neg"]

    @minidl.capture
    def both_ways(x):  # an element is read after another one is written
        kept = -x
        return kept * kept.T

    square = Tensor(RNG.normal(size=(70, 70)))
    results = [both_ways(square).numpy() for _ in range(3)]
    assert both_ways.replayed and results[0].tobytes() == results[2].tobytes()
    assert len({id(span) for span in both_ways.program.spans.values()}) == 3

    @minidl.capture
    def part(x):  # half of it is read again
        h = -x
        return h[:3] * 2, h[3:]

    found = spans(part)
    assert found["mul"] is not found["neg"]


# ---- random programs


UNARY = ["exp", "neg", "relu", "sigmoid", "tanh", "sum0", "mean", "reshape", "T", "slice", "clip"]
BINARY = ["add", "sub", "mul", "maximum", "where", "matmul"]


@st.composite
def small_programs(draw):
    """Steps of a little language over a pool of values: (name, operands)."""
    n = draw(st.integers(1, 8))
    moves = []
    for i in range(n):
        name = draw(st.sampled_from(UNARY + BINARY))
        operands = [draw(st.integers(0, i + 2)) for _ in range(1 + (name in BINARY))]
        moves.append((name, operands, draw(st.sampled_from([0.5, 1.0, 2.0]))))
    return moves, draw(st.integers(0, n + 2))


def applied(name, a, b, number):
    if name in ("exp", "sigmoid", "tanh", "relu", "neg"):
        a = a.clip(-2, 2)
        return -a if name == "neg" else getattr(a, name)()
    if name == "sum0":
        return a + a.sum(axis=0, keepdims=True) * number
    if name == "mean":
        return a * a.mean()
    if name == "reshape":
        return a.reshape(9).reshape(3, 3) * number
    if name == "T":
        return a.T
    if name == "slice":
        return a[::-1] + a[:1]
    if name == "clip":
        return a.clip(-number, number)
    if name == "where":
        return minidl.where(a < b, a, b * number)
    if name == "matmul":
        return a @ b * number
    return getattr(minidl, name)(a, b)


@given(small_programs(), st.integers(0, 2**31))
def test_random_steps_replay_bit_for_bit(drawn, seed):
    moves, last = drawn
    rng = np.random.default_rng(seed)
    start, data = rng.normal(size=(2, 3, 3)), rng.normal(size=(6, 3, 3)).astype(np.float32)
    runs = []
    for capture in (False, True):
        weights = [nn.Parameter(w.astype(np.float32)) for w in start]
        optimizer = optim.SGD(weights, lr=0.01, momentum=0.5)

        def step(x):
            optimizer.zero_grad()  # noqa: B023
            pool = [x, *weights]  # noqa: B023
            for name, operands, number in moves:
                a, b = pool[operands[0]], pool[operands[-1]]
                pool.append(applied(name, a, b, number))
            loss = (pool[last] * weights[0]).clip(-9, 9).mean()  # noqa: B023
            loss.backward()
            optimizer.step()  # noqa: B023
            return loss, pool[-1]

        run = minidl.capture(step, fuse=False) if capture else step
        with np.errstate(all="ignore"):
            results = [bits(run(Tensor(x))) for x in data]
        runs.append((results, bits([w.detach() for w in weights])))
    assert runs[0] == runs[1]
    assert run.replayed, run.reason


# ---- fit


def cloud(n=48, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return (rng.normal(size=(n, 4)) + 4 * np.eye(3, 4)[y]).astype(np.float32), y


def fitted(capture, **options):
    minidl.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm2d(8), nn.Dropout(0.2), nn.Linear(8, 3))
    optimizer = optim.Adam(net.parameters(), lr=0.01)
    data = minidl.data.DataLoader(cloud(), 10, shuffle=True, seed=0)  # a short last batch
    history = minidl.train.fit(
        net, data, epochs=4, optimizer=optimizer, validation=data, progress=False, capture=capture,
        schedule=optim.OneCycleLR(optimizer, 0.05, 20), clip_grad_norm=1.0, **options,
    )  # fmt: skip
    del history["seconds"]
    return history, history.batch_loss, bits(net.state_dict()), bits(optimizer.state_dict())


def test_fit_replays_its_steps_bit_for_bit(monkeypatch, capsys):
    monkeypatch.setattr(minidl.train, "captured", Seen)
    assert fitted(True) == fitted(False)
    step = Seen.last
    assert step.calls == 20
    assert step.replays == 20 - 2 * 2  # two batch sizes, two recordings each
    assert capsys.readouterr().err == ""


class Seen:
    """A captured step that counts."""

    def __init__(self, *args, **named):
        self.step, self.calls, self.replays = minidl.capture(*args, **named), 0, 0
        Seen.last = self

    def __call__(self, *batch):
        result = self.step(*batch)
        self.calls, self.replays = self.calls + 1, self.replays + self.step.replayed
        return result


def test_fit_says_in_a_line_why_it_runs_eagerly(capsys):
    def loss(output, y):
        value = F.cross_entropy(output, y)
        return value if value.item() > 1e-3 else value * 1

    assert fitted(True, loss=loss)[1:] == fitted(False)[1:]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("fit: the steps run eagerly, not as a captured program: a value is ")
    assert "return value if value.item() > 1e-3 else value * 1" in lines[0]


@pytest.mark.parametrize("bad", [2, 9])  # an eager step, and one that is replayed
def test_a_loss_that_is_not_finite_leaves_the_weights_alone(bad):
    minidl.manual_seed(0)
    net = nn.Linear(4, 3)
    x, y = cloud()
    seen = []

    class Data:
        def __iter__(self):
            for i in range(12):
                seen.append(bits(net.state_dict()))
                yield Tensor(x[i : i + 8] * (np.float32(np.nan) if i == bad else 1)), Tensor(y[:8])

    with pytest.raises(FloatingPointError, match=rf"the loss is nan in epoch 1, batch {bad + 1}"):
        minidl.train.fit(net, Data(), epochs=1, lr=0.1, optimizer="sgd", progress=False)
    assert bits(net.state_dict()) == seen[-1] != seen[-2]


# ---- rewrites


def test_a_rewrite_is_applied_and_seen(monkeypatch):
    """neg and exp as one host-made kernel: the place where fusions go."""
    k = minidl.device("cpu").kernels

    def neg_exp(x, y: Out):
        return k.exp(k.neg(x, y), y)

    def exp_of_neg(flow):
        for neg in flow.calls("neg"):
            exp = flow.only_reader(neg.args[1])
            if exp and exp.name == "exp":
                new = rewrite.call("neg_exp", exp, "neg, exp", x=neg.args[0], y=exp.args[1])
                assert flow.replace([neg, exp], exp, new)

    monkeypatch.setattr(k, "neg_exp", neg_exp, raising=False)
    monkeypatch.setattr(rewrite, "REWRITES", [exp_of_neg])
    results = {}
    for fuse in (True, False):

        @minidl.capture(fuse=fuse)
        def step(x):
            return (-(x * 2)).exp() + 1

        results[fuse] = [bits(step(Tensor(x))) for x in X[:4, 0, 0]]
        assert step.replayed
        assert ("neg_exp" in str(step.program)) is fuse
        assert ("1 rewritten" in str(step.program)) is fuse
    assert results[True] == results[False]


# ---- tables


def test_a_program_as_a_table():
    world = Plain(True, optimizer=optim.Adam)
    for x, y in batches(4):
        world.step(x, y)
    lines = str(world.step.program).splitlines()
    assert lines[0].split() == ["kernel", "op", "shapes", "KB", "MFLOP"]
    convolution = next(line for line in lines if line.startswith("conv2d "))
    assert "8x6x6x2 3x3x2x4 4 -> 8x6x6x4" in convolution
    assert convolution.split()[-1] == f"{2 * 8 * 36 * 4 * 18 / 1e6:.3f}"
    read, write = 8 * 36 * 2 + 72 + 4, 8 * 36 * 4
    assert convolution.split()[-2] == f"{4 * (read + write) / 1e3:.1f}"
    assert any(line.startswith("Flat.bring") and "on the host" in line for line in lines)
    kernels = sum(not e.host for e in world.step.program.entries)
    assert lines[-1].startswith(f"{kernels} kernels, none rewritten; ")
    page = world.step.program._repr_html_()
    assert page.count("<tr>") == len(lines) - 1
    assert "-&gt;" in page


def test_a_profile_times_kernels_and_changes_nothing():
    world = Plain(True, optimizer=optim.Adam)
    for x, y in batches(4):
        world.step(x, y)
    before = world.state()
    profile = world.step.program.profile(repeats=3)
    assert world.state() == before
    entries = world.step.program.entries
    assert [s > 0 for s in profile.seconds] == [not e.host for e in entries]
    assert profile.rate > 1e8
    assert profile.bandwidth > 1e8
    text = str(profile)
    assert "of bound" in text.splitlines()[0]
    assert "ms in kernels, of" in text.splitlines()[-1]
    assert "<table>" in profile._repr_html_()
    assert minidl.profile(Plain(True).step, x, y, repeats=1).seconds


def test_operations_of_products():
    from minidl.capture.table import operations

    with Recorder() as recorder:
        a, b = (Tensor(np.ones(s, np.float32), requires_grad=True) for s in ((2, 4, 3), (2, 3, 5)))
        (a @ b).sum().backward()
        a, b = (Tensor(np.ones(s, np.float32), requires_grad=True) for s in ((4, 3), (3, 5)))
        (a @ b).sum().backward()
    products = [e for e in recorder.recording.entries if "mm" in e.name or "matmul" in e.name]
    assert [operations(e) for e in products] == [2 * 2 * 60] * 3 + [2 * 60] * 3


# ---- on the other device


@pytest.mark.parametrize("kind", [optim.Adam, optim.SGD])
def test_cuda_steps_replay_bit_for_bit(cuda, kind):
    class World(Plain):
        def __init__(self, capture):
            super().__init__(capture, lambda: network().cuda(), kind)
            self.schedule = optim.OneCycleLR(self.optimizer, 0.05, total_steps=30)

        def train(self, x, y):
            loss = super().train(x, y)
            self.schedule.step()
            return loss * 0.5

        def state(self):
            return super().state(), cuda.kernels.memory.to_host(
                minidl.random.default_generator("cuda").state.data
            ).tolist()

    data = [(x[:4].cuda(), y[:4].cuda()) for x, y in batches(7)]
    minidl.random.default_generator("cuda")
    world = agree(World, data)
    assert world.step.replayed
    assert list(world.step.program.blocks) == [cuda]
    assert world.step.program.nbytes < sum(s.nbytes for s in world.step.program.spans)
    profile = minidl.profile(world.step, *data[0], repeats=1)
    assert profile.rate == 0  # an emulator has no roof
    assert "adam_step_" in str(profile) or "sgd_step_" in str(profile)


def test_cuda_values_read_back_and_host_arrays_are_named(cuda):
    @minidl.capture
    def reading(x):
        return x * x.sum().item()

    @minidl.capture
    def moving(x):
        return x * Tensor(np.ones(3, np.float32), device="cuda")

    @minidl.capture
    def doubling(x):
        return x * 2

    for where in ["cpu", "cuda"] * 3:
        x = Tensor(np.ones(3, np.float32), device=where)
        assert doubling(x).device.name == where
        assert doubling(x).tolist() == [2, 2, 2]
    assert doubling.replayed
    assert "a value is read back" in warned(lambda: [reading(x) for _ in range(4)])
    assert "another one in every step" in warned(lambda: [moving(x) for _ in range(5)])
    assert reading(x).tolist() == [3, 3, 3]


# ---- what recorders are to others


def test_devices_are_themselves_again_after_a_recording():
    device = minidl.device("cpu")
    kernels = device.kernels
    with Recorder():
        assert device.kernels is not kernels
    assert device.kernels is kernels
    assert minidl.backend.recorder is None


def test_differences_are_found_in_every_part():
    def record(call):
        with Recorder() as recorder:
            call()
        return recorder.recording

    x = Tensor(np.ones((2, 2), np.float32))
    right = record(lambda: (x + x).exp())
    others = {
        "ran where": lambda: (x * x).exp(),
        "ran in one step": lambda: x + x,
        "`a` of 'add'": lambda: (x[:1] + x[:1]).exp(),
    }
    assert program.difference(right, record(lambda: (x + x).exp())) == ""
    for text, call in others.items():
        assert text in program.difference(right, record(call))
    first, second = (record(lambda i=i: (x + x, x * x)[i].exp()) for i in (0, 1))
    assert "is another array of the step" in program.difference(first, second)


def test_a_large_input_is_read_where_it_lies_and_others_are_copied():
    rng = np.random.default_rng(0)
    w = minidl.Tensor(rng.standard_normal((256, 3), np.float32))
    step = minidl.capture(lambda x: x @ w)
    batches = [rng.standard_normal((128, 256), np.float32) for _ in range(6)]
    batches[3] = np.concatenate([batches[3]] * 2, 1)[:, :256]  # with gaps
    batches[4].flags.writeable = False
    for i, x in enumerate(batches):
        y = step(minidl.Tensor(x)).numpy()
        np.testing.assert_allclose(y, x @ w.numpy(), rtol=1e-4, atol=1e-4)
        if i >= 2 and step.replayed:
            held = step.program.lent[0]
            assert (held is None) == (i in (3, 4))
            if held is not None:
                assert np.shares_memory(held, x)
                x[:] = 0  # as an eager step would, the next one sees it
                assert not step(minidl.Tensor(x)).numpy().any()
    assert step.replayed
