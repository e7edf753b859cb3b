"""Recurrent layers, a whole sequence at a time. Loaded when the first of them is asked for."""

from .. import check
from ..op import op


@op
def gru(k, x, h, w, b=None, *, reverse=False):
    """A gated recurrent unit on a batch of sequences: all its states, one for each step.

    x (N, T, 3 H): what enters the gates r, z and n at each step; h (N, H), the state before the
    first, or None for zeros; w (H, 3 H), b (3 H,) or None -> (N, T, H)

    y_t = (1 - z) n + z y_(t-1), r = sigmoid(x_r + y_(t-1) w_r + b_r), z likewise, and
    n = tanh(x_n + r (y_(t-1) w_n + b_n)). reverse: from the last step to the first.
    """
    check.rank("gru", "x", x, 3, "a batch of sequences (N, T, 3 H)")
    check.rank("gru", "w", w, 2, "a weight (H, 3 H)")
    (n, steps, wide), size = x.shape, w.shape[0]
    if not wide == w.shape[1] == 3 * size:
        problem = f"x and w have {wide} and {w.shape[1]} columns, but 3 gates of {size} need 3 H"
        check.fail("gru", problem, x=x, w=w)
    if not steps:
        check.fail("gru", "the sequences have no steps", x=x)
    if h is not None and h.shape != (n, size):
        check.fail("gru", f"h needs a state of {size} numbers per sequence", x=x, h=h, w=w)
    if b is not None and b.shape != (wide,):
        check.fail("gru", "b needs one number per column of w", w=w, b=b)
    y, gates = k.empty((n, steps, size), x.dtype), k.empty((n, steps, 4 * size), x.dtype)
    k.gru(x, h, w, b, y, gates, bool(reverse))

    def grad(dy, outs, adds):
        return k.gru_grad(dy, h, w, y, gates, *outs, bool(reverse), tuple(adds))

    return y, grad
