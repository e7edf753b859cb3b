"""Every kernel of every backend against its definition: the properties of kernels/testing.py."""

import collections
import contextlib
import functools
import importlib
import os
from unittest import mock

import numpy as np
import pytest
from hypothesis import settings

from minidl import Tensor, ops
from minidl.kernels.cases import CASES
from minidl.kernels.families import files_of
from minidl.kernels.roles import kernels_of
from minidl.kernels.testing import DEFINITION, Backend, gradients, verify, verify_gradients

REFERENCE = os.environ.get("MINIDL_CPU") == "reference"  # then Numba is never imported


def written(package):
    """Names of the kernels that a package defines, without those it takes from the definition."""
    found = vars(importlib.import_module(f"minidl.kernels.{package}"))
    return {n for n, kernel in DEFINITION.items() if found.get(n, kernel) is not kernel}


KERNELS = {
    "reference": set(DEFINITION),
    "cpu": set() if REFERENCE else written("cpu"),
    "cuda": set(DEFINITION),
    "gpu": set(DEFINITION),
}
THOROUGH = os.environ.get("MINIDL_HYPOTHESIS") == "thorough"
MARKS = {"cpu": [pytest.mark.numba], "cuda": [pytest.mark.emulator], "gpu": [pytest.mark.gpu]}
ASKED = os.environ.get("MINIDL_TEST_BACKENDS", ",".join(KERNELS)).split(",")


def threads(n):
    config = importlib.import_module("numba").config  # where the kernels look
    return mock.patch.object(config, "NUMBA_NUM_THREADS", n)


def compiled_at_any_size(name):
    """On the CPU: NumPy serves a few elements sooner, and few are what most examples have."""
    if name != "cpu":
        return contextlib.nullcontext()
    few = importlib.import_module("minidl.kernels.cpu.elementwise").FEW
    return mock.patch.dict(few, dict.fromkeys(few, 0))


@contextlib.contextmanager
def code_found_in_every_call_but_the_first(name):
    """On the CPU: what Numba looks for on disk a second time, it looks for in every call."""
    if name != "cpu":
        yield
        return
    cache = importlib.import_module("minidl.kernels.cpu._numba").KernelCache
    load, asked = cache.load_overload, collections.Counter()

    def counted(self, sig, context):
        asked[self.function.__qualname__, sig] += 1
        return load(self, sig, context)

    with mock.patch.object(cache, "load_overload", counted):
        yield
    assert [what for what, times in asked.items() if times > 1] == []


@functools.cache
def backend(name):
    if name == "reference":
        return Backend(name, DEFINITION)
    module = importlib.import_module(f"minidl.kernels.{name.replace('gpu', 'cuda')}")
    kernels = {kernel: getattr(module, kernel) for kernel in KERNELS[name]}
    if name == "cpu":
        return Backend(name, kernels, schedules=(lambda: threads(1), lambda: threads(2)))
    if name == "cuda":  # NumPy arrays: the emulator runs the compiled kernels on them
        schedule = importlib.import_module("minidl.kernels.cuda.emulator").schedule
        first, *rest = (functools.partial(schedule, o) for o in ("forward", "reverse", "shuffled"))
        if THOROUGH:
            return Backend(name, kernels, schedules=(first, *rest))
        return Backend(name, kernels, schedules=(first,), dear=tuple(rest))
    return Backend(name, kernels, module.memory.from_host, module.memory.to_host)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "device"),
    [
        pytest.param(name, device, marks=MARKS.get(device, ()))
        for device, kernels in KERNELS.items()
        for name, case in CASES.items()
        if device in ASKED and kernels & {name, *gradients(case)}
    ],
)
def test_kernels_agree_with_the_definition(name, device, dtype):
    few = device == "cuda" and not THOROUGH
    profile = settings.get_profile("emulator") if few else settings()
    with compiled_at_any_size(device), code_found_in_every_call_but_the_first(device):
        verify(CASES[name], backend(device), dtype, max_examples=profile.max_examples)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if gradients(case)])
def test_gradients_of_the_definition_agree_with_numeric_differences(name):
    verify_gradients(CASES[name])


def test_every_kernel_has_a_case():
    checked = {kernel for name, case in CASES.items() for kernel in (name, *gradients(case))}
    assert checked == set(DEFINITION)


@pytest.mark.emulator
def test_cuda_has_every_kernel_of_the_definition_and_no_other():
    found = kernels_of(*files_of("minidl.kernels.cuda")).keys()
    assert found == written("cuda") == DEFINITION.keys()


@pytest.mark.parametrize(
    ("op", "refused"),
    [
        pytest.param(case.op or name, refused, id=f"{name}: {refused.words}")
        for name, case in CASES.items()
        for refused in case.rejects
    ],
)
def test_an_op_refuses_what_its_case_says(op, refused):
    inputs = [Tensor(a) if isinstance(a, np.ndarray) else a for a in refused.inputs]
    with pytest.raises(refused.error) as found:
        getattr(ops, op)(*inputs, **refused.static)
    assert str(found.value).startswith(f"{op}: ")
    assert refused.words in str(found.value)
