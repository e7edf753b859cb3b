"""Optimizers over flat buffers, schedules, clipping: against PyTorch's numbers and plain NumPy."""

import copy
import math

import numpy as np
import pytest

import minidl
from minidl import Tensor, nn, optim


def wave(*shape, phase=0.0):
    """Numbers that every framework can make alike."""
    return np.sin(np.arange(math.prod(shape)) * 0.7 + phase).reshape(shape)


def network(dtype="float64"):
    """A small network with weights that PyTorch was given too."""
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(12, 4),
    ).astype(dtype)  # fmt: skip
    values = {
        "0.weight": wave(3, 3, 2, 3), "0.bias": wave(3, phase=1),
        "1.weight": 1 + 0.5 * wave(3, phase=2), "1.bias": wave(3, phase=3),
        "1.running_mean": np.zeros(3), "1.running_var": np.ones(3),
        "5.weight": wave(12, 4, phase=4), "5.bias": wave(4, phase=5),
    }  # fmt: skip
    model.load_state_dict({name: value.astype(dtype) for name, value in values.items()})
    return model


def loss_of(model):
    dtype = next(model.parameters()).dtype
    x = wave(5, 8, 8, 2, phase=6) * wave(5, 8, 8, 2, phase=0.3)
    return nn.CrossEntropyLoss()(model(Tensor(x.astype(dtype))), Tensor(np.array([0, 3, 1, 2, 2])))


def train_step(model, optimizer, without=()):
    """One step; the parameters of some numbers have no gradient in it."""
    optimizer.zero_grad()
    loss = loss_of(model)
    loss.backward()
    for i, p in enumerate(model.parameters()):
        if i in without:
            p.grad = None
    optimizer.step()
    return loss.item()


def parameter(*values, dtype="float64"):
    return nn.Parameter(np.array(values, dtype))


def flat_of(optimizer):
    ((flat,),) = optimizer._flats
    return flat


def count_calls(monkeypatch, *names):
    """Calls of some kernels from now on, with the sizes of their first argument."""
    k, calls = minidl.device("cpu").kernels, []

    def counting(name, kernel):
        def counted(x, *rest):
            calls.append((name, x.size))
            return kernel(x, *rest)

        return counted

    for name in names:
        monkeypatch.setattr(k, name, counting(name, getattr(k, name)))
    return calls


KINDS = {
    "sgd": lambda p: optim.SGD(p, lr=0.05),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.8, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.02),
    "adam-decay": lambda p: optim.Adam(p, lr=0.02, betas=(0.8, 0.99), eps=1e-3, weight_decay=0.1),
    "adamw": lambda p: optim.AdamW(p, lr=0.02, weight_decay=0.5),
    "rmsprop": lambda p: optim.RMSprop(p),
    "rmsprop-centered": lambda p: optim.RMSprop(
        p, lr=0.005, alpha=0.9, eps=1e-3, weight_decay=0.1, momentum=0.8, centered=True
    ),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.05),
    "adagrad-decay": lambda p: optim.Adagrad(
        p, lr=0.1, lr_decay=0.2, weight_decay=0.1, initial_accumulator_value=0.01, eps=1e-3
    ),
    "lion": lambda p: optim.Lion(p, lr=0.01),
    "lion-decay": lambda p: optim.Lion(p, lr=0.02, betas=(0.8, 0.9), weight_decay=0.3),
    "lamb": lambda p: optim.LAMB(p, lr=0.02),
    "lamb-decay": lambda p: optim.LAMB(p, lr=0.05, betas=(0.8, 0.99), eps=1e-3, weight_decay=0.2),
}
# PyTorch 2.13, float64: five losses; the filters and the last bias have no gradient in the third.
LOSSES = {
    "sgd": [1.404357859253477, 1.2487030341831749, 1.1676515186664933, 1.1260227749629976,
            1.0822292831122504],
    "momentum": [1.404357859253477, 1.2485836646370032, 1.1218072004028103, 1.0452067980513227,
                 1.009094980643612],
    "nesterov": [1.404357859253477, 1.1763050341688683, 1.0560061929007214, 1.022399842889388,
                 0.990819512359522],
    "adam": [1.404357859253477, 1.2018677038258405, 1.1053453830816038, 1.0507116357441124,
             1.014161932941749],
    "adam-decay": [1.404357859253477, 1.203957507865756, 1.107602863674107, 1.0590605846535814,
                   1.0216185616096845],
    "adamw": [1.404357859253477, 1.1993969361461554, 1.1031287282024405, 1.0509822803687991,
              1.01143279299847],
    "rmsprop": [1.404357859253477, 1.1495341523987823, 0.9478145450553452, 0.9076486634677512,
                0.9004947169591209],
    "rmsprop-centered": [1.404357859253477, 1.226778624181677, 1.1010249192705817,
                         1.0422591889817865, 1.0068842083125087],
    "adagrad": [1.404357859253477, 1.1492323491640184, 0.9993074259609444, 0.9714633833206042,
                0.9341160552521123],
    "adagrad-decay": [1.404357859253477, 1.0915785751482734, 0.9591559662419626,
                      0.9417545221023907, 0.9309732837222979],
    # PyTorch has neither: the algorithms of the papers, written in it
    "lion": [1.404357859253477, 1.275434223452875, 1.1892570044309156, 1.143051497381161,
            1.0790113687313434],
    "lion-decay": [1.404357859253477, 1.2003696197498297, 1.0947768183705529, 1.039488249962365,
            0.9905640659346464],
    "lamb": [1.404357859253477, 1.2334906375409362, 1.1420616498687863, 1.0807565469785623,
            1.0225955691281703],
    "lamb-decay": [1.404357859253477, 1.1516428410964212, 0.9969928820403469, 0.9957686318619269,
            0.9108141996188094],
}  # fmt: skip


# --- steps


@pytest.mark.parametrize("dtype, bound", [("float64", 1e-12), ("float32", 2e-5)])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_pytorchs(kind, dtype, bound):
    model = network(dtype)
    optimizer = KINDS[kind](model.parameters())
    losses = [train_step(model, optimizer, (0, 5) if i == 2 else ()) for i in range(5)]
    np.testing.assert_allclose(losses, LOSSES[kind], rtol=bound)


def adam_by_hand(p, grads, lr=0.1, betas=(0.9, 0.999), eps=1e-8):
    """Algorithm 1 of Kingma and Ba, for the steps in which there is a gradient."""
    m = v = t = 0
    for g in grads:
        if g is not None:
            t, m, v = (
                t + 1,
                betas[0] * m + (1 - betas[0]) * g,
                betas[1] * v + (1 - betas[1]) * g * g,
            )
            hats = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
            p = p - lr * hats[0] / (np.sqrt(hats[1]) + eps)
    return p


def adagrad_by_hand(p, grads, lr=0.1, lr_decay=0.5, eps=1e-10):
    square = t = 0
    for g in grads:
        if g is not None:
            t, square = t + 1, square + g * g
            p = p - lr / (1 + (t - 1) * lr_decay) * g / (np.sqrt(square) + eps)
    return p


def sgd_by_hand(p, grads, lr=0.1, momentum=0.9):
    v = 0
    for g in grads:
        if g is not None:
            v = momentum * v + g
            p = p - lr * v
    return p


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "make, by_hand",
    [
        (lambda ps: optim.Adam(ps, lr=0.1), adam_by_hand),
        (lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9), sgd_by_hand),
        (lambda ps: optim.Adagrad(ps, lr=0.1, lr_decay=0.5), adagrad_by_hand),
    ],
)
def test_any_pattern_of_missing_gradients(make, by_hand, seed):
    rng = np.random.default_rng(seed)
    starts = [rng.normal(size=rng.integers(1, 20)) for _ in range(6)]
    parameters = [nn.Parameter(start.copy()) for start in starts]
    grads = [
        [rng.normal(size=s.shape) if rng.random() < 0.7 else None for _ in range(8)] for s in starts
    ]
    optimizer = make(parameters)
    for step in range(8):
        for p, mine in zip(parameters, grads):
            p.grad = None if mine[step] is None else Tensor(mine[step])
        optimizer.step()
    for p, start, mine in zip(parameters, starts, grads):
        np.testing.assert_allclose(p.detach(), by_hand(start, mine), rtol=1e-10)


def test_a_parameter_without_gradient_keeps_values_and_state():
    a, b = parameter(1.0, 2.0), parameter(3.0)
    optimizer = optim.Adam([a, b], weight_decay=0.1)
    for p in (a, b):
        p.grad = Tensor(np.ones(p.shape))
    optimizer.step()
    before, b.grad = optimizer.state_dict()["state"][1], None
    held = b.tolist()
    optimizer.step()
    after = optimizer.state_dict()["state"]
    assert b.tolist() == held and all(np.array_equal(before[k], after[1][k]) for k in before)
    assert (after[0]["t"], after[1]["t"]) == (2, 1)


def test_a_step_with_a_closure_returns_its_loss():
    p = parameter(3.0)
    optimizer = optim.SGD([p], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9 and p.item() == 0


def test_the_learning_rate_can_be_changed_between_steps():
    p = parameter(0.0)
    optimizer = optim.SGD([p], lr=1.0)
    for lr, expected in ((1.0, -1.0), (0.25, -1.25), (0.0, -1.25), (2.0, -3.25)):
        optimizer.param_groups[0]["lr"] = lr
        p.grad = Tensor([1.0], dtype="float64")
        optimizer.step()
        assert p.item() == expected


# --- flat buffers


@pytest.mark.parametrize("kind, kernel", [
    ("momentum", "sgd_step_"), ("adam", "adam_step_"), ("adamw", "adam_step_"),
    ("rmsprop-centered", "rmsprop_step_"), ("adagrad", "adagrad_step_"),
])  # fmt: skip
def test_a_step_is_one_kernel_call_and_no_gradient_is_copied(monkeypatch, kind, kernel):
    model = network("float32")
    optimizer = KINDS[kind](model.parameters())
    train_step(model, optimizer)
    loss_of(model).backward()
    calls = count_calls(monkeypatch, kernel, "copy", "fill", "sum_squares", "clip_")
    optimizer.step()
    optimizer.zero_grad()
    assert calls == [(kernel, flat_of(optimizer).data.size)]


def test_values_and_gradients_are_views_of_flat_buffers():
    model = network("float32")
    before = model.state_dict()
    optimizer = optim.Adam(model.parameters())
    flat = flat_of(optimizer)
    loss_of(model).backward()
    for p in model.parameters():
        for array, buffer in ((p.data, flat.data), (p.grad.data, flat.grad)):
            assert np.shares_memory(array, buffer)
            assert (array.ctypes.data - buffer.ctypes.data) % 64 == 0
    values = {n: v for n, v in model.state_dict().items() if "running" not in n}
    assert all(np.array_equal(before[name], value) for name, value in values.items())


def test_two_backwards_add_up_in_the_buffer():
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    loss_of(model).backward()
    once = model[5].weight.grad.numpy().copy()
    loss_of(model).backward()
    np.testing.assert_allclose(model[5].weight.grad.numpy(), 2 * once, rtol=1e-12)
    optimizer.zero_grad()
    loss_of(model).backward()  # overwrites what zero_grad left there
    np.testing.assert_allclose(model[5].weight.grad.numpy(), once, rtol=1e-12)


def test_a_gradient_set_by_hand_is_brought_home():
    p, q = parameter(1.0, 1.0), parameter(1.0)
    optimizer = optim.SGD([p, q], lr=1.0)
    mine = Tensor(np.array([1.0, 2.0]))
    p.grad = mine
    optimizer.step()
    assert p.tolist() == [0, -1] and q.tolist() == [1]
    assert np.shares_memory(p.grad.data, flat_of(optimizer).grad)
    optimizer.step()
    assert p.tolist() == [-1, -3] and mine.tolist() == [1, 2]


def test_copy_and_load_write_into_the_buffer():
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    state = model.state_dict()
    train_step(model, optimizer)
    model.load_state_dict(state)
    with minidl.no_grad():
        model[5].bias.copy_(np.zeros(4))
    flat = flat_of(optimizer)
    assert all(np.shares_memory(p.data, flat.data) for p in model.parameters())
    assert np.array_equal(model[0].weight.detach(), state["0.weight"])


def test_data_replaced_by_the_user_is_brought_home():
    p = parameter(1.0, 2.0)
    optimizer = optim.SGD([p], lr=1.0)
    p.data = np.array([5.0, 6.0])
    p.grad = Tensor(np.array([1.0, 1.0]))
    optimizer.step()
    assert p.tolist() == [4, 5] and np.shares_memory(p.data, flat_of(optimizer).data)


def test_converting_the_model_afterwards_is_an_error():
    model = network()
    optimizer = optim.SGD(model.parameters())
    model.float()
    loss_of(model).backward()
    with pytest.raises(RuntimeError, match=r"parameter 0 is float32 .* make the optimizer after"):
        optimizer.step()


def test_a_parameter_belongs_to_the_optimizer_made_last():
    model = network()
    old = optim.SGD(model.parameters(), lr=0.1)
    new = optim.Adam(model.parameters())
    assert train_step(model, new) > train_step(model, new)
    with pytest.raises(RuntimeError, match="belongs to another optimizer, made after this one"):
        old.step()
    held = [p.tolist() for p in model.parameters()]
    del old, new
    train_step(model, optim.SGD(model.parameters(), lr=0.1))
    assert held != [p.tolist() for p in model.parameters()]


def test_freezing_and_unfreezing():
    model = network()
    model[0].requires_grad_(False)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    filters = model[0].weight.tolist()
    train_step(model, optimizer)
    assert model[0].weight.tolist() == filters
    model[0].requires_grad_(True)
    train_step(model, optimizer)
    assert model[0].weight.tolist() != filters
    loss_of(model).backward()
    assert np.shares_memory(model[0].weight.grad.data, flat_of(optimizer).grad)


def test_a_step_between_forward_and_backward_is_noticed():
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    loss = loss_of(model)
    loss_of(model).backward()
    optimizer.step()
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_a_copied_model_has_no_optimizer():
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    twin = copy.deepcopy(model)
    train_step(model, optimizer)
    other = optim.SGD(twin.parameters(), lr=0.1)
    train_step(twin, other)
    train_step(model, optimizer)
    assert twin[5].bias.tolist() != model[5].bias.tolist()


def test_tied_parameters_are_stepped_once():
    layer = nn.Linear(2, 2, bias=False).double()
    model = nn.Sequential(layer, layer)
    assert flat_of(optim.SGD(model.parameters())).parameters == [layer.weight]


# --- groups


def test_groups_have_options_of_their_own():
    a, b, c = parameter(1.0), parameter(1.0, dtype="float32"), parameter(1.0)
    groups = [{"params": [a]}, {"params": [b, c], "lr": 0.5, "momentum": 0.5}]
    optimizer = optim.SGD(groups, lr=0.25)
    for _ in range(2):
        for p in (a, b, c):
            p.grad = Tensor(np.ones(1, p.dtype))
        optimizer.step()
    assert [p.item() for p in (a, b, c)] == [0.5, -0.25, -0.25]
    assert b.dtype == np.float32 and [g["lr"] for g in optimizer.param_groups] == [0.25, 0.5]
    d = parameter(1.0)
    optimizer.add_param_group({"params": d})
    d.grad = Tensor(np.ones(1))
    optimizer.step()
    assert d.item() == 0.75
    assert repr(optimizer).startswith("SGD(1 tensors of 1: lr=0.25, momentum=0.0, ")


# --- bad input


def in_turn(p, milestones):
    optimizer = optim.SGD([p])
    parts = [optim.StepLR(optimizer, 1) for _ in range(3)]
    return optim.SequentialLR(optimizer, parts, milestones)


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda p: optim.SGD([]), ValueError, "SGD: there are no parameters"),
        (lambda p: optim.Adam(nn.ReLU().parameters()), ValueError, "there are no parameters"),
        (lambda p: optim.SGD(nn.Linear(1, 1)), TypeError, r"is a Linear; give model.parameters"),
        (lambda p: optim.SGD(p), TypeError, r"params is a Parameter; give \[parameter\]"),
        (lambda p: optim.SGD([p, p]), ValueError, r"parameter 1 \(1,\) is given twice"),
        (lambda p: optim.SGD([{"params": [p]}, {"params": [p]}]), ValueError, "given twice"),
        (lambda p: optim.SGD([p * 2]), ValueError, "is the result of an op"),
        (lambda p: optim.SGD([p.detach()]), ValueError, "none of the parameters requires grad"),
        (lambda p: optim.SGD([Tensor([1])]), TypeError, "parameter 0 is int64"),
        (lambda p: optim.SGD(nn.ReLU().named_parameters()), ValueError, "no parameters"),
        (lambda p: optim.SGD([("p", p)]), TypeError, "parameter 0 is a tuple, not a Tensor"),
        (lambda p: optim.SGD([p], lr=-1), ValueError, "SGD: lr is -1, but must be at least 0"),
        (lambda p: optim.SGD([p], lr=float("nan")), ValueError, "lr is nan"),
        (lambda p: optim.SGD([p], lr="0.1"), TypeError, "lr is '0.1', but must be a number"),
        (lambda p: optim.SGD([p], momentum=-0.1), ValueError, "momentum is -0.1"),
        (lambda p: optim.SGD([p], nesterov=True), ValueError, "nesterov=True needs a momentum"),
        (lambda p: optim.Adam([p], eps=-1e-8), ValueError, "Adam: eps is -1e-08"),
        (lambda p: optim.Adam([p], betas=(0.9, 1.0)), ValueError, r"betas are \(0.9, 1.0\)"),
        (lambda p: optim.Adam([p], weight_decay=-1), ValueError, "weight_decay is -1"),
        (
            lambda p: optim.Adam([{"params": [p], "learning_rate": 1}]),
            ValueError,
            "unknown option of Adam 'learning_rate'",
        ),
        (lambda p: optim.Adam([{"parameters": [p]}]), TypeError, 'a dict with "params"'),
        (lambda p: optim.get("nvq", [p]), ValueError, "unknown optimizer 'nvq'; known: adagrad, "),
        (lambda p: optim.get(3, [p]), ValueError, "unknown optimizer 3; known"),
        (lambda p: optim.get("adamv", [p]), ValueError, "did you mean 'adam'"),
        (lambda p: optim.AdamW([p], betas=(0.9, 1.0)), ValueError, "AdamW: betas are"),
        (lambda p: optim.RMSprop([p], alpha=1.5), ValueError, "alpha is 1.5, but must be at most"),
        (lambda p: optim.RMSprop([p], alpha=-0.5), ValueError, "alpha is -0.5"),
        (lambda p: optim.Adagrad([p], lr_decay=-1), ValueError, "lr_decay is -1"),
        (
            lambda p: optim.Adagrad([p], initial_accumulator_value=-1),
            ValueError,
            "initial_accumulator_value is -1",
        ),
        (lambda p: optim.clip_grad_norm_([p], -1), ValueError, "max_norm is -1"),
        (lambda p: optim.StepLR(p, 3), TypeError, "StepLR: optimizer is a Parameter"),
        (lambda p: optim.OneCycleLR(p, 1.0, 9), TypeError, "OneCycleLR: optimizer is a Parameter"),
        (lambda p: optim.ReduceLROnPlateau(p), TypeError, "Plateau: optimizer is a Parameter"),
        (lambda p: optim.StepLR(optim.SGD([p]), 0), ValueError, "step_size is 0"),
        (lambda p: optim.LinearLR(optim.SGD([p]), 0.0), ValueError, "start_factor 0.0 must lie"),
        (lambda p: optim.LinearLR(optim.SGD([p]), 1.0, 0.0, 0), ValueError, "total_iters is 0"),
        (lambda p: in_turn(p, [2]), ValueError, r"milestones are \[2\], but must be the rising"),
        (lambda p: in_turn(p, [2, 2]), ValueError, r"milestones are \[2, 2\]"),
        (lambda p: in_turn(p, [0, 2]), ValueError, r"milestones are \[0, 2\]"),
        (
            lambda p: optim.SequentialLR(
                optim.SGD([parameter(1.0)]), [optim.StepLR(optim.SGD([p]), 1)], []
            ),
            ValueError,
            "schedule 0, a StepLR, does not go by the steps of this optimizer",
        ),
        (
            lambda p: optim.ReduceLROnPlateau(optim.SGD([p]), "least"),
            ValueError,
            "unknown mode 'least'",
        ),
        (lambda p: optim.ReduceLROnPlateau(optim.SGD([p]), factor=1.0), ValueError, "factor is 1"),
        (
            lambda p: optim.ReduceLROnPlateau(optim.SGD([p]), min_lr=[0.1, 0.2]),
            ValueError,
            "2 min_lr for 1 groups",
        ),
        (lambda p: optim.CosineAnnealingLR(optim.SGD([p]), 0), ValueError, "T_max is 0"),
        (lambda p: optim.OneCycleLR(optim.SGD([p]), 1, epochs=3), ValueError, "give total_steps"),
        (
            lambda p: optim.OneCycleLR(optim.SGD([p]), 1, 9, anneal_strategy="cosine"),
            ValueError,
            "did you mean 'cos'",
        ),
        (
            lambda p: optim.OneCycleLR(optim.SGD([p]), [1, 2], 9),
            ValueError,
            "OneCycleLR: 2 learning rates for 1 groups",
        ),
        (lambda p: optim.OneCycleLR(optim.SGD([p]), 1, 9, pct_start=2), ValueError, "pct_start"),
    ],
)
def test_bad_input_is_refused(make, error, words):
    with pytest.raises(error, match=words):
        make(parameter(1.0))


def test_every_name_is_there_where_pytorch_has_it():
    assert all(callable(getattr(optim, name)) for name in set(optim.__all__) - {"lr_scheduler"})
    for name in ("LinearLR", "SequentialLR", "ReduceLROnPlateau", "StepLR"):
        assert getattr(optim.lr_scheduler, name) is getattr(optim, name)
    for module in (optim, optim.lr_scheduler):
        with pytest.raises(AttributeError, match="no attribute 'Adamw'"):
            module.Adamw  # noqa: B018


def test_optimizers_are_found_by_name():
    adam = optim.get("Adam", [parameter(1.0)], lr=0.5, eps=0.1)
    assert isinstance(adam, optim.Adam) and adam.param_groups[0]["eps"] == 0.1
    for kind in (optim.SGD, optim.AdamW, optim.RMSprop, optim.Adagrad):
        assert type(optim.get(kind.__name__, [parameter(1.0)])) is kind


# --- saving and loading


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_resuming_is_exact_to_the_bit(kind, dtype):
    model = network(dtype)
    optimizer = KINDS[kind](model.parameters())
    schedule = optim.CosineAnnealingLR(optimizer, 20)
    for i in range(3):
        train_step(model, optimizer, (0, 5) if i == 1 else ())
        schedule.step()
    saved = model.state_dict(), optimizer.state_dict(), schedule.state_dict()
    twin = network(dtype)
    again = KINDS[kind](twin.parameters())
    train_step(twin, again)  # whatever was there is overwritten
    resumed = optim.CosineAnnealingLR(again, 20)
    for part, state in zip((twin, again, resumed), saved):
        part.load_state_dict(state)
    for i in range(4):
        mine, theirs = (
            train_step(m, o, (3,) if i == 2 else ()) for m, o in ((model, optimizer), (twin, again))
        )
        schedule.step()
        resumed.step()
        assert mine == theirs
    for name, value in model.state_dict().items():
        assert np.array_equal(value, twin.state_dict()[name])


def test_a_state_dict_is_a_copy_in_pytorchs_form():
    p = parameter(1.0, 2.0)
    optimizer = optim.Adam([p])
    assert optimizer.state_dict()["state"] == {0: {}}
    p.grad = Tensor(np.ones(2))
    optimizer.step()
    state = optimizer.state_dict()
    optimizer.step()
    assert state["state"][0]["t"] == 1
    np.testing.assert_allclose(state["state"][0]["m"], [0.1, 0.1])
    assert state["param_groups"] == [
        {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "params": [0]}
    ]


def stepped(make=optim.Adam, *shape):
    p = nn.Parameter(np.ones(shape or (2,)))
    optimizer = make([p])
    p.grad = Tensor(np.ones(p.shape))
    optimizer.step()
    return optimizer


def changed(state, **entry):
    state["state"][0] |= entry
    return state


@pytest.mark.parametrize(
    "state, words",
    [
        (lambda: optim.Adam([parameter(1.0), parameter(1.0)]).state_dict(),
         r"groups of \[1\] parameters here, of \[2\]"),
        (lambda: stepped(optim.SGD).state_dict(), "group 0 has the options .*'betas'"),
        (lambda: stepped(optim.Adam, 3).state_dict(), r"float64 \(2,\), but its m is .*\(3,\)"),
        (lambda: changed(stepped().state_dict(), m=np.ones(2, np.float32)), "m is float32"),
        (lambda: changed(stepped().state_dict(), x=1), r"has \['m', 't', 'v', 'x'\] in the state"),
        (lambda: {**stepped().state_dict(), "state": {"0": {}}}, r"no parameters \['0'\]"),
    ],
)  # fmt: skip
def test_a_state_that_does_not_fit_changes_nothing(state, words):
    optimizer = stepped()
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match=words):
        optimizer.load_state_dict(state())
    after = optimizer.state_dict()
    assert before["param_groups"] == after["param_groups"]
    assert all(np.array_equal(before["state"][0][k], after["state"][0][k]) for k in "mvt")


def test_what_rmsprop_keeps_follows_from_its_options():
    kept = {
        (): {"v"},
        ("centered",): {"v", "m"},
        ("momentum",): {"v", "b"},
        ("centered", "momentum"): {"v", "m", "b"},
    }
    for names, states in kept.items():
        options = {"centered": "centered" in names, "momentum": 0.5 * ("momentum" in names)}
        optimizer = stepped(lambda p, options=options: optim.RMSprop(p, **options))
        state = optimizer.state_dict()
        assert set(state["state"][0]) == states
        optimizer.load_state_dict(state)
    del state["state"][0]["v"]
    with pytest.raises(ValueError, match=r"has \['b', 'm'\] in the state"):
        optimizer.load_state_dict(state)


def test_options_that_make_no_sense_are_not_loaded():
    optimizer = stepped()
    state = optimizer.state_dict()
    state["param_groups"][0]["lr"] = -1.0
    with pytest.raises(ValueError, match=r"lr is -1\.0"):
        optimizer.load_state_dict(state)


# --- schedules: numbers of PyTorch 2.13


def values(make, steps, kind=optim.SGD):
    """(lr, momentum or first beta) before each step."""
    p = parameter(0.0)
    optimizer = kind([p], lr=0.1, **({"momentum": 0.9} if kind is optim.SGD else {}))
    schedule, seen = make(optimizer), []
    for _ in range(steps):
        group = optimizer.param_groups[0]
        seen.append((group["lr"], group["momentum"] if "momentum" in group else group["betas"][0]))
        assert schedule.get_last_lr() == [group["lr"]]
        optimizer.step()
        schedule.step()
    return np.array(seen)


def test_step_lr():
    lrs = values(lambda o: optim.StepLR(o, 3, gamma=0.5), 8)[:, 0]
    np.testing.assert_allclose(lrs, [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025], rtol=1e-14)


def test_cosine_annealing_lr():
    lrs = values(lambda o: optim.CosineAnnealingLR(o, 5, eta_min=0.01), 8)[:, 0]
    down = [0.1, 0.09140576474687263, 0.06890576474687263, 0.04109423525312736,
            0.018594235253127367, 0.01]  # fmt: skip
    np.testing.assert_allclose(lrs, [*down, down[4], down[3]], rtol=1e-14)


def test_linear_lr():
    lrs = values(lambda o: optim.LinearLR(o, total_iters=4), 7)[:, 0]
    np.testing.assert_allclose(lrs, [0.1 / 3, 0.05, 0.2 / 3, 0.25 / 3, 0.1, 0.1, 0.1], rtol=1e-14)
    lrs = values(lambda o: optim.LinearLR(o, 0.1, 0.5, 3), 5)[:, 0]
    np.testing.assert_allclose(lrs, [0.01, 0.07 / 3, 0.11 / 3, 0.05, 0.05], rtol=1e-14)


FALLING = {  # PyTorch's, for a base of 0.5
    "milestones": (lambda o: optim.MultiStepLR(o, [7, 3]), [0.5] * 3 + [0.05] * 4 + [0.005] * 5),
    "exponential": (lambda o: optim.ExponentialLR(o, 0.9),
                    [0.5, 0.45, 0.405, 0.3645, 0.32805, 0.295245, 0.2657205, 0.23914845,
                     0.215233605, 0.1937102445, 0.17433922005, 0.156905298045]),
    "polynomial": (lambda o: optim.PolynomialLR(o, 8, 2.0),
                   [0.5, 0.3828125, 0.28125, 0.1953125, 0.125, 0.0703125, 0.03125, 0.0078125,
                    0, 0, 0, 0]),
    "restarts": (lambda o: optim.CosineAnnealingWarmRestarts(o, 3, 2, 0.004),
                 [0.5, 0.38, 0.14, 0.5, 0.46784609690826523, 0.38, 0.26, 0.14,
                  0.05215390309173472, 0.5, 0.49182219830937635,
                  0.46784609690826534]),
    "function": (lambda o: optim.LambdaLR(o, lambda step: 1 / (1 + step)),
                 [0.5 / n for n in range(1, 13)]),
}  # fmt: skip


@pytest.mark.parametrize("name", FALLING)
def test_schedules_that_fall(name):
    make, expected = FALLING[name]
    lrs = 5 * values(make, 12)[:, 0]  # made with a base of 0.1
    np.testing.assert_allclose(lrs, expected, rtol=1e-9, atol=1e-16)


def test_restarts_of_one_length():
    lrs = values(lambda o: optim.CosineAnnealingWarmRestarts(o, 2), 6)[:, 0]
    np.testing.assert_allclose(lrs, [0.1, 0.05] * 3, rtol=1e-14)


@pytest.mark.parametrize("kind", ["lion-decay", "lamb", "nesterov"])
def test_captured_steps_are_eager_ones_bit_for_bit(kind):
    def weights(captured):
        model = network("float32")
        optimizer = KINDS[kind](model.parameters())

        def step(x, y):
            optimizer.zero_grad()
            loss = nn.CrossEntropyLoss()(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = minidl.capture(step, fuse=False) if captured else step
        for i in range(6):
            optimizer.param_groups[0]["lr"] = 0.01 * (i + 1)
            run(Tensor(wave(5, 8, 8, 2, phase=i).astype(np.float32)), Tensor([0, 3, 1, 2, 2]))
        assert not captured or run.replayed
        return model.state_dict()

    eager, replayed = weights(False), weights(True)
    for name, value in eager.items():
        np.testing.assert_array_equal(replayed[name], value, name)


def test_lamb_moves_each_tensor_in_proportion_to_its_length():
    small, large, zero = parameter(3e-3, 4e-3), parameter(3.0, 4.0), parameter(0.0, 0.0)
    optimizer = optim.LAMB([small, large, zero], lr=0.1, weight_decay=0.0)
    for p in (small, large, zero):
        p.grad = Tensor(np.array([1.0, 1.0]))
    optimizer.step()
    root = 0.1 / math.sqrt(2)
    np.testing.assert_allclose(small.tolist(), np.array([3, 4]) * 1e-3 - root * 5e-3, rtol=1e-6)
    np.testing.assert_allclose(large.tolist(), np.array([3, 4]) - root * 5, rtol=1e-6)
    np.testing.assert_allclose(zero.tolist(), [-0.1, -0.1], rtol=1e-5)  # a plain step of Adam's


def three_in_turn(optimizer):
    parts = [
        optim.LinearLR(optimizer, 0.25, total_iters=3),
        optim.CosineAnnealingLR(optimizer, 4),
        optim.StepLR(optimizer, 2, gamma=0.5),
    ]
    return optim.SequentialLR(optimizer, parts, [3, 7])


IN_TURN = [0.025, 0.05, 0.075, 0.1, 0.08535533905932738, 0.05, 0.014644660940672627, 0.1, 0.1,
           0.05, 0.05, 0.025]  # fmt: skip


def test_schedules_in_turn():
    np.testing.assert_allclose(values(three_in_turn, 12)[:, 0], IN_TURN, rtol=1e-14)


def test_schedules_in_turn_go_on_from_their_state():
    schedule = three_in_turn(optim.SGD([parameter(0.0)], lr=0.1))
    for _ in range(5):
        schedule.step()
    resumed = three_in_turn(optim.SGD([parameter(0.0)], lr=7.0))
    resumed.load_state_dict(schedule.state_dict())
    for lr in IN_TURN[5:]:
        assert resumed.get_last_lr() == [pytest.approx(lr, rel=1e-14)]
        resumed.step()


def test_a_warm_up_before_one_cycle_keeps_its_peak():
    optimizer = optim.SGD([parameter(0.0)], lr=0.1)
    parts = [optim.LinearLR(optimizer, 0.5), optim.OneCycleLR(optimizer, 0.8, total_steps=10)]
    schedule, seen = optim.SequentialLR(optimizer, parts, [2]), []
    assert optimizer.param_groups[0]["lr"] == 0.05
    for _ in range(12):
        schedule.step()
        seen.append(optimizer.param_groups[0]["lr"])
    assert max(seen) == pytest.approx(0.8)


PLATEAUS = [
    ({"patience": 1, "factor": 0.5, "cooldown": 1},
     [5, 4, 4, 3.99999, 4, 4, math.nan, 1, 2, 2, 2, 2, 2, 2],
     [0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025, 0.025, 0.0125, 0.0125, 0.0125, 0.00625]),
    ({"mode": "max", "patience": 0, "threshold": 0.1, "threshold_mode": "abs", "min_lr": 0.002},
     [0.5, 0.55, 0.7, 0.7, 0.9, 0.8, 0.8, 0.8],
     [0.1, 0.1, 0.01, 0.01, 0.002, 0.002, 0.002, 0.002]),
]  # fmt: skip


@pytest.mark.parametrize("options, measured, expected", PLATEAUS)
def test_the_rate_falls_on_a_plateau_also_after_resuming(options, measured, expected):
    optimizer = optim.SGD([parameter(0.0)], lr=0.1)
    schedule, seen = optim.ReduceLROnPlateau(optimizer, **options), []
    for value in measured:
        seen += schedule.get_last_lr()
        schedule.step(value)
        state = schedule.state_dict()
        schedule = optim.ReduceLROnPlateau(optimizer, **options)
        schedule.load_state_dict(state)
    np.testing.assert_allclose(seen, expected, rtol=1e-14)


ONE_CYCLE = [
    ({}, [(0.008, 0.95), (0.104, 0.9), (0.2, 0.85), (0.19009692640269477, 0.854951556604879),
          (0.1623491307899526, 0.8688255099070633), (0.12225240438725786, 0.8888739533021842),
          (0.07774839561274215, 0.9111260466978157), (0.0376516692100474, 0.9311744900929366),
          (0.009903873597305258, 0.945048443395121), (8e-07, 0.95)]),
    ({"anneal_strategy": "linear", "three_phase": True, "pct_start": 0.4},
     [(0.008, 0.95), (0.072, 0.9166666666666666), (0.136, 0.8833333333333333), (0.2, 0.85),
      (0.136, 0.8833333333333333), (0.072, 0.9166666666666666), (0.008, 0.95),
      (0.0053336, 0.95), (0.0026672, 0.95), (8e-07, 0.95)]),
    ({"cycle_momentum": False, "div_factor": 10.0, "final_div_factor": 100.0},
     [(0.02, 0.9), (0.11, 0.9), (0.2, 0.9), (0.19010678990345167, 0.9), (0.1623866312056875, 0.9),
      (0.12232984130223581, 0.9), (0.0778701586977642, 0.9), (0.037813368794312525, 0.9),
      (0.010093210096548339, 0.9), (0.0002, 0.9)]),
]  # fmt: skip


@pytest.mark.parametrize("options, expected", ONE_CYCLE)
def test_one_cycle_lr(options, expected):
    got = values(lambda o: optim.OneCycleLR(o, 0.2, total_steps=10, **options), 10)
    np.testing.assert_allclose(got, expected, rtol=1e-11)


def test_one_cycle_lr_moves_adams_first_beta():
    got = values(
        lambda o: optim.OneCycleLR(o, 0.2, epochs=2, steps_per_epoch=4), 8, kind=optim.Adam
    )
    expected = [
        (0.008, 0.95), (0.16385502097843843, 0.8688255099070633),
        (0.19438835547750463, 0.8528058334845816), (0.1623491307899526, 0.8688255099070633),
        (0.11119680282454032, 0.8944017761948346), (0.056612199641739844, 0.9216941869558779),
        (0.015328318766851281, 0.9423362099614142), (8e-07, 0.95),
    ]  # fmt: skip
    np.testing.assert_allclose(got, expected, rtol=1e-11)


def test_one_cycle_lr_for_groups_and_its_end():
    groups = [{"params": [parameter(0.0)]}, {"params": [parameter(0.0)]}]
    optimizer = optim.SGD(groups, lr=0.1)
    schedule = optim.OneCycleLR(optimizer, [0.5, 1.0], total_steps=2, pct_start=0.5)
    np.testing.assert_allclose(schedule.get_last_lr(), [0.5, 1.0])
    schedule.step()
    schedule.step()
    with pytest.raises(ValueError, match=r"step 3 of 2; give the number of all steps"):
        schedule.step()


def test_a_schedule_goes_on_from_its_state():
    optimizer = optim.SGD([parameter(0.0)], lr=0.8)
    schedule = optim.StepLR(optimizer, 1, gamma=0.5)
    schedule.step()
    state = schedule.state_dict()
    other = optim.SGD([parameter(0.0)], lr=7.0)
    resumed = optim.lr_scheduler.StepLR(other, 1, gamma=0.5)
    resumed.load_state_dict(state)
    assert resumed.get_last_lr() == [0.4]
    resumed.step()
    assert other.param_groups[0]["lr"] == 0.2
    with pytest.raises(ValueError, match="StepLR: 2 learning rates for 1 groups"):
        resumed.load_state_dict({"last_epoch": 1, "base_lrs": [1.0, 2.0]})


# --- clipping


@pytest.mark.parametrize("flat", [True, False])
def test_clipping_is_pytorchs(flat):
    model = network()
    optimizer = optim.SGD(model.parameters()) if flat else None
    loss_of(model).backward()
    norm = optim.clip_grad_norm_(model.parameters(), 0.5)
    assert isinstance(norm, Tensor) and norm.shape == () and not norm.requires_grad
    assert norm.item() == pytest.approx(1.958020790978631, rel=1e-12)
    bias = [-0.015361235654602632, -0.01920365226869381, -0.051130123533632756, 0.0856950114569292]
    np.testing.assert_allclose(model[5].bias.grad, bias, rtol=1e-12)
    again = optim.clip_grad_norm_(model.parameters(), 0.6)
    assert again.item() == pytest.approx(0.5, rel=1e-5), "a short gradient is left alone"
    np.testing.assert_allclose(model[5].bias.grad, bias, rtol=1e-12)
    assert optimizer is None or np.shares_memory(model[5].bias.grad.data, flat_of(optimizer).grad)


def test_clipping_takes_one_call_for_neighbours_without_gaps(monkeypatch):
    shapes = (16, 32), (32,), (5,), (3,), (16,)
    parameters = [nn.Parameter(np.ones(shape, np.float32)) for shape in shapes]
    alone = parameter(1.0, dtype="float32")
    frozen = parameter(1.0, dtype="float32").requires_grad_(False)
    optimizer = optim.SGD(parameters)
    for p in (*parameters, alone):
        p.grad = Tensor(np.ones(p.shape, np.float32))
    optimizer.step()
    calls = count_calls(monkeypatch, "sum_squares")
    norm = optim.clip_grad_norm_([*parameters, alone, alone, frozen], 1.0)
    sizes = [512 + 32 + 5, 3, 16]
    assert sorted(calls) == sorted(("sum_squares", n) for n in (1, *sizes))
    assert norm.item() == pytest.approx(math.sqrt(sum(sizes) + 1))
    assert alone.grad.item() == pytest.approx(1 / math.sqrt(sum(sizes) + 1), rel=1e-5)


def test_clipping_of_a_part_leaves_the_rest():
    a, b, c = (parameter(3.0, 4.0) for _ in range(3))
    optimizer = optim.SGD([a, b, c])
    for p in (a, b, c):
        p.grad = Tensor(np.array([3.0, 4.0]))
    optimizer.step()
    assert optim.clip_grad_norm_(b, 1.0).item() == pytest.approx(5)
    np.testing.assert_allclose(b.grad, [0.6, 0.8], rtol=1e-6)
    assert a.grad.tolist() == c.grad.tolist() == [3, 4]


def test_nan_in_one_step_does_not_stay_in_the_buffer():
    p, q = parameter(1.0), parameter(1.0)
    optimizer = optim.SGD([p, q])
    for first, expected in ((math.nan, math.nan), (3.0, 5.0)):
        optimizer.zero_grad()
        (p * first + q * 4.0).sum().backward()
        assert optim.clip_grad_norm_([p, q], 9.0).item() == pytest.approx(expected, nan_ok=True)


def test_clipping_of_nothing_and_of_two_dtypes():
    p, q = parameter(1.0), parameter(1.0, dtype="float32")
    assert optim.clip_grad_norm_([p, q], 1.0).item() == 0 and p.grad is None
    p.grad, q.grad = Tensor(np.ones(1)), Tensor(np.ones(1, np.float32))
    with pytest.raises(TypeError, match="float32 and float64 together"):
        optim.clip_grad_norm_([p, q], 1.0)
