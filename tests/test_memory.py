"""Working space, and memory that goes back to the system."""

import os
import subprocess
import sys

import numpy as np
import pytest

from minidl.kernels.reference import memory

# Without the collector of cycles: what lives until its next turn is held as long as a program.
STEP = """
import gc
import numpy as np
import minidl
from minidl import nn

gc.disable()

def held():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024

model = nn.Sequential(*(nn.Sequential(nn.Linear(256, 256), nn.Tanh()) for _ in range(12)))
optimizer = minidl.optim.SGD(model.parameters(), lr=0.1)
x = minidl.tensor(np.ones((4096, 256), np.float32))
y = minidl.tensor(np.zeros(4096, np.int64))
step = minidl.capture(lambda x: train(x))

def train(x):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x) * model(x), y)
    loss.backward()
    optimizer.step()
    return loss

train(x), train(x)  # what compiles has compiled
minidl.device("cpu").kernels.release()
before = held()
for _ in range(5):
    step(x)
print(step.program.nbytes / 2**20, held() - before)
"""


@pytest.fixture
def arena():
    """An arena of the test's own."""
    held = {}
    before = memory.use_arena(held)
    yield held
    memory.use_arena(before)


def test_working_space_is_shared_by_number_and_grows(arena):
    small, other = memory.scratch((2, 3), "f4"), memory.scratch((2, 3), "f4", nth=1)
    assert np.shares_memory(small, memory.scratch((6,), "f4"))
    assert not np.shares_memory(small, other)
    assert not np.shares_memory(small, memory.scratch((6,), "i4"))
    large = memory.scratch((50, 60), "f4")
    assert large.shape == (50, 60) and not np.shares_memory(small, large)
    assert np.shares_memory(large, memory.scratch((2, 3), "f4"))
    assert memory.scratch((0, 3), "f4").shape == (0, 3)
    for nth in range(5):
        space = memory.scratch((1 + nth, 7), "f8", nth)
        assert space.ctypes.data % 64 == 0 and space.flags.carray and space.dtype == "f8"
    assert sum(room.nbytes for room in arena.values()) < 50 * 60 * 4 + 2000


def test_release_gives_this_threads_own_working_space_back():
    before = memory.use_arena(None)  # its own
    try:
        held = memory.scratch((3,), "f4", nth=99)
        memory.release()
        assert not np.shares_memory(held, memory.scratch((3,), "f4", nth=99))
    finally:
        memory.use_arena(before)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_captured_step_holds_its_program_and_not_the_eager_calls_before():
    done = subprocess.run(
        [sys.executable, "-c", STEP],
        env=os.environ | {"MINIDL_QUIET": "1"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    program, held = map(float, done.stdout.split())
    assert program > 80  # the activations
    assert held < 1.15 * program + 10
