"""Matrix products."""

from .. import backend, check
from ..kernels import shapes
from ..op import op


def set_matmul(choice: str, tf32: bool = False) -> None:
    """Choose what computes matrix products on "cuda", linear layers and their gradients included.

    choice: "kernel" (at first), minidl's own; "cublas", NVIDIA's library through CuPy, which needs
    a real GPU; "auto", cuBLAS for large products on a GPU and minidl's own for all others.

    tf32: multiply float32 on tensor cores, several times as fast, from compute capability 8.0 on.
    Both factors are rounded to 10 bits after the leading one, so that a sum of K products is off by
    up to (2**-10 + K 2**-23) of the sum of their magnitudes; without, by up to K 2**-24.
    """
    check.known("matmul", choice, backend.MATMUL)
    backend.set_matmul(choice, tf32)


@op
def matmul(k, a, b):
    """a (..., M, K) times b (..., K, N) -> (..., M, N); the leading axes broadcast.

    As in PyTorch, a (K,) is a row and b (K,) a column, whose axis of length 1 is dropped again.
    """
    for name, m in (("a", a), ("b", b)):
        if not m.ndim:
            check.fail("matmul", f"{name} is a number", "multiply by numbers with *", a=a, b=b)
    left, right = a if a.ndim > 1 else a[None], b if b.ndim > 1 else b[:, None]
    if left.shape[-1] != right.shape[-2]:
        problem = f"a has {left.shape[-1]} columns, but b has {right.shape[-2]} rows"
        check.fail("matmul", problem, a=a, b=b)
    try:
        stack = shapes.broadcast(left.shape[:-2], right.shape[:-2])
    except ValueError:
        check.fail("matmul", "the stacks of matrices do not broadcast", a=a, b=b)
    wide = *stack, left.shape[-2], right.shape[-1]
    shape = stack + wide[len(stack) :][a.ndim == 1 : 2 - (b.ndim == 1)]
    flat = left.ndim == right.ndim == 2
    product, slope_a, slope_b = (
        (k.matmul, k.matmul_grad_a, k.matmul_grad_b)
        if flat
        else (k.bmm, k.bmm_grad_a, k.bmm_grad_b)
    )
    y = product(left, right, k.empty(wide, a.dtype))

    def grad_a(dy, da, add):
        slope_a(dy.reshape(wide), right, da.reshape(left.shape), add)
        return da

    def grad_b(dy, db, add):
        slope_b(dy.reshape(wide), left, db.reshape(right.shape), add)
        return db

    return y.reshape(shape), (grad_a, grad_b)


@op
def linear(k, x, w, b=None, *, relu=False):
    """x (R, I) times w (I, O), plus b (O,) or None -> (R, O).

    relu: what is below 0 becomes 0, at no further pass.
    """
    check.rank("linear", "w", w, 2, "a weight (in, out)")
    if x.ndim != 2 or x.shape[1] != w.shape[0]:
        hint = "put a Flatten before the first Linear" if x.ndim > 2 else ""
        check.fail("linear", f"x does not have w's {w.shape[0]} features", hint, x=x, w=w)
    if b is not None and b.shape != w.shape[1:]:
        check.fail("linear", "b needs one number per output", w=w, b=b)
    y = k.linear(x, w, b, k.empty((len(x), w.shape[1]), x.dtype), relu)

    def grad_x(dy, dx, add):
        return k.linear_grad_x(dy, w, dx, add)

    def grad_w(dy, dw, add):
        return k.linear_grad_w(dy, x, dw, add)

    def grad_b(dy, db, add):
        return k.sum_rows(dy, db, add)

    def grad(dy, outs, adds):
        dz = k.relu_grad(dy, y, k.empty_like(y), False)
        for gradient, out, add in zip((grad_x, grad_w, grad_b), outs, adds):
            if out is not None:
                gradient(dz, out, add)

    return y, grad if relu else (grad_x, grad_w, grad_b)
