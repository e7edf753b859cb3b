"""Embeddings with sparse=True: the rows that were looked up get gradients and steps, no others."""

import copy
import re
import warnings

import numpy as np
import pytest

import minidl
from minidl import Tensor, nn, optim
from minidl.nn import functional as F

ROWS, WIDTH, PADDING = 50, 4, 3
ALIKE = (  # optimizers for which a row without a gradient stays what it is
    lambda p: optim.SGD(p, lr=0.5),
    lambda p: optim.Adagrad(p, lr=0.1, lr_decay=0.01, initial_accumulator_value=0.1),
)
OTHERS = (
    lambda p: optim.Adam(p, lr=0.1),
    lambda p: optim.AdamW(p, lr=0.1),
    lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    lambda p: optim.Lion(p, lr=0.01),
)


def network(sparse, device="cpu", dtype="float64"):
    minidl.manual_seed(0)
    table = nn.Embedding(ROWS, WIDTH, padding_idx=PADDING, sparse=sparse)
    return nn.Sequential(table, nn.Linear(WIDTH, 3)).astype(dtype).to(device)


def batches(count, device="cpu"):
    random = np.random.default_rng(1)
    for _ in range(count):
        arrays = random.integers(0, ROWS, (6, 5)), random.integers(0, 3, 6)
        yield tuple(Tensor(a, device=device) for a in arrays)


def loss_of(model, x, y):
    table, head = model
    return F.cross_entropy(head(table(x).sum(1)), y)


def train(model, optimizer, seen, clip=None):
    def step(x, y):
        optimizer.zero_grad()
        loss = loss_of(model, x, y)
        loss.backward()
        if clip:
            optim.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        return loss

    return [step(x, y).item() for x, y in seen]


def same_bits(a, b):
    for (name, x), (_, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)


@pytest.mark.parametrize("make", ALIKE, ids=["SGD", "Adagrad"])
@pytest.mark.parametrize("clip", [None, 0.3])
def test_a_gradient_of_rows_does_what_one_of_all_does(make, clip, device="cpu"):
    models = network(True, device), network(False, device)
    losses = [train(m, make(m.parameters()), batches(5, device), clip) for m in models]
    # summed in the same order; the norm alone adds up its squares in another one
    tolerance = dict(rtol=1e-12, atol=1e-14) if clip else dict(rtol=0, atol=0)
    np.testing.assert_allclose(*losses, **tolerance)
    rows, whole = (m[0].weight.detach().numpy() for m in models)
    np.testing.assert_allclose(rows, whole, **tolerance)


def adam_of_rows(table, gradients, lr=0.1, decay=0.01):
    """Adam in plain NumPy, over the rows that have a gradient: index -> gradient, for each step."""
    m, v = np.zeros_like(table), np.zeros_like(table)
    for t, rows in enumerate(gradients, 1):
        for i, g in rows.items():
            g = g + decay * table[i]
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g * g
            step = m[i] / (1 - 0.9**t) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-8)
            table[i] -= lr * step
    return table


def test_rows_that_nobody_looked_up_keep_their_values_and_means(device="cpu"):
    table = nn.Embedding(9, 2, sparse=True).astype("float64").to(device)
    start = table.weight.detach().numpy().copy()
    optimizer = optim.Adam(table.parameters(), lr=0.1, weight_decay=0.01)
    scale = np.array([1.0, -3.0])
    seen = [[1, 1, 4], [4, 8], [0, 1, 8, 8]]
    for rows in seen:
        optimizer.zero_grad()
        (
            table(Tensor(np.array(rows), device=device)) * Tensor(scale, device=device)
        ).sum().backward()
        optimizer.step()
    gradients = [{i: scale * rows.count(i) for i in set(rows)} for rows in seen]
    found = table.weight.detach().numpy()
    np.testing.assert_allclose(found, adam_of_rows(start.copy(), gradients), rtol=1e-12)
    np.testing.assert_array_equal(found[[2, 3, 5, 6, 7]], start[[2, 3, 5, 6, 7]])


@pytest.mark.parametrize("make", OTHERS, ids=["Adam", "AdamW", "SGD", "RMSprop", "Lion"])
def test_captured_steps_are_bit_for_bit_eager_ones(make, device="cpu"):
    eager, captured = network(True, device, "float32"), network(True, device, "float32")
    wanted = train(eager, make(eager.parameters()), batches(6, device), clip=1.0)
    optimizer = make(captured.parameters())

    @minidl.capture
    def step(x, y):
        optimizer.zero_grad()
        loss = loss_of(captured, x, y)
        loss.backward()
        optim.clip_grad_norm_(captured.parameters(), 1.0)
        optimizer.step()
        return loss

    assert [step(x, y).item() for x, y in batches(6, device)] == wanted
    assert "distinct" in str(step.program)  # it was replayed
    same_bits(captured, eager)


@pytest.mark.parametrize("sparse", [True, False])
def test_any_number_of_lookups_none_among_them(sparse, device="cpu"):
    table = nn.Embedding(5, 3, sparse=sparse).to(device)
    optimizer = optim.SGD(table.parameters(), lr=1.0)
    start = table.weight.detach().numpy().copy()
    for index, moved in ((np.zeros((0, 2), int), []), (np.array(3), [3]), ([[0, 0]], [0, 0, 3])):
        optimizer.zero_grad()
        table(Tensor(np.array(index), device=device)).sum().backward()
        optimizer.step()
        wanted = start.copy()
        np.subtract.at(wanted, np.array(moved, int), np.float32(1))
        np.testing.assert_allclose(table.weight.detach().numpy(), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("part", ["alike", "others", "left alone", "none"])
def test_the_same_on_cuda(cuda, part):
    if part == "alike":
        for make in ALIKE:
            test_a_gradient_of_rows_does_what_one_of_all_does(make, 0.3, "cuda")
    elif part == "others":
        for make in OTHERS:
            test_captured_steps_are_bit_for_bit_eager_ones(make, "cuda")
    elif part == "left alone":
        test_rows_that_nobody_looked_up_keep_their_values_and_means("cuda")
    else:
        test_any_number_of_lookups_none_among_them(True, "cuda")


def test_several_lookups_and_backwards_add_up():
    models = network(True), network(False)
    for model in models:
        for x, y in batches(3):
            (loss_of(model, x, y) + loss_of(model, x[:, ::-1][:, :2], y)).backward()
    rows, whole = (m[0].weight for m in models)
    assert len(rows.node.rows) == 6
    np.testing.assert_allclose(rows.grad.numpy(), whole.grad.numpy(), rtol=1e-12, atol=1e-15)
    assert len(rows.node.rows) == 1  # together now, and the same when asked again
    np.testing.assert_allclose(rows.grad.numpy(), whole.grad.numpy(), rtol=1e-12, atol=1e-15)
    assert not rows.grad.numpy()[PADDING].any()
    for model in models:
        optim.SGD(model.parameters(), lr=0.1).step()
    np.testing.assert_allclose(rows.detach().numpy(), whole.detach().numpy(), rtol=1e-12)
    assert rows.grad is None  # the step has used it up


@pytest.mark.parametrize("forget", ["optimizer", "module", "None"])
def test_gradients_are_forgotten(forget):
    model = network(True)
    optimizer, weight = optim.SGD(model.parameters(), lr=0.1), model[0].weight
    (x, y), *_ = batches(1)
    loss_of(model, x, y).backward()
    assert weight.grad is not None
    if forget == "None":
        weight.grad = None
    else:
        (optimizer if forget == "optimizer" else model).zero_grad()
    assert weight.grad is None
    before = weight.detach().numpy().copy()
    optimizer.step()
    np.testing.assert_array_equal(weight.detach().numpy(), before)


def test_a_table_that_is_also_used_as_a_matrix():
    """Its gradient is one of all rows then, and takes up that of the rows."""
    models = network(True), network(False)
    for model in models:
        optimizer = optim.Adam(model.parameters(), lr=0.1)
        for x, _ in batches(3):
            optimizer.zero_grad()
            table = model[0]
            ((table(x).sum(1) @ table.weight.T) ** 2).mean().backward()
            assert table.weight.grad is not None
            optimizer.step()
    rows, whole = (m[0].weight.detach().numpy() for m in models)
    np.testing.assert_allclose(rows, whole, rtol=1e-10)


def test_a_run_goes_on_from_its_state():
    seen = list(batches(6))
    whole = network(True)
    train(whole, optim.Adam(whole.parameters(), lr=0.1), seen)
    part = network(True)
    optimizer = optim.Adam(part.parameters(), lr=0.1)
    train(part, optimizer, seen[:3])
    again = copy.deepcopy(part)
    fresh = optim.Adam(again.parameters(), lr=0.1)
    fresh.load_state_dict(optimizer.state_dict())
    train(again, fresh, seen[3:])
    same_bits(again, whole)


def test_where_nothing_is_learnt_it_is_a_plain_lookup():
    table = nn.Embedding(5, 2, sparse=True)
    x = Tensor(np.array([1, 2]))
    with minidl.no_grad():
        assert not table(x).requires_grad
    table.requires_grad_(False)
    assert not table(x).requires_grad
    table.requires_grad_(True)
    table(x).sum().backward()
    assert table.weight.grad.numpy().sum() == 4
    assert repr(table) == "Embedding(5, 2, sparse=True)"


def test_a_step_that_leaves_gradients_of_rows_is_not_replayed():
    table = nn.Embedding(5, 2, sparse=True)

    @minidl.capture
    def backward(x):
        table(x).sum().backward()

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for i in range(4):
            backward(Tensor(np.array([i])))
    assert any("kept after it" in str(w.message) for w in told)
    np.testing.assert_array_equal(table.weight.grad.numpy()[:, 0], [1, 1, 1, 1, 0])


def test_what_cannot_be_is_refused():
    table = nn.Embedding(5, 2, sparse=True)
    x = Tensor(np.array([1]))
    with pytest.raises(ValueError, match="sparse=True needs a parameter"):
        F.embedding(x, table.weight * 2, sparse=True)
    with pytest.raises(IndexError, match="out of range"):
        table(Tensor(np.array([5])))
    optimizer = optim.LAMB(table.parameters())
    table(x).sum().backward()
    with pytest.raises(RuntimeError, match=r"LAMB: .*leave out sparse=True"):
        optimizer.step()


def test_a_step_moves_no_more_than_the_rows_in_use():
    """The table of kernels says so: of a large table as much as of what was looked up."""
    table = nn.Embedding(100_000, 8, sparse=True)
    optimizer = optim.Adam(table.parameters(), lr=0.1)

    @minidl.capture
    def step(x):
        optimizer.zero_grad()
        loss = (table(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    for i in range(4):
        step(Tensor(np.arange(64) + i))
    summary = str(step.program).splitlines()[-1]
    assert float(re.search(r"([\d.]+) MB moved", summary)[1]) < 0.1  # the table alone has 3.2
