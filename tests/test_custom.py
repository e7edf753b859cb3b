"""Ops of one's own kernels: bound by name, on the tape, under capture, checked against NumPy."""

import numpy as np
import pytest

import minidl
from minidl import Tensor, nn, optim


def swish_forward(x, y):
    y[...] = x / (1 + np.exp(-x))


def swish_backward(dy, x, dx):
    p = 1 / (1 + np.exp(-x))
    dx[...] = dy * p * (1 + x * (1 - p))


def swish_numpy(x):
    return x / (1 + np.exp(-x))


@minidl.op(forward=swish_forward, backward=swish_backward, reference=swish_numpy)
def swish(x):
    """x times sigmoid(x)."""


def wave(*shape, dtype=np.float32):
    return np.sin(np.arange(np.prod(shape)) * 0.7).reshape(shape).astype(dtype)


def test_an_op_of_ones_own_is_an_op():
    x = Tensor(wave(3, 4), requires_grad=True)
    y = swish(x)
    assert y.node.name == "swish" and swish.__name__ == "swish"
    np.testing.assert_allclose(y.detach().numpy(), swish_numpy(wave(3, 4)), rtol=1e-6)
    (y * y).sum().backward()
    twin = Tensor(wave(3, 4), requires_grad=True)
    (nn.functional.silu(twin) ** 2.0).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), twin.grad.numpy(), rtol=1e-5, atol=1e-6)
    assert swish(x.detach()).node is None
    with pytest.raises(TypeError, match="swish: x is int64, but must be float32 or float64"):
        swish(Tensor([1, 2]))


def test_its_gradient_is_added_to_what_is_there():
    x = Tensor(wave(5), requires_grad=True)
    (swish(x) + swish(x)).sum().backward()
    once = x.grad.numpy().copy()
    swish(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 1.5 * once, rtol=1e-6)


def test_check_compares_with_the_reference():
    swish.check(np.linspace(-3, 3, 7))

    @minidl.op(forward=lambda x, y: np.copyto(y, x), reference=swish_numpy)
    def lazy(x):
        """Not what its reference says."""

    with pytest.raises(AssertionError, match=r"lazy: y in float32 is 1.0 at \(1,\), reference 0.7"):
        lazy.check([0.0, 1.0])

    def no_factor(dy, x, dx):
        dx[...] = dy

    wrong = minidl.op(forward=swish_forward, backward=no_factor, reference=swish_numpy)(
        lambda x: None
    )
    with pytest.raises(AssertionError, match=r"the gradient of input 0 is .* 2 of 2 are off"):
        wrong.check([0.0, 1.0])
    with pytest.raises(AssertionError, match=r"y has shape \(2,\), reference's \(1,\)"):
        minidl.op(forward=swish_forward, reference=lambda x: x[:1])(lambda x: None).check([0.0, 1])
    with pytest.raises(TypeError, match="there is no reference"):
        minidl.op(forward=swish_forward)(lambda x: None).check([0.0])


def joint(dy, a, b, factor, da, db):
    da[...] = dy * b * factor
    db[...] = dy * a * factor


@minidl.op(
    forward=lambda factor, a, b, y: np.multiply(a * b, factor, out=y),  # in any order, by name
    backward=joint,
    reference=lambda a, b, factor=2.0: factor * a * b,
)
def product(a, b, *, factor=2.0):
    """factor a b, of one shape."""


def test_several_inputs_and_numbers():
    product.check(wave(4), 1 + wave(4))
    product.check(wave(2, 3), 1 + wave(2, 3), factor=-0.5)
    a, b = Tensor(wave(4), requires_grad=True), Tensor(wave(4) + 2)
    product(a, b, factor=3.0).sum().backward()  # db has nowhere to go
    np.testing.assert_allclose(a.grad.numpy(), 3 * b.numpy(), rtol=1e-6)
    assert b.grad is None


def neighbours_forward(x, y):
    y[...] = x[:-3] * x[1:-2] + x[2:-1] * x[3:]


@minidl.op(forward=neighbours_forward)
def neighbours(x):
    """The fourth document's kernel: x[i] x[i + 1] + x[i + 2] x[i + 3], of another length."""
    return (len(x) - 3,)


def test_another_shape_and_no_gradient():
    assert neighbours(Tensor(wave(100))).shape == (97,)
    assert neighbours(Tensor(wave(9), requires_grad=True)).node is None


def test_an_integer_input():
    def forward(table, place, y):
        y[...] = table[place]

    def backward(dy, place, dtable):
        dtable[...] = 0
        np.add.at(dtable, place, dy)

    @minidl.op(forward=forward, backward=backward, integer=("place",),
               reference=lambda table, place: table[place])  # fmt: skip
    def rows(table, place):
        """table[place]."""
        return (*place.shape, table.shape[1])

    rows.check(wave(4, 2), np.array([1, 3, 1]))
    table = Tensor(wave(4, 2), requires_grad=True)
    rows(table, Tensor([1, 3, 1])).sum().backward()
    np.testing.assert_array_equal(table.grad.numpy(), [[0, 0], [2, 2], [0, 0], [1, 1]])


def test_captured_steps_replay_it():
    def losses(captured):
        minidl.manual_seed(0)
        first, last = nn.Linear(4, 8), nn.Linear(8, 3)
        optimizer = optim.SGD([*first.parameters(), *last.parameters()], lr=0.5)

        def step(x, y):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(last(swish(first(x))), y)
            loss.backward()
            optimizer.step()
            return loss

        step = minidl.capture(step, fuse=False) if captured else step
        found = [step(Tensor(wave(6, 4) + i), Tensor(np.arange(6) % 3)).item() for i in range(6)]
        assert not captured or step.replayed
        return found

    assert losses(True) == losses(False)


def test_a_kernel_for_each_device_or_for_one():
    only = minidl.op(forward={"cuda": swish_forward})(lambda x: None)
    with pytest.raises(RuntimeError, match="there is no kernel of it for 'cpu'"):
        only(Tensor(wave(3)))
    with pytest.raises(ValueError, match="there are 'cpu' and 'cuda'"):
        minidl.op(forward={"tpu": swish_forward})(lambda x: None)


def test_kernels_that_do_not_fit_are_refused():
    def strange(x, out):
        out[...] = x

    with pytest.raises(TypeError, match="has a parameter 'out'; they are bound by name, to x, y"):
        minidl.op(forward=strange)(lambda x: None)
    with pytest.raises(TypeError, match=r"the kernel of .* has none of y"):
        minidl.op(forward=lambda x: None)(lambda x: None)
    with pytest.raises(TypeError, match="backward and reference go with forward"):
        minidl.op(backward=strange)
    with pytest.raises(TypeError, match="has no inputs"):
        minidl.op(forward=lambda y: None)(lambda: None)
    half = minidl.op(forward=product.reference and (lambda a, b, y: np.add(a, b, out=y)),
                     backward=lambda dy, da: np.copyto(da, dy))(lambda a, b: None)  # fmt: skip
    a, b = (Tensor(wave(2), requires_grad=True) for _ in range(2))
    with pytest.raises(RuntimeError, match="has no parameter 'db' to fill"):
        half(a, b).sum().backward()


def test_without_kernels_it_is_the_engines_decorator():
    @minidl.op
    def twice(k, x):
        """x + x."""
        return k.add(x, x, k.empty_like(x)), None

    assert twice(Tensor([1.0])).item() == 2


@pytest.mark.emulator
def test_the_template_of_the_documentation():
    from minidl.kernels.cuda import cuda, jit

    @jit
    def square_kernel(x, y):
        i = cuda.grid(1)
        if i < y.size:
            y[i] = x[i] * x[i]

    @jit
    def square_grad_kernel(dy, x, dx):
        i = cuda.grid(1)
        if i < dx.size:
            dx[i] = dy[i] * (x[i] + x[i])

    @minidl.op(forward=square_kernel, backward=square_grad_kernel, reference=np.square)
    def square(x):
        """x * x, of x (N,)."""

    square.check(np.linspace(-2, 2, 9))
    x = Tensor(wave(300), requires_grad=True)
    square(x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * wave(300))


def test_the_template_on_the_device_cuda(cuda):
    from minidl.kernels.cuda import cuda as numba_cuda
    from minidl.kernels.cuda import jit

    @jit
    def square_kernel(x, y):
        i = numba_cuda.grid(1)
        if i < y.size:
            y[i] = x[i] * x[i]

    @jit
    def square_grad_kernel(dy, x, dx):
        i = numba_cuda.grid(1)
        if i < dx.size:
            dx[i] = dy[i] * (x[i] + x[i])

    square = minidl.op(forward=square_kernel, backward=square_grad_kernel)(lambda x: None)
    x = Tensor(wave(300), device="cuda").requires_grad_()
    y = square(x)
    y.sum().backward()
    assert y.device.name == "cuda"
    np.testing.assert_array_equal(x.grad.numpy(), 2 * wave(300))
    assert minidl.cuda.launch_config(300) == (3, 128)


def test_launch_config():
    assert minidl.cuda.launch_config(97, threads=8) == (13, 8)
    assert minidl.cuda.launch_config(0) == (0, 128)
    with pytest.raises(ValueError, match="a block has 1 to 1024"):
        minidl.cuda.launch_config(5, 2048)


@pytest.mark.emulator
def test_check_op_takes_kernels_of_numba_cuda_and_ops():
    from numba import cuda

    @cuda.jit
    def scaled(x, y, by):
        i = cuda.grid(1)
        if i < y.size:
            y[i] = x[i] * x[i] * by

    @cuda.jit
    def scaled_grad(dy, x, dx, by):
        i = cuda.grid(1)
        if i < dx.size:
            dx[i] = dy[i] * x[i] * 2 * by

    @cuda.jit
    def wrong_grad(dy, x, dx, by):
        i = cuda.grid(1)
        if i < dx.size:
            dx[i] = x[i] * 2 * by

    def reference(x, by):
        return x * x * by

    minidl.check_op((scaled, scaled_grad), wave(5), reference=reference, by=3)
    minidl.check_op((scaled, None), wave(5), reference=reference, by=3)
    with pytest.raises(AssertionError, match="scaled: the gradient of input 0 is"):
        minidl.check_op((scaled, wrong_grad), wave(5), reference=reference, by=3)
    minidl.check_op(minidl.exp, wave(2, 3), reference=np.exp)
    with pytest.raises(AssertionError, match="exp: y in float32 is"):
        minidl.check_op(minidl.exp, wave(2, 3), reference=np.expm1)
