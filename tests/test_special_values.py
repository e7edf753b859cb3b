"""docs/special-values.md is true: each of its rows is run, on every device."""

import builtins
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.special_values import agree, array, error_of, literal, literals, rows
from minidl import Tensor, backend, optim
from minidl.kernels.cases import DEFINITION
from minidl.nn import functional as F

ROWS = list(rows())


def hold(row, device, dtype):
    """Run a row on a device: its result, its gradients, or its error."""
    given = literals(row.given)
    if given.pop("on", device.name) != device.name:
        return
    inputs = {
        name: Tensor(array(name, value, dtype), device=device) for name, value in given.items()
    }
    gradients = literals(row.gradients)
    for name in gradients:
        inputs[name[1:]].requires_grad = True
    if error := error_of(row.result):
        kind, message = error
        with pytest.raises(getattr(builtins, kind), match=f"^{re.escape(message)}$"):
            called(row.call, inputs)
        return
    y = called(row.call, inputs)
    got = y.numpy_view()
    assert agree(got, literal(row.result), dtype), got
    if gradients:
        dy = inputs.get("dy", Tensor(np.ones(y.shape, dtype), device=device))
        y.backward(dy)
    for name, want in gradients.items():
        slope = inputs[name[1:]].grad.numpy()
        assert agree(slope, want, dtype), f"{name} = {slope}"


def called(call, inputs):
    """The result of a call, or the parameter after a step of an optimizer."""
    p, dp = inputs.get("p"), inputs.get("dp")
    if p is not None:
        p.requires_grad = True
        p.grad = dp
    result = eval(call, {"F": F, "optim": optim, **inputs})
    return result if p is None else p


def on_the_cpu(choice):
    device = backend.Device("cpu")
    device.kernels = backend._cpu_kernels(choice)
    return device


each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.call)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


@each_row
@each_dtype
@pytest.mark.parametrize("kernels", ["reference", pytest.param("numba", marks=pytest.mark.numba)])
def test_a_row_on_the_cpu(row, kernels, dtype):
    hold(row, on_the_cpu(kernels), dtype)


@each_row
@each_dtype
def test_a_row_on_cuda(row, cuda, dtype):
    hold(row, cuda, dtype)


def test_a_row_says_what_pytorch_does_and_stands_once():
    for row in ROWS:
        assert row.pytorch == "same" or row.pytorch.startswith("differs: "), row
    assert len({row[:2] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("wrong", ["[0, 0, 2, 0, 0, inf]", "[0, 0, 2, nan, 0, inf, 1]", "nan"])
def test_a_wrong_row_is_noticed(wrong):
    with pytest.raises(AssertionError):
        hold(ROWS[0]._replace(result=wrong), on_the_cpu("reference"), "float32")
    with pytest.raises(AssertionError):
        hold(ROWS[0]._replace(gradients=f"dx={wrong}"), on_the_cpu("reference"), "float32")


def test_every_kernel_has_a_row_or_a_worked_example():
    device, used = on_the_cpu("reference"), set()

    def noted(name, kernel):
        return lambda *args: used.add(name) or kernel(*args)

    kernels = {name: noted(name, kernel) for name, kernel in DEFINITION.items()}
    device.kernels = SimpleNamespace(**{**vars(device.kernels), **kernels})
    for row in ROWS:
        hold(row, device, "float64")
    examples = Path(__file__).with_name("test_worked_examples.py").read_text(encoding="utf-8")
    words = set(re.findall(r"\w+", examples))
    used |= {n for n in DEFINITION if words & {n, n.split("_grad")[0]}}
    assert DEFINITION.keys() - used == set()
