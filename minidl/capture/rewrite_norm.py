"""Rewrites of batch norm: with the residual and the relu behind it, forward and backward."""

from collections.abc import Iterator

from .flow import Flow, arguments, call, overlap, same
from .record import Entry, Ref

FORWARD, BACKWARD = ("batch_norm", "batch_norm_eval"), ("batch_norm_grad", "batch_norm_eval_grad")


def norm_add_relu(flow: Flow) -> None:
    """relu(batch_norm(x) + r), of which either may be missing: what is between is not written."""
    for name in FORWARD:
        for norm in flow.calls(name):
            for behind in ("add", "relu"):
                norm = _with(flow, norm, behind)


def _with(flow: Flow, norm: Entry, behind: str) -> Entry:
    """What a batch norm and the add or relu behind it become: the old one where there is none."""
    given = arguments(norm)
    y, after = given["y"], flow.only_reader(given["y"])
    if after is None or after.name != behind or given["relu"]:
        return norm
    *inputs, out = after.args
    others = [r for r in inputs if not same(r, y)]
    if behind == "add" and (len(others) != 1 or given["r"] is not None):
        return norm  # y + y
    if any(r.like != y.like for r in (out, *others)):
        return norm
    more = {"r": others[0]} if behind == "add" else {"relu": True}
    note = f"{norm.note or norm.name}, {behind}"
    new = call(norm.name, norm, note, **given | more | {"y": out})
    return new if flow.replace([norm, after], norm, new) else norm


def norm_relu_grad(flow: Flow) -> None:
    """The gradients of relu and of a batch norm before it, and the residual's.

    What the relu lets through is not written, or but once, as the gradient of a residual: there
    the batch norm's gradient puts it, or adds it to what is there, in its own pass.
    """
    for name in BACKWARD:
        for norm in flow.calls(name):
            given = arguments(norm)
            relu = flow.writer(given["dy"])
            if relu is None or relu.name != "relu_grad" or given["relu"] or given["dr"] is not None:
                continue
            dy, y, slopes, adds = relu.args
            if adds or any(overlap(given[a], b) for a in ("x", "dx") for b in (dy, y) if given[a]):
                continue  # what is read in two passes must stay as it is
            for copies, dr, add in _residuals(flow, relu, norm, slopes):
                named = {"dy": dy, "y": y, "dr": dr, "relu": True, "add": (*given["add"][:3], add)}
                note = ", ".join([relu.name, norm.name, *(e.name for e in copies)])
                new = call(name, norm, note, **given | named)
                if flow.replace([relu, norm, *copies], norm, new):
                    break


def _residuals(
    flow: Flow, relu: Entry, norm: Entry, slopes: Ref
) -> Iterator[tuple[list[Entry], Ref | None, bool]]:
    """Where the gradient behind a relu goes but to a batch norm: entries, place, whether it adds.

    Nowhere; to where one entry alone copies or adds it; or its own place, for all that read it.
    """
    if flow.only_reader(slopes):
        yield [], None, False
        return
    others = [e for e in flow.readers(slopes) if e is not norm]
    if [e.name for e in others] in (["copy"], ["add_grad_a"], ["add_grad_b"]):
        source, to, add = others[0].args
        apart = not any(overlap(to, r) for e in (relu, norm) for _, r in e.refs())
        if same(source, slopes) and to.like == slopes.like and apart and _unread(flow, slopes):
            yield others, to, add
    yield [], slopes, False


def _unread(flow: Flow, ref: Ref) -> bool:
    """Whether the step's caller does not get an array."""
    return not any(ref.storage is result.storage for result in flow.results)
