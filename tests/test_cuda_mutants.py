"""The checks can fail: our CUDA kernels, each with one mistake that only GPU code can have.

A mutant is a file of kernels/cuda with one text replaced. The Cases, run by the emulator, must
notice; and the compiler's report, where no result is wrong but the kernel slow.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
from hypothesis import Phase

from minidl import kernels
from minidl.kernels import cuda, report
from minidl.kernels.cases import CASES, Blank, Draw, Example, Seeded, draw_example, gradients
from minidl.kernels.cuda import _numba, cubin
from minidl.kernels.roles import roles
from minidl.kernels.testing import DEFINITION, SCHEDULES, Backend, Mismatch, hold, verify

pytestmark = pytest.mark.emulator

FOLDER = Path(cuda.__file__).parent
# which of two properties an example breaks first is chance
WRONG = {
    "value", "repeat", "add", "strides", "empty batch", "inf and NaN", "no overrun",
    "every cell written",
}  # fmt: skip
# a kernel that does not run to its end, and how the emulator says why
SAID = {
    "outside": " (past the end|before the start) of ", "waits": "divergent barrier",
    "unaligned": "not a multiple of 16",
}  # fmt: skip
FAST = dict(max_examples=30, derandomize=True, phases=[Phase.generate])


class Mutant(NamedTuple):
    name: str
    file: str
    kernel: str
    old: str
    new: str
    killed_by: str = "wrong"


MUTANTS = [
    # ---- barriers
    Mutant(
        "a product begins before its tiles are there", "window", "conv2d",
        "_store_rows(w_next, w_tile, ty, DEPTH, 4 * tx)\n                cuda.syncthreads()",
        "_store_rows(w_next, w_tile, ty, DEPTH, 4 * tx)",
    ),
    Mutant(
        "the next tile overwrites one that is still read", "window", "conv2d",
        "_multiply(x_tile, w_tile, high * ty, 4 * tx, total)\n                cuda.syncthreads()",
        "_multiply(x_tile, w_tile, high * ty, 4 * tx, total)",
    ),
    Mutant(
        "a stale buffer of two", "gemm", "matmul",
        "buffer = 1 - buffer", "buffer = 0",
    ),
    Mutant(
        "no barrier between two buffers", "gemm", "linear",
        "cuda.syncthreads()  # one is enough", "# one is enough",
    ),
    Mutant(
        "a tree without its barrier", "reduce", "sum_rows",
        "part[mine] = value\n        cuda.syncthreads()", "part[mine] = value",
    ),
    Mutant(
        "a barrier that half of a block reaches", "reduce", "sum_rows",
        "        cuda.syncthreads()\n        if cuda.threadIdx.y < half:\n            value +=",
        "        if cuda.threadIdx.y < half:\n            cuda.syncthreads()\n            value +=",
        "waits",
    ),
    Mutant(
        "a warp that runs ahead overwrites what another still reads", "rows", "log_softmax",
        "value = part[first + (lane & (warps - 1))]\n        cuda.syncthreads()",
        "value = part[first + (lane & (warps - 1))]",
    ),
    Mutant(
        "a tile is read before it is turned", "move", "copy",
        "tile[n, lane] = x[h, i, j0 + lane, k0 + n]\n                cuda.syncthreads()",
        "tile[n, lane] = x[h, i, j0 + lane, k0 + n]",
    ),
    Mutant(
        "keys are ranked before all are there", "move", "take_grad",
        "chunk[here] = mine\n    cuda.syncthreads()", "chunk[here] = mine", "outside",
    ),
    # ---- shuffles
    Mutant(
        "a shuffle of the wrong width", "reduce", "sum_rows",
        "value += cuda.shfl_xor_sync(EVERY_LANE, value, half * cuda.blockDim.x)",
        "value += cuda.shfl_xor_sync(EVERY_LANE, value, half)",
    ),
    Mutant(
        "a shuffle across two warps", "reduce", "sum_rows",
        "while half * cuda.blockDim.x >= WARP:\n        part[mine] = value",
        "while half * cuda.blockDim.x > WARP:\n        part[mine] = value",
    ),
    Mutant(
        "a shuffle that leaves out a lane", "reduce", "max",
        "while half > 0:\n        value = cuda.shfl_xor_sync",
        "while half > 1:\n        value = cuda.shfl_xor_sync",
    ),
    Mutant(
        "a shuffle asks lanes that are gone", "layout", "sum",
        "EVERY_LANE = 0xFFFFFFFF", "EVERY_LANE = 0x0000FFFF", "waits",
    ),
    # ---- guards and addresses
    Mutant(
        "a moved image loses its last row", "augment", "affine_batch",
        "0 <= h < height and 0 <= v < width:\n                value +=",
        "0 <= h < height - 1 and 0 <= v < width:\n                value +=",
    ),
    Mutant(
        "an edge that repeats the row before the last", "augment", "affine_batch",
        "h, v = min(max(h, 0), height - 1)", "h, v = min(max(h, 0), max(height - 2, 0))",
    ),
    Mutant(
        "a pixel of weight 0 counts", "augment", "affine_batch",
        "if known and weight > real(0)", "if known and weight >= real(0)",
    ),
    Mutant(
        "a place is rounded to whole pixels", "augment", "affine_batch",
        "place >> 8 & 0xFFFFFF", "place >> 8 & 0xFF0000",
    ),
    Mutant(
        "the words of a block from the last to the first", "augment", "uniform_rows",
        "unit(words[k], real)", "unit(words[3 - k], real)",
    ),
    Mutant(
        "a square that reaches out on top turns back", "augment", "cutout_",
        "i = max(top, 0) +", "i = abs(top) +",
    ),
    Mutant(
        "a square one row too high", "augment", "cutout_",
        "if i < min(top + size, x.shape[1])", "if i <= min(top + size, x.shape[1] - 1)",
    ),
    Mutant(
        "a sample mixed with its neighbour", "augment", "mixup",
        "(one - share) * x[m, k]", "(one - share) * x[n, k]",
    ),
    Mutant(
        "a window reaches one line too far", "window", "conv2d",
        "0 <= h + down < height and 0 <= v + along < width:\n                out",
        "0 <= h + down <= height and 0 <= v + along < width:\n                out",
        "outside",
    ),
    Mutant(
        "a gap of a window is a cell too short", "window", "conv2d",
        "down, along = line * dh, pixel * apart + cell",
        "down, along = line * dh, pixel * (apart - 1) + cell", "unaligned or wrong",
    ),
    Mutant(
        "every group sees the first channels", "window", "conv2d_grad_w",
        "h, v = i * sh - top if real else height, j * sv - left + group * run",
        "h, v = i * sh - top if real else height, j * sv - left",
    ),
    Mutant(
        "a group writes over the filters of the next one", "window", "conv2d",
        "_write_row(y, place[high * ty + k], total, k, b, column, end,",
        "_write_row(y, place[high * ty + k], total, k, b, column, filters,",
    ),
    Mutant(
        "a stride and a dilation with a common factor", "window", "conv2d_grad_x",
        "return slice(first, None, step), -((place - last * dilation) // stride), gap",
        "return slice(first, None, step), -((place - last * dilation) // stride), dilation",
    ),
    Mutant(
        "a task reads what is the next one's", "window", "conv2d_grad_w",
        "stop = min(first + chunk, windows)", "stop = first + chunk + 1", "outside",
    ),
    Mutant(
        "pixels a stride apart are taken for neighbours", "depthwise", "depthwise_conv2d_grad_x",
        "* width + v + p * sw) * channels", "* width + v + p) * channels",
    ),
    Mutant(
        "a task goes on into lines that are not there", "depthwise", "depthwise_conv2d_grad_w",
        "min((task + 1) * chunk, rows)", "(task + 1) * chunk", "outside",
    ),
    Mutant(
        "channels past the last one come in fours", "depthwise", "depthwise_conv2d",
        "w.shape[3] == 1 and w.shape[2] % 4 == 0 and", "w.shape[3] == 1 and", "unaligned",
    ),
    Mutant(
        "a window at the edge counts a line too many", "pool", "avg_pool2d",
        "min(kh, height - h) - max(0, -h)", "min(kh, height - h + 1) - max(0, -h)",
    ),
    Mutant(
        "the first window that covers a pixel is passed by", "pool", "avg_pool2d_grad",
        "max(0, place - size + step)", "max(0, place - size + step + 1)",
    ),
    Mutant(
        "the edge of a matrix is one further", "gemm", "matmul",
        "if c + n < y.shape[2]:", "if c + n <= y.shape[2]:", "outside",
    ),
    Mutant(
        "the thread behind the last one writes", "optim", "adam_step_",
        "if i >= p.size:", "if i > p.size:", "outside",
    ),
    Mutant(
        "four at a time past the end", "pointwise", "exp",
        "if i + VECTOR <= y.size:", "if i < y.size:", "outside",
    ),
    Mutant(
        "a vector load of what is not aligned", "random", "dropout",
        "float(scale), aligned(dy, dx), add", "float(scale), True, add", "unaligned",
    ),
    Mutant(
        "rows and columns of a tile mixed up", "move", "copy",
        "value = y.dtype.type(tile[lane, n])", "value = y.dtype.type(tile[n, lane])",
    ),
    Mutant(
        "a line of a gradient shared by threads", "index", "gather_grad",
        "block = cover(inner, outer)\n    _put", "block = cover(inner, n, outer)\n    _put",
    ),
    Mutant(
        "places from the end are somewhere before the array", "index", "gather",
        "number += length if number < 0 else 0", "number += 0",
    ),
    Mutant(
        "a cell of another line", "index", "gather_grad",
        "(o * length + at) * cell.shape[2] + i if", "(o * length + at) * cell.shape[2] if",
    ),
    Mutant(
        "the border turned over, edge and all", "index", "pad",
        "2 * (length - 1) - abs(place)", "2 * length - 1 - abs(place)",
    ),
    Mutant(
        "a mirror image that is not there", "index", "pad_grad",
        "if place < length - 1 and start < total", "if place < length - 1", "outside",
    ),
    Mutant(
        "a border added from one side alone", "index", "pad_grad",
        "stop = total if place == length - 1 else stop", "stop = stop",
    ),
    # ---- sums of several blocks
    Mutant(
        "the last task is left out", "reduce", "sum",
        "y.reshape(outer, 1, inner), tasks, float", "y.reshape(outer, 1, inner), tasks - 1, float",
    ),
    Mutant(
        "the last part of a split product is left out", "gemm", "linear_grad_w",
        "for task in range(partial.shape[0]):", "for task in range(partial.shape[0] - 1):",
    ),
    Mutant(
        "parts are added to what nobody cleared", "window", "conv2d_grad_w",
        "_write_row(dw, at, total, k, dw[:0], column, end, False, add, wide_dy)",
        "_write_row(dw, at, total, k, dw[:0], column, end, False, True, wide_dy)",
    ),
    Mutant(
        "atomic additions, in the order in which threads come", "reduce", "sum_rows",
        "            y[out, task, column] = plus(y[out, task, column], total) if add else total",
        "            cuda.atomic.add(y, (out, task, column), total)",
    ),
    # ---- types
    Mutant(
        "float64 for want of a type: a constant", "loss", "cross_entropy",
        "loss[n] = each * scale", "loss[n] = each * 0.1", ".f64",
    ),
    Mutant(
        "float64 for want of a type: a root", "optim", "adam_step_",
        "(math.sqrt(v) / root + eps)", "(v ** 0.5 / root + eps)", ".f64",
    ),
    Mutant(
        "float64 for want of a type: a zero to start from", "loss", "cross_entropy",
        "total = loss.dtype.type(0)", "total = 0.0", ".f64",
    ),
    Mutant(
        "float64 for want of a type: an angle", "random", "normal",
        "* real(2 * math.pi * 2.0**-32)", "* (2 * math.pi * 2.0**-32)", ".f64",
    ),
    Mutant(
        "an array of registers indexed by a number known too late", "window", "conv2d",
        "total[i, j] += a[i % 4] * b[j]", "total[i, j] += a[(i + row) % 4] * b[j]",
        "stack",
    ),
    # ---- scalar functions, rows of neighbouring threads, columns, steps
    Mutant(
        "a mask that NaN does not pass", "scalars", "relu6_grad",
        "return type(dy)(0) if y <= 0 or y >= 6 else dy",
        "return dy if y > 0 and y < 6 else type(dy)(0)",
    ),
    Mutant(
        "the built-in max loses a NaN", "scalars", "maximum",
        "a if a > b or a != a else b", "max(a, b)",
    ),
    Mutant(
        "an exponential that overflows", "scalars", "silu_grad",
        "z = math.exp(-math.fabs(x))", "z = math.exp(-x)",
    ),
    Mutant(
        "the last column's thread reads the next row", "reduce", "var_grad",
        "while out < dx.shape[0] and column < dx.shape[2]:\n        slope = (dy",
        "while out < dx.shape[0] and column <= dx.shape[2]:\n        slope = (dy", "outside",
    ),
    Mutant(
        "rows of a column left out", "reduce", "std_grad",
        "start = cuda.blockIdx.y * chunk + cuda.threadIdx.y\n    for n in range(steps_of(smaller(",
        "start = cuda.blockIdx.y * chunk\n    for n in range(steps_of(smaller(",
    ),
    Mutant(
        "a minimum joined as a maximum", "reduce", "min",
        "if wins(value, i, best, at, least):", "if wins(value, i, best, at, False):",
    ),
    Mutant(
        "the last tie wins across threads", "reduce", "min",
        "return i < at if tie", "return i > at if tie",
    ),
    Mutant(
        "float64 for want of a type: a root of a variance", "reduce", "std",
        "y[i] = math.sqrt(y[i])", "y[i] = y[i] ** 0.5", ".f64",
    ),
    Mutant(
        "the lanes of a row do not share its largest", "rows", "softmax",
        "return join_row(top, part, True)", "return top",
    ),
    Mutant(
        "threads past the last row leave before a shuffle", "loss", "softmax_grad",
        "n = min(row, dy.shape[0] - 1)\n    total = dy.dtype.type(0)\n"
        "    for k in range(share_of(dy.shape[1], bits)):\n"
        "        c = cuda.threadIdx.x + (k << bits)\n        total += dy[n, c] * y[n, c]",
        "n = row\n    if row >= dy.shape[0]:\n        return\n    total = dy.dtype.type(0)\n"
        "    for k in range(share_of(dy.shape[1], bits)):\n"
        "        c = cuda.threadIdx.x + (k << bits)\n        total += dy[n, c] * y[n, c]",
        "waits",
    ),
    Mutant(
        "every thread takes the whole row's mean for its own", "norm", "layer_norm",
        "middle = join_row(total, part, False) / count", "middle = total / count",
    ),
    Mutant(
        "the row behind the last one is written", "norm", "layer_norm_grad",
        "value = root * (g - flat - (x[n, c] - middle) * root * lean)\n"
        "            dx[n, c] = plus(dx[n, c], value) if add else value",
        "value = root * (g - flat - (x[n, c] - middle) * root * lean)\n"
        "            dx[n, c] += value",
    ),
    Mutant(
        "the last task of a loss is left out", "distance", "mse_loss",
        "add_tasks(out.reshape(1, tasks, 1)", "add_tasks(out[1:].reshape(1, tasks - 1, 1)",
    ),
    Mutant(
        "the thread behind the last number writes", "distance", "huber_loss_grad",
        "if i < dx.size:", "if i <= dx.size:", "outside",
    ),
    Mutant(
        "float64 for want of a type: half", "distance", "huber_loss",
        "else far * far * half", "else far * far * 0.5", ".f64",
    ),
    Mutant(
        "a row that is left out reads a stranger's weight", "likelihood", "nll_loss",
        "    if label == ignore:\n        return zero\n    if not 0 <= label < classes:",
        "    if label != ignore and not 0 <= label < classes:", "outside or wrong",
    ),
    Mutant(
        "one matrix for all of a stack is read as a stack", "gemm", "bmm",
        "return a[s if a.shape[0] > 1 else 0],", "return a[s],", "outside",
    ),
    Mutant(
        "parts of sums and matrices of a stack mixed up", "gemm", "bmm_grad_b",
        "task, s = cuda.blockIdx.z // size, cuda.blockIdx.z % size",
        "s, task = cuda.blockIdx.z // size, cuda.blockIdx.z % size",
    ),
    Mutant(
        "smoothing summed by each thread alone", "likelihood", "cross_entropy_weighted",
        "spread = join_row(spread, part, False) / real(x.shape[1])",
        "spread = spread / real(x.shape[1])",
    ),
    Mutant(
        "every row of soft targets is the first", "likelihood", "cross_entropy_soft_grad_x",
        "q = keep * target[n, c] + even", "q = keep * target[0, c] + even",
    ),
    Mutant(
        "a state is read while it is still computed", "recurrent", "gru",
        "        cuda.syncthreads()  # this state is whole, and the last one is read\n",
        "",
    ),
    Mutant(
        "what a step sends back is read before it is there", "recurrent", "gru_grad",
        "        cuda.syncthreads()  # all that is sent back from this step is there\n", "",
    ),
    Mutant(
        "a step of CTC begins before the last one is whole", "ctc", "ctc_loss",
        "        cuda.syncthreads()  # this step is whole\n", "",
    ),
    Mutant(
        "two equal labels without a blank in between", "ctc", "ctc_loss",
        " and target[n, s >> 1] != target[n, (s >> 1) - 1]", "",
    ),
    Mutant(
        "four at a time past the end of the parameters", "optim", "rmsprop_step_",
        "store4(v, i, wide, v0, v1, v2, v3)\n    if centered:",
        "store4(v, i, True, v0, v1, v2, v3)\n    if centered:", "unaligned",
    ),
    Mutant(
        "a parameter stepped with its neighbour's sum", "optim", "adagrad_step_",
        "p1, v1 = _adagrad(dp1, p1, v1,", "p1, v1 = _adagrad(dp1, p1, v0,",
    ),
    Mutant(
        "0 times an infinite parameter", "optim", "adam_step_",
        "if decay and decoupled:", "if decoupled:",
    ),
    Mutant(
        "a mirrored image is one column off", "augment", "image_batch",
        "v = width - 1 - v", "v = width - v",
    ),
    Mutant(
        "images in place of their numbers", "augment", "image_batch",
        "number = u64(index[n])", "number = u64(n)",
    ),
]  # fmt: skip


def changed(mutant: Mutant) -> Callable:
    """The mutant's launcher, in a copy of its file; what is changed may be a file it imports."""
    scalars = mutant.file == "scalars"  # they stand beside kernels/cuda, for kernels/cpu too
    path = (FOLDER.parent if scalars else FOLDER) / f"{mutant.file}.py"
    text = path.read_text(encoding="utf-8")
    assert mutant.old in text, f"{path.name} has changed: give this mutant another place"
    module = executed(path, text.replace(mutant.old, mutant.new))
    family = DEFINITION[mutant.kernel].__module__.rpartition(".")[2]
    if family != mutant.file:
        package = kernels if scalars else cuda
        with (
            mock.patch.dict(sys.modules, {f"{package.__name__}.{mutant.file}": module}),
            mock.patch.object(package, mutant.file, module),
        ):
            path = FOLDER / f"{family}.py"
            module = executed(path, path.read_text(encoding="utf-8"))
    return getattr(module, mutant.kernel)


def executed(path: Path, text: str) -> ModuleType:
    module = ModuleType("mutant")
    module.__package__, module.__file__ = cuda.__name__, str(path)
    exec(compile(text, path, "exec"), vars(module))
    return module


def case_of(kernel):
    found = [case for case in CASES.values() if kernel in (case.name, *gradients(case))]
    assert found, f"no Case draws arguments for {kernel}: write it in kernels/cases/"
    return found[0]


def launches_of(call, kernel=None):
    """What a call of a launcher launches, noted instead of executed."""
    args = call.args.items()
    given = (np.zeros(a.shape, a.dtype or call.dtype) if type(a) is Blank else a for _, a in args)
    with _numba.recording() as launches:
        (kernel or getattr(cuda, call.kernel))(*given)
    return launches


def compiled(kernel, name):
    """What the float32 specialisations of a launcher's kernels take of a GPU."""
    kinds = set()
    for seed in range(4):
        for call in draw_example(case_of(name), Draw(Seeded(seed), "float32")).calls:
            if call.kernel == name:
                kinds |= {(a.kernel, a.signature) for a in launches_of(call, kernel)}
    kinds = {kind for kind in kinds if report.is_float32(kind[1])}
    return [cubin.compiled(*kind, (8, 0)).resources for kind in kinds]


def checked(name, backend):
    """The properties of a kernel, at more sizes past its tiles than one run of the suite draws."""
    verify(case_of(name), backend, "float32", **FAST)
    for seed in range(4, 16):
        hold(draw_example(case_of(name), Draw(Seeded(seed), "float32", "large")), backend)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_killed(mutant):
    kernel = changed(mutant)
    if mutant.killed_by == ".f64":
        assert any(took.f64 for took in compiled(kernel, mutant.kernel))
    elif mutant.killed_by == "stack":
        assert any(took.stack for took in compiled(kernel, mutant.kernel))
    else:
        backend = Backend("mutant", {mutant.kernel: kernel}, schedules=SCHEDULES)
        with pytest.raises(Mismatch) as found:
            checked(mutant.kernel, backend)
        said = str(found.value)
        kind, _, rest = mutant.killed_by.partition(" or ")  # which is found first is chance
        if "wrong" in (kind, rest) and found.value.property != "runs":
            assert found.value.property in WRONG, said
        else:
            assert found.value.property == "runs", said
            assert re.search(SAID[kind], said), said


@pytest.mark.parametrize("name", sorted({mutant.kernel for mutant in MUTANTS}))
def test_the_kernel_as_it_is_survives(name):
    kernel = getattr(cuda, name)
    checked(name, Backend("ours", {name: kernel}, schedules=SCHEDULES))
    assert all(took.f64 == took.stack == 0 for took in compiled(kernel, name))


@pytest.mark.parametrize("name", sorted(DEFINITION))
def test_a_launcher_that_does_nothing_is_noticed(name):
    kinds = roles(DEFINITION[name])

    def idle(*args):
        outputs = tuple(a for a, kind in zip(args, kinds.values()) if "out" in kind)
        return outputs if len(outputs) > 1 else outputs[0]

    with pytest.raises(Mismatch):
        verify(case_of(name), Backend("idle", {name: idle}), "float32", **FAST)


def examples_by_kernel():
    """For each @jit kernel some examples of Cases that launch it."""
    found = defaultdict(list)
    for case in CASES.values():
        for seed in range(3):
            for mode in ("any", "large", "edges"):
                example = draw_example(case, Draw(Seeded(seed), "float32", mode))
                for call in example.calls:
                    for launch in launches_of(call):
                        found[launch.kernel].append(Example(case, [call], [call], 0))
    return found


def test_a_kernel_that_is_not_launched_is_noticed():
    """The same, one level down: where any @jit kernel does nothing, the checks of a Case fail."""
    unnoticed = []
    for kernel, examples in examples_by_kernel().items():
        with mock.patch.object(kernel, "_launch", lambda *args: None):
            for example in examples:
                try:
                    hold(example, Backend("idle", vars(cuda)))
                except Mismatch:
                    break
            else:
                unnoticed.append(kernel)
    assert not unnoticed


def test_there_are_mutants_enough():
    assert len(MUTANTS) >= 20
