"""lint: what is wrong with a model or a batch, before hours are spent on it."""

import warnings
from typing import Any

import numpy as np

from .autograd import Node
from .mistakes import LintWarning
from .nn import Module
from .train import LOSSES, Loss, _chosen, _device_of, _moved

HINT_FOR_BYTES = "divide them by 255, as a DataLoader does with bytes, or train on x / 255"


def lint(model: Module, batch: Any, *, loss: str | Loss = "cross_entropy") -> list[str]:
    """Sentences on what is wrong with a model, a batch (x, y) or the loss; none: nothing is found.

    The loss of the batch is computed once, in evaluation mode; weights, gradients, running
    statistics and modes stay as they are. It finds what `fit` would refuse or warn about (shapes
    that do not fit, an activation before a loss that takes logits, wrong labels), images that are
    not scaled, outputs that are not finite or do not depend on x, and parameters that cannot learn.
    """
    x, y = (_moved(part, _device_of(model)) for part in batch)
    found = _inputs(x)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", LintWarning)
            output = model(x)
            found += _outputs(output, x)
            value = _chosen("loss", loss, LOSSES)(output, y)
        found += [str(w.message) for w in caught if issubclass(w.category, LintWarning)]
        found += _parameters(model, value.node)
    except (ValueError, TypeError, IndexError, NotImplementedError) as error:
        found.append(" ".join([str(error), *getattr(error, "__notes__", ())]))
    finally:
        for module, training in modes:
            module.training = training
    return found


def _inputs(x: Any) -> list[str]:
    if getattr(x, "ndim", 0) != 4 or x.dtype.kind != "f" or not x.size:
        return []
    values = x.numpy_view()
    if values.max() > 127 and (values == np.rint(values)).all():
        return [f"x holds bytes, 0 to {values.max():.0f}: {HINT_FOR_BYTES}"]
    return []


def _outputs(output: Any, x: Any) -> list[str]:
    values = output.numpy_view()
    if not np.isfinite(values).all():
        return ["the model's output is not finite"]
    differ = len(values) > 1 and (np.asarray(x.numpy_view()) != x.numpy_view()[:1]).any()
    if differ and (values == values[:1]).all():
        return ["the model's output is the same for all samples: nothing of x gets through"]
    return []


def _parameters(model: Module, root: Node | None) -> list[str]:
    if root is None:
        return ["no parameter requires gradients: nothing can be trained"]
    reached, stack = {root}, [root]
    while stack:
        new = [n for n in stack.pop().inputs if n is not None and n not in reached]
        reached.update(new)
        stack += new
    idle = [n for n, p in model.named_parameters() if p.node is not None and p.node not in reached]
    if not idle:
        return []
    return [f"the loss does not depend on {', '.join(idle)}: forward does not use them"]
