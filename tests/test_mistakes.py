"""Mistakes that raise no error: each one is told once it is made, and right programs hear nothing.

Every warning is an error in this suite, so that a right program need only run.
"""

import gc
import re
import warnings

import numpy as np
import pytest

import minidl
from minidl import Tensor, mistakes, nn, optim
from minidl.data import DataLoader, digits
from minidl.nn import functional as F
from minidl.train import fit

LABELS = Tensor(np.arange(8) % 3)


@pytest.fixture(autouse=True)
def forgetful():
    """No test sees what another one left behind."""
    mistakes._suspect[:] = lambda: None, 0


def images(n=8, features=6):
    return Tensor(np.sin(np.arange(n * features)).reshape(n, features).astype(np.float32))


def network(*layers):
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), *layers)


def told(match):
    return pytest.warns(minidl.LintWarning, match=match)


# --- what comes before a loss


class ReluOnLogits(nn.Module):
    """As the fourth document has it."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = x.view(-1, 6)
        x = minidl.relu(self.fc1(x))
        return minidl.relu(self.fc2(x))


@pytest.mark.parametrize(
    "model",
    [
        ReluOnLogits(), network(nn.ReLU()), network(nn.ReLU(), nn.Flatten()),
        nn.Sequential(nn.Linear(6, 3), nn.ReLU()),
    ],
    ids=["function", "fused", "behind a view", "one layer"],
)  # fmt: skip
def test_a_relu_on_the_logits_is_told(model):
    with told("cross_entropy: its input comes from relu.*no relu behind the last layer"):
        nn.CrossEntropyLoss()(model(images()), LABELS)


def test_a_softmax_before_cross_entropy_is_told():
    for model in (network(nn.Softmax()), lambda x: F.softmax(network()(x))):
        with told("comes from softmax.*there are two: leave yours out"):
            F.cross_entropy(model(images()), LABELS)
    with told("comes from softmax"):
        F.cross_entropy(network(nn.Softmax())(images()), LABELS, label_smoothing=0.1)
    with told("nll_loss: its input comes from softmax.*log_softmax"):
        F.nll_loss(network(nn.Softmax())(images()), LABELS)


def test_a_sigmoid_before_the_loss_that_takes_its_own_is_told():
    target = Tensor(np.ones((8, 3), np.float32))
    loss = nn.BCEWithLogitsLoss()
    with told("comes from sigmoid.*binary_cross_entropy, which expects probabilities"):
        loss(network(nn.Sigmoid())(images()), target)
    with told("comes from relu"):
        loss(network(nn.ReLU())(images()), target)


def test_the_warning_stands_at_the_line_of_the_users_code():
    with pytest.warns(minidl.LintWarning) as caught:
        F.cross_entropy(network(nn.ReLU())(images()), LABELS)
    assert caught[0].filename == __file__


def test_what_is_right_before_a_loss_is_not_told():
    ones = Tensor(np.ones((8, 3), np.float32))
    F.cross_entropy(network()(images()), LABELS)
    F.cross_entropy(network(nn.Flatten())(images()), LABELS)
    F.cross_entropy(network(nn.Dropout(0.5))(images()), LABELS)
    F.nll_loss(F.log_softmax(network()(images())), LABELS)
    F.binary_cross_entropy(network(nn.Sigmoid())(images()), ones)
    F.mse_loss(network(nn.ReLU())(images()), ones)  # numbers from 0 on, say a regression's
    F.kl_div(F.log_softmax(network()(images())), ones / 3)
    squeeze = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.GlobalAvgPool2d())  # SqueezeNet's end
    F.cross_entropy(squeeze(Tensor(np.ones((8, 4, 4, 1), np.float32))), LABELS)
    with minidl.no_grad():  # measured only
        F.cross_entropy(network(nn.ReLU())(images()), LABELS)


def test_fit_tells_it_too():
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.ReLU())
    with told("comes from relu"):
        fit(model, DataLoader(digits("test")[:64], 32), epochs=1, progress=False)


# --- losses that nobody uses


def losses(model, count, then=lambda loss: None):
    for _ in range(count):
        then(F.cross_entropy(model(images()), LABELS))


def test_losses_that_are_never_learnt_from_are_told():
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    with told("none is learnt from.*zero_grad.*backward.*step.*no_grad"):
        losses(model, 128)
    assert optimizer.param_groups


def test_losses_of_a_network_with_statistics_are_told_too():
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm2d(5), nn.Linear(5, 3))
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    with told("none is learnt from"):
        losses(model, 128)
    assert optimizer.param_groups


def test_a_loss_that_does_not_count_yet_is_not_told():
    """A warm-up: the second head's loss is multiplied by 0 at first."""
    trunk, first, second = nn.Linear(6, 5), nn.Linear(5, 3), nn.Linear(5, 3)
    parts = [*trunk.parameters(), *first.parameters(), *second.parameters()]
    optimizer = optim.SGD(parts, lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        hidden = trunk(images())
        other = F.cross_entropy(second(hidden.detach()), LABELS)
        (F.cross_entropy(first(hidden), LABELS) + 0.0 * other).backward()
        optimizer.step()


def test_losses_that_are_only_looked_at_are_not_told():
    losses(network(), 200)  # no optimizer: nothing is to be learnt
    model = network()
    optim.SGD(model.parameters(), lr=0.01)
    with minidl.no_grad():
        losses(model, 200)


def test_losses_that_are_learnt_from_are_not_told():
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    losses(model, 20)  # looked at before the training
    losses(model, 200, lambda loss: loss.backward())  # added up, not stepped yet
    optimizer.zero_grad()
    losses(model, 200)  # and after it
    assert gc.collect() >= 0


def test_a_new_model_in_each_of_many_short_trainings_is_not_told():
    for _ in range(80):  # the loss that is looked at is often the first one of a model
        model = network()
        optimizer = optim.SGD(model.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(images()), LABELS).backward()
            optimizer.step()


# --- gradients that nobody forgets


def train(model, optimizer, steps, before=lambda: None, after=lambda: None):
    for _ in range(steps):
        before()
        F.cross_entropy(model(images()), LABELS).backward()
        optimizer.step()
        after()


def pair(kind=optim.SGD):
    model = network()
    return model, kind(model.parameters(), lr=0.01)


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam])
def test_a_step_without_zero_grad_is_told_once(kind):
    model, optimizer = pair(kind)
    with told("no zero_grad\\(\\) since the last step.*step after the last of them"):
        train(model, optimizer, 3)
    train(model, optimizer, 20)  # no more
    assert all(p.node.hooks is None for p in model.parameters())


def test_gradients_are_forgotten_in_many_right_ways():
    for ways in ("before", "after"):
        model, optimizer = pair()
        train(model, optimizer, 9, **{ways: optimizer.zero_grad})
        model, optimizer = pair()
        train(model, optimizer, 9, **{ways: model.zero_grad})

        def by_hand(model=model):
            for p in model.parameters():
                p.grad = None

        train(model, optimizer, 9, **{ways: by_hand})

        def in_place(model=model):
            for p in model.parameters():
                if p.grad is not None:
                    p.grad[...] = 0.0

        model, optimizer = pair()
        train(model, optimizer, 9, **{ways: lambda m=model: in_place(m)})


def test_adding_gradients_up_on_purpose_is_not_told():
    model, optimizer = pair()
    for i in range(30):
        (F.cross_entropy(model(images()), LABELS) / 3).backward()
        if i % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()
    model, optimizer = pair()
    for i in range(30):
        (F.cross_entropy(model(images()), LABELS) / 3).backward()
        if i % 3 == 2:
            optimizer.step()
            model.zero_grad()


def test_several_steps_along_one_gradient_are_not_told():
    model, optimizer = pair()
    F.cross_entropy(model(images()), LABELS).backward()
    for _ in range(9):
        optimizer.step()


def test_a_closure_that_forgets_them_is_not_told():
    model, optimizer = pair()

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images()), LABELS)
        loss.backward()
        return loss

    for _ in range(9):
        optimizer.step(closure)


@pytest.mark.parametrize("by_model", [True, False])
def test_a_gan_is_not_told(by_model):
    """The generator's loss leaves gradients at the discriminator, which are forgotten later."""
    generator, judge = nn.Linear(4, 6), nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1))
    of_g, of_j = optim.Adam(generator.parameters()), optim.Adam(judge.parameters())
    ones, zeros = Tensor(np.ones((8, 1), np.float32)), Tensor(np.zeros((8, 1), np.float32))
    loss = nn.BCEWithLogitsLoss()
    for _ in range(9):
        (judge if by_model else of_j).zero_grad()
        loss(judge(images()), ones).backward()
        fake = generator(images(features=4))
        loss(judge(fake.detach()), zeros).backward()
        of_j.step()
        (generator if by_model else of_g).zero_grad()
        loss(judge(fake), ones).backward()
        of_g.step()


def test_two_losses_of_one_graph_and_parts_that_rest_are_not_told():
    """Actor and critic on a common trunk: one is trained each time, the other every third time."""
    trunk, actor, critic = nn.Linear(6, 5), nn.Linear(5, 3), nn.Linear(5, 1)
    first = optim.Adam([*trunk.parameters(), *actor.parameters()])
    second = optim.SGD(critic.parameters(), lr=0.1)
    for i in range(12):
        first.zero_grad()
        hidden = F.relu(trunk(images()))
        F.cross_entropy(actor(hidden), LABELS).backward(retain_graph=True)
        value = (critic(hidden) * critic(hidden)).mean()
        value.backward()
        first.step()
        if i % 3 == 0:
            second.step()
            second.zero_grad()


def test_a_frozen_base_and_a_part_without_gradients_are_not_told():
    base, head = nn.Linear(6, 5), nn.Linear(5, 3)
    base.requires_grad_(False)
    optimizer = optim.SGD([*base.parameters(), *head.parameters()], lr=0.1)
    for _ in range(70):
        optimizer.zero_grad()
        F.cross_entropy(head(base(images())), LABELS).backward()
        optimizer.step()


def test_a_captured_step_is_not_looked_at_when_it_is_replayed(monkeypatch):
    model, optimizer = pair()

    @minidl.capture
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(4):
        step(images(), LABELS)
    assert step.replayed
    monkeypatch.setattr(F, "watched", lambda *_: pytest.fail("asked in a replay"))
    for _ in range(40):
        step(images(), LABELS)


def test_a_resnets_training_asks_for_nothing(monkeypatch):
    """A right eager step does not even load the file of mistakes, but at each 64th loss."""

    class Block(nn.Module):
        def __init__(self):
            self.inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))

        def forward(self, x):
            return minidl.relu(x + self.inner(x))

    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), Block(), Block(), nn.GlobalAvgPool2d(), nn.Linear(4, 3)
    )
    optimizer, x = optim.SGD(model.parameters(), lr=0.1), minidl.rand(8, 6, 6, 1)
    asked = []
    monkeypatch.setattr(mistakes, "of_loss", lambda *args: asked.append(args[2]))
    monkeypatch.setattr(mistakes, "unzeroed", lambda _: pytest.fail("asked"))
    for _ in range(64):
        optimizer.zero_grad()
        F.cross_entropy(model(x), LABELS).backward()
        optimizer.step()
    assert asked == [True]


# --- lint: all of it, when asked


def batch(n=8):
    x = np.sin(np.arange(n * 784)).reshape(n, 28, 28, 1).astype(np.float32)
    return x, np.arange(n) % 10


def cnn(*end):
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(196, 10),
                         *end)  # fmt: skip


def test_lint_finds_nothing_wrong_with_a_right_model_and_changes_nothing():
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.BatchNorm2d(16), nn.Linear(16, 10))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    F.cross_entropy(model(Tensor(batch()[0])), Tensor(batch()[1])).backward()
    before = model.state_dict()
    grads = [p.grad.numpy().copy() for p in model.parameters()]
    assert minidl.lint(model, batch()) == []
    assert minidl.lint(model, next(iter(DataLoader(digits("test")[:16], 16)))) == []
    assert model.training and optimizer.zeroed
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    for p, grad in zip(model.parameters(), grads):
        np.testing.assert_array_equal(p.grad.numpy(), grad)


class Idle(nn.Module):
    def __init__(self):
        self.used, self.unused = nn.Linear(784, 10), nn.Linear(3, 3)

    def forward(self, x):
        return self.used(x.flatten(1))


def frozen():
    return cnn().requires_grad_(False)


def dead():
    model = cnn()
    with minidl.no_grad():
        model[0].bias.copy_(np.full(4, -100.0, np.float32))
    return model


@pytest.mark.parametrize(
    "model, given, match",
    [
        (cnn(nn.ReLU()), batch(), "comes from relu"),
        (cnn(nn.Softmax()), batch(), "comes from softmax"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(4, 10)), batch(), "put a Flatten before"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(196, 10)), batch(), "put a Flatten before"),
        (nn.Sequential(nn.Flatten(), nn.Conv2d(1, 4, 3)), batch(), "is a Flatten before it"),
        (cnn(), (batch()[0], batch()[1] + 5), "label 12 is out of range for 10 classes"),
        (cnn(), (batch()[0], np.eye(10)[batch()[1]].astype(int)), "label is one-hot"),
        (cnn(), (batch()[0], batch()[1].astype(float)), "float64"),
        (cnn(), (np.rint(127 * (1 + batch()[0])), batch()[1]), "bytes, 0 to 254.*255"),
        (cnn(), (batch()[0] + np.float32(np.inf), batch()[1]), "not finite"),
        (dead(), batch(), "the same for all samples"),
        (Idle(), batch(), "does not depend on unused.weight, unused.bias"),
        (frozen(), batch(), "nothing can be trained"),
    ],
)
def test_lint_says_what_is_wrong(model, given, match):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = minidl.lint(model, given)
    assert any(re.search(match, text) for text in found), found
