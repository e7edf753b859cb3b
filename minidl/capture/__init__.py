"""capture: a training step recorded once, and then replayed without Python's part of the work.

@minidl.capture
def train_step(x, y):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss

for x, y in loader:
    losses.append(train_step(x, y))
print(train_step.program)
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .step import Captured
    from .table import Profile


class CaptureWarning(UserWarning):
    """A step runs eagerly, and why."""


def capture(
    step: Callable[..., Any] | None = None,
    *,
    fuse: bool = True,
    check_every: int = 1000,
    tell: Callable[[str], None] | None = None,
) -> Any:
    """A step that records what it does in its first calls, and replays that in all others.

    step: a function of tensors, arrays, and nests of them; it returns tensors, which come back
    without history, as copies. Models and optimizers it may take from anywhere. A program is made
    for each kind of inputs (shapes, dtypes), and each state of what the step reads of Python (see
    watch.py), when two calls did the same. Where they do not, or where the step does what cannot be
    replayed, it stays eager, and a CaptureWarning (or `tell`) says why, with the line.

    fuse: let rewrites replace kernels by faster ones; without, replays are bit for bit what eager
    steps are. check_every: every so many calls one runs eagerly and is compared (0: never); so a
    change is found, late, that nobody can see: within an installed package, or an object of C's.
    """
    if step is None:
        return functools.partial(capture, fuse=fuse, check_every=check_every, tell=tell)
    if not callable(step):
        raise TypeError(f"capture: step is a {type(step).__name__}; give the function of a step")
    from .step import Captured  # here and below: what is recorded and replayed is loaded then

    return Captured(step, fuse, check_every, tell)


def profile(step: "Captured", *batch: Any, repeats: int = 10) -> "Profile":
    """Time every kernel of a captured step on a batch; nothing that is trained changes.

    But the step is called on the batch until there is a program, and these calls do train.
    """
    for _ in range(6):
        step(*batch)
        if step.replayed:
            break
    return step.program.profile(repeats)
