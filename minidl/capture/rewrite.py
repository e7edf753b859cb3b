"""Rewrites: entries of a recorded step replaced by fewer that do the same.

A rewrite is a function of a Flow (see flow.py), which it changes. It goes through the calls of a
kernel, asks who reads and writes their arrays, and where all is as its pattern says, replaces them:

    def exp_of_neg(flow):
        for neg in flow.calls("neg"):
            x, y = neg.args
            exp = flow.only_reader(y)                # nobody else reads it, nor is it returned
            if exp and exp.name == "exp":
                new = call("exp_neg", exp, "neg, exp", x=x, y=exp.args[1])
                flow.replace([neg, exp], exp, new)   # unless something between is in the way

`call` takes the kernel from the device that `exp` ran on. The last line of a program's table counts
the entries with a note, which the table shows. Each fused kernel has a Case, and a test that holds
it to what it replaces; tests/test_rewrites.py has those of the rewrites.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from .flow import Flow, arguments, call, resized, same, whole
from .record import Entry, Ref
from .rewrite_norm import norm_add_relu, norm_relu_grad

Rewrite = Callable[[Flow], None]


def applied(entries: Sequence[Entry], results: Sequence[Ref]) -> list[Entry]:
    """The entries after all rewrites. results: the arrays that the step returns."""
    flow = Flow(entries, results)
    for rewrite in REWRITES:
        rewrite(flow)
    return flow.entries


def pooled_relu(flow: Flow) -> None:
    """The gradients of max_pool2d and of the relu before it, and the sum that is a bias's.

    The relu passed a gradient on where it returned more than 0. Only the winners of windows have
    gradients, and what they returned is what max_pool2d did: so nobody needs the large array.
    """
    for pool in flow.calls("max_pool2d_grad"):
        dy, arg, between, *how, add = pool.args
        ahead, relu = flow.writer(arg), flow.only_reader(between)
        if not (ahead and relu and ahead.name == "max_pool2d" and relu.name == "relu_grad") or add:
            continue
        x, y = ahead.args[:2]
        slopes, outputs, dx, adds = relu.args
        if same(slopes, between) and same(outputs, x) and flow.writer(x) and flow.writer(y):
            for bias, db, more in _sums(flow, relu, dx):
                named = dict(zip(("size", "stride", "pad"), how), add=(adds, more))
                note = "max_pool2d_grad, relu_grad" + ", sum_rows" * bool(bias)
                new = call(
                    "max_pool2d_relu_grad", relu, note, dy=dy, y=y, arg=arg, dx=dx, db=db, **named
                )
                if flow.replace([pool, relu, *bias], relu, new):
                    break


def bias_relu(flow: Flow) -> None:
    """The gradient of relu, and its sum over all rows, that of a bias, while it is at hand."""
    for relu in flow.calls("relu_grad"):
        dy, y, dx, adds = relu.args
        for bias, db, more in _sums(flow, relu, dx):
            if bias:
                named = dict(dy=dy, y=y, dx=dx, db=db, add=(adds, more))
                new = call("bias_relu_grad", relu, "relu_grad, sum_rows", **named)
                if flow.replace([relu, *bias], relu, new):
                    break


def cropped(flow: Flow) -> None:
    """Convolutions without the lower and the right edge that no window of maxima covers.

    Of 13 x 13 pixels windows of 2 x 2 take 12 x 12. Nobody reads the others, and their gradients
    are 0: there is no need to compute them, nor to multiply with them.
    """
    for pool in flow.calls("max_pool2d"):
        x, y, _, *how = pool.args
        conv = flow.writer(x)
        if conv and conv.name == "conv2d" and flow.only_readers(x) == [pool]:
            _crop(flow, x, y, how, [conv, pool])
    for name in ("max_pool2d_grad", "max_pool2d_relu_grad"):
        for pool in flow.calls(name):
            given = arguments(pool)
            readers = flow.only_readers(given["dx"])
            if readers and all(e.name in ("conv2d_grad_x", "conv2d_grad_w") for e in readers):
                how = [given[name] for name in ("size", "stride", "pad")]
                _crop(flow, given["dx"], given["dy"], how, [pool, *readers])


def _crop(flow: Flow, x: Ref, y: Ref, how: Sequence, entries: Sequence[Entry]) -> None:
    """Let the images x of entries end with the last windows, which made y of it."""
    ends = [
        (n - 1) * step + size - begin
        for n, size, step, (begin, _) in zip(y.like[0][1:3], *how, strict=True)
    ]
    shape = x.like[0][0], *ends, x.like[0][3]
    if any(after for _, after in how[2]) or shape == x.like[0] or not whole(x):
        return
    smaller = resized(x, shape)
    for entry in entries:
        args = tuple(smaller if isinstance(a, Ref) and same(a, x) else a for a in entry.args)
        note = f"{entry.note}, cropped".removeprefix(", ")
        flow.replace([entry], entry, dataclasses.replace(entry, args=args, note=note))


def _sums(flow: Flow, relu: Entry, dx: Ref) -> Iterator[tuple[list[Entry], Ref | None, bool]]:
    """A sum_rows of what a relu_grad wrote, as [the entry], its output and whether it adds.

    Then nothing in its place.
    """
    if flow.writer(dx) is relu and not relu.args[-1]:
        for entry in flow.readers(dx):
            if entry.name == "sum_rows" and same(entry.args[0], dx):
                yield [entry], entry.args[1], entry.args[2]
                break
    yield [], None, False


# in the order of their turns
REWRITES: list[Rewrite] = [norm_add_relu, norm_relu_grad, pooled_relu, bias_relu, cropped]
