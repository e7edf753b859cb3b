"""The device "cuda": tensors live there, ops stay there, nothing computes on the host instead."""

import copy
import gc
import importlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minidl as md
from minidl import Tensor, backend, io, nn, optim
from minidl.data import DataLoader, digits
from minidl.nn import functional as F
from minidl.random import default_generator
from minidl.train import evaluate, fit, predict

ROOT = Path(__file__).parent.parent
emulator = pytest.mark.emulator
emulated = pytest.mark.parametrize(
    "cuda", [pytest.param("emulated", marks=emulator)], indirect=True
)


@pytest.fixture
def memory(cuda):
    return importlib.import_module("minidl.kernels.cuda.memory")


@pytest.fixture
def guarded():
    return importlib.import_module("minidl.kernels.cuda.guarded")


def a(*shape, dtype="float32"):
    return np.cos(np.arange(np.prod(shape))).reshape(shape).astype(dtype)


# which device there is


def test_one_gpu_under_two_names(cuda):
    assert md.device("cuda") is md.device("cuda:0") is md.device(cuda) is cuda
    with pytest.raises(RuntimeError, match=r"no device 'cuda:1'; .* one GPU, 'cuda'"):
        md.device("cuda:1")
    with pytest.raises(RuntimeError, match=r"no device 'gpu'; known: 'cpu', 'cuda'$"):
        md.device("gpu")


def without(monkeypatch, *missing):
    """A Cuda device on a machine on which some packages are not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        backend.importlib.util, "find_spec", lambda name: None if name in missing else find(name)
    )
    return backend.Cuda("cuda")


@pytest.mark.parametrize("asked", ["", "emulate"])
def test_without_numba_cuda_the_error_has_the_pip_line(monkeypatch, asked):
    monkeypatch.setenv("MINIDL_CUDA", asked)
    with pytest.raises(RuntimeError) as error:
        without(monkeypatch, "numba_cuda").array([1.0])
    assert "pip install 'minidl[cuda13]'" in str(error.value)
    assert "pip install 'minidl[emulate]'" in str(error.value)
    assert not md.cuda.is_available()
    assert md.cuda.devices() == []


@emulator
def test_without_a_gpu_nothing_is_emulated_unasked(monkeypatch):
    monkeypatch.delenv("MINIDL_CUDA", raising=False)
    kernels = SimpleNamespace(memory=SimpleNamespace(emulated=lambda: True))
    monkeypatch.setattr(backend, "cuda_kernels", lambda: kernels)
    with pytest.raises(RuntimeError, match=r"no NVIDIA GPU here.*minidl doctor.*MINIDL_CUDA=emul"):
        backend.Cuda("cuda").array([1.0])


@emulator
def test_without_cupy_a_gpu_is_no_use(monkeypatch):
    monkeypatch.delenv("MINIDL_CUDA", raising=False)
    kernels = SimpleNamespace(memory=SimpleNamespace(emulated=lambda: False))
    monkeypatch.setattr(backend, "cuda_kernels", lambda: kernels)
    with pytest.raises(RuntimeError, match=r"needs CuPy.*pip install 'minidl\[cuda13\]'"):
        without(monkeypatch, "cupy").array([1.0])


def test_another_word_in_the_variable_is_refused(monkeypatch):
    monkeypatch.setenv("MINIDL_CUDA", "emulated")
    with pytest.raises(RuntimeError, match="MINIDL_CUDA is 'emulated'; it can be 'emulate'"):
        backend.Cuda("cuda").array([1.0])


@emulator
def test_any_script_runs_on_the_emulator():
    code = "import minidl; x = minidl.Tensor([1.0, 2.0]).to('cuda'); print((x * x).sum().item())"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(Path.home())}
    run = [sys.executable, "-c", code]
    on = subprocess.run(
        run, env=environment | {"MINIDL_CUDA": "emulate"}, capture_output=True, text=True
    )
    assert on.stdout.strip() == "5.0", on.stderr
    off = subprocess.run(
        run, env=environment | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True
    )
    assert off.returncode == 1
    assert "RuntimeError: device 'cuda': there is no NVIDIA GPU here" in off.stderr


def test_importing_minidl_cuda_loads_no_kernels():
    code = "import sys, minidl.cuda; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert not {"numba", "numba_cuda", "minidl.kernels.cuda"} & set(run.stdout.split())
    with pytest.raises(AttributeError, match="no attribute 'device_counts'"):
        _ = md.cuda.device_counts


# emulated memory is closed to the host


@emulated
@pytest.mark.parametrize(
    ("touch", "name"),
    [
        (lambda x: x + 1, "numpy.add"),
        (lambda x: np.ones(3, np.float32) * x[0], "numpy.multiply"),
        (lambda x: x @ x, "numpy.matmul"),
        (lambda x: x == x, "numpy.equal"),
        (lambda x: np.exp(x), "numpy.exp"),
        (lambda x: np.sum(x), "numpy.sum"),
        (lambda x: np.where(x, 1, 2), "numpy.where"),
        (lambda x: np.concatenate([x, x]), "numpy.concatenate"),
        (lambda x: x.sum(), "sum"),
        (lambda x: x.max(), "max"),
        (lambda x: x.copy(), "copy"),
        (lambda x: x.astype("float64"), "astype"),
        (lambda x: x.fill(0), "fill"),
        (lambda x: x.item(0), "item"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x.flat, "flat"),
        (lambda x: x.ravel(), "ravel"),
        (lambda x: float(x[0, 0]), "__float__"),
        (lambda x: int(x[0, 0]), "__int__"),
        (lambda x: [0][x[0, 0]], "__index__"),
        (lambda x: bool(x[0, 0]), "__bool__"),
        (lambda x: list(x), "__iter__"),
        (lambda x: 1.0 in x, "__contains__"),
        (lambda x: copy.deepcopy(x), "__deepcopy__"),
        (lambda x: np.from_dlpack(x), "__dlpack__"),
        (lambda x: x.__setitem__(0, 1), "__setitem__"),
        (lambda x: x.__iadd__(1), "numpy.add"),
        (lambda x: x[[0, 1]], "indexing with a list"),
        (lambda x: x[np.array([0])], "indexing with a ndarray"),
        (lambda x: x.T.reshape(-1), "reshape"),
    ],
)
def test_the_host_is_refused(touch, name, memory):
    x = memory.from_host(a(3, 3))
    with pytest.raises(TypeError, match=rf"^{name}\b.* on device memory: only kernels work there"):
        touch(x)


@emulated
def test_views_of_device_memory_are_device_memory(memory, guarded):
    host = a(4, 3, 2)
    x = memory.from_host(host)
    views = [
        (lambda z: z.reshape(12, 2)), (lambda z: z.reshape((2, -1))), (lambda z: z[1:, ::2]),
        (lambda z: z.transpose(2, 0, 1)), (lambda z: z.swapaxes(0, 2)), (lambda z: z.T),
        (lambda z: z[None, ..., 0]), (lambda z: z[1, 2]), (lambda z: z[1, 2, 0]),
    ]  # fmt: skip
    for view in views:
        y = view(x)
        assert type(y) is guarded.DeviceArray
        assert y.device == "cuda"
        np.testing.assert_array_equal(memory.to_host(y), view(host))
        assert guarded.intact(y)
    assert repr(x) == str(x) == f"{x}" == "<emulated device memory: float32 (4, 3, 2)>"
    np.testing.assert_array_equal(
        memory.to_host(memory.broadcast_to(x[0], (2, 3, 2))), np.broadcast_to(host[0], (2, 3, 2))
    )
    with pytest.raises(ValueError, match=r"shape \(3, 2\) does not broadcast to \(3, 3\)"):
        memory.broadcast_to(x[0], (3, 3))


@emulated
@pytest.mark.parametrize("beside", [-1, 24, -256, 24 + 255])
def test_what_is_written_beside_an_array_is_seen(memory, guarded, beside):
    x = memory.empty((2, 3), "float32")
    assert np.isnan(memory.to_host(x)).all(), "who reads what nobody wrote sees it"
    assert memory.pointer(x) % 256 == 0
    around = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_ubyte * (24 + 512)).from_address(
        memory.pointer(x) - 256))  # fmt: skip
    assert guarded.intact(x.T[1:])
    around[256 + beside] ^= 1
    assert not guarded.intact(x.T[1:])
    assert guarded.intact(np.zeros(3)), "memory of others has no guards"


# tensors


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "int32", "int64", "uint8", "uint64", "bool"]
)
def test_tensors_come_and_go_unchanged(cuda, dtype):
    host = (100 * a(3, 4, dtype="float64") ** 2).astype(dtype)
    x = Tensor(host, device="cuda")
    assert (x.device, x.shape, x.dtype) == (cuda, (3, 4), np.dtype(dtype))
    for there in (x, Tensor(host.T).cuda().T, Tensor(host).to("cuda"), Tensor(x), md.tensor(x)):
        assert there.device is cuda
        np.testing.assert_array_equal(there.numpy(), host)
    back = x.cpu()
    assert back.device.name == "cpu"
    np.testing.assert_array_equal(back.numpy(), host)
    assert x.to("cuda") is x
    assert back.cpu() is back
    host[0, 0] = not host[0, 0]
    assert x.numpy()[0, 0] != host[0, 0], "a copy, not a view"
    assert Tensor(x, device="cpu").device.name == "cpu"
    assert Tensor(x, dtype="float64").dtype == np.float64


def test_a_tensor_is_read_as_on_the_cpu(cuda):
    x = Tensor([[1.0, 2.0], [3.0, 4.5]], device="cuda")
    assert repr(x) == "tensor([[1. , 2. ],\n        [3. , 4.5]], device='cuda')"
    assert x.tolist() == [[1, 2], [3, 4.5]]
    assert (len(x), x.size, x.ndim) == (2, 4, 2)
    assert float(x[1, 1]) == x[1, 1].item() == 4.5
    assert int(x[1, 0]) == 3
    assert bool(x[0, 0] > 0.5)
    assert [row.tolist() for row in x] == [[1, 2], [3, 4.5]]
    assert np.asarray(x).tolist() == x.tolist()
    assert x[Tensor(np.array([1, 0, 1]))].tolist() == [[3, 4.5], [1, 2], [3, 4.5]]
    assert x[Tensor(np.array([-1]), device="cuda")].tolist() == [[3, 4.5]]
    assert Tensor(2.5, device="cuda").item() == 2.5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (..., 7.0), (0, 2), ((slice(None), 1), np.array([5.0, 6.0, 7.0])), ((1, 2), 9.5),
        (slice(1, None), Tensor([[1.0], [2.0]])), ((..., None), np.ones((3, 4, 1))), (0, True),
        ((slice(None, None, 2), slice(None, None, -1)), np.arange(8.0).reshape(1, 2, 4)),
    ],
)  # fmt: skip
def test_values_are_assigned_as_on_the_cpu(cuda, key, value):
    x, y = Tensor(a(3, 4)), Tensor(a(3, 4), device="cuda")
    version = y.version[0]
    x[key] = value
    y[key] = value
    np.testing.assert_array_equal(y.numpy(), x.numpy())
    assert y.version[0] == version + 1
    y[key] = Tensor(value, device="cuda").astype("float32")
    np.testing.assert_array_equal(y.numpy(), x.numpy())


def test_what_cannot_be_assigned_is_refused(cuda):
    x = Tensor(a(3, 4), device="cuda")
    with pytest.raises(ValueError, match="broadcast"):
        x[0] = np.ones(3)
    with pytest.raises(ValueError, match="broadcast"):
        x[0] = Tensor(np.ones(3), device="cuda")
    with pytest.raises(TypeError, match="assignment on 'cuda': no index can be a ndarray"):
        x[np.array([True, False, True])] = 0
    with pytest.raises(IndexError):
        x[3] = 0
    x.copy_(Tensor(np.ones(4)))
    assert x.tolist() == [[1] * 4] * 3


def test_copies_of_a_leaf_and_of_a_model_stay_on_the_device(cuda):
    x = Tensor(a(2, 3), requires_grad=True, device="cuda")
    y = copy.deepcopy(x)
    assert y.device is cuda
    assert y.requires_grad
    with md.no_grad():
        x.copy_(0.0)
    np.testing.assert_array_equal(y.detach().numpy(), a(2, 3))
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm2d(2)).cuda()
    twin = copy.deepcopy(model)
    assert {t.device for t in (*twin.parameters(), *twin.buffers())} == {cuda}


def test_other_libraries_share_a_gpus_memory_and_not_the_emulators(cuda):
    x = Tensor(a(3), device="cuda")
    if not cuda.kernels.memory.emulated():
        shared = md.from_dlpack(x)
        assert shared.device is cuda
        shared[0] = 5.0
        assert x[0].item() == 5.0
        return
    with pytest.raises(TypeError, match=r"__dlpack__ on device memory.*to\('cpu'\)"):
        np.from_dlpack(x)
    with pytest.raises(TypeError, match="no GPU memory to share"):
        md.from_dlpack(SimpleNamespace(__dlpack_device__=lambda: (backend.CUDA_MEMORY, 0)))
    assert md.from_dlpack(x.cpu()).tolist() == x.tolist()


def test_devices_are_not_mixed(cuda):
    x, y = Tensor([1.0, 2.0]), Tensor([3.0, 4.0], device="cuda")
    with pytest.raises(RuntimeError, match=r"add: b is on 'cuda', but .* are on 'cpu'; move one"):
        x + y
    with pytest.raises(RuntimeError, match=r"mul: b is on 'cpu', but .* are on 'cuda'; move one"):
        y * np.ones(2, np.float32)
    leaf = Tensor([1.0], requires_grad=True, device="cuda")
    with pytest.raises(ValueError, match=r"grad: the gradient is .* on 'cpu', but .* on 'cuda'"):
        leaf.grad = Tensor([1.0])
    with pytest.raises(ValueError, match=r"backward: the gradient is .* on 'cpu'"):
        (leaf * 2).backward(Tensor([1.0]))
    if cuda.kernels.memory.emulated():
        with pytest.raises(TypeError, match="is not on 'cpu'; give the Tensor that holds it"):
            Tensor(y.data)
    assert (2 * y + 1).tolist() == [7, 9], "numbers go to the device of the tensor"


def test_gradients_come_back_across_devices(cuda):
    x = Tensor(a(3), requires_grad=True)
    y = x * 2
    z = (y.cuda() * Tensor(a(3), device="cuda")).cpu()
    (z.sum() + y.sum()).backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * a(3) + 2, rtol=1e-6)
    assert x.grad.device.name == "cpu"
    with md.no_grad():
        assert not x.cuda().requires_grad


def test_a_wrong_label_is_nan_and_not_anothers_memory(cuda):
    # it is not looked at: that would wait for the GPU
    x = Tensor(a(2, 3), requires_grad=True, device="cuda")
    loss = F.cross_entropy(x, Tensor(np.array([0, 3]), device="cuda"), reduction="none")
    assert np.isfinite(loss.detach().numpy()).tolist() == [True, False]
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).cuda()
    with pytest.raises(FloatingPointError, match="wrong labels"):
        fit(model, [(a(2, 4), np.array([0, 3]))], epochs=1, progress=False)


def test_an_op_reads_nothing_back(cuda, monkeypatch):
    x = Tensor(a(4, 6, 6, 2), device="cuda")
    label = Tensor(np.array([0, 1, 0, 1]), device="cuda")
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5),
        nn.Flatten(), nn.Linear(12, 2),
    ).cuda()  # fmt: skip
    optimizer = optim.Adam(model.parameters())
    default_generator("cuda")

    def refuse(array):
        raise AssertionError("an array was read back to the host")

    monkeypatch.setattr(backend.Cuda, "numpy", lambda self, array: refuse(array))
    monkeypatch.setattr(cuda.kernels.memory, "to_host", refuse)
    for _ in range(2):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), label)
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert loss.device is cuda


# random numbers


def test_random_numbers_are_the_same_bits_on_both_devices(cuda):
    here, there = md.Generator(7), md.Generator(7, device="cuda")
    for draw in (lambda g: g.uniform((5, 3)), lambda g: g.uniform((7,), -2.0, 3.0, "float64")):
        np.testing.assert_array_equal(draw(here).numpy(), draw(there).numpy())
    np.testing.assert_allclose(here.normal((9,)).numpy(), there.normal((9,)).numpy(), rtol=1e-5)
    assert here.get_state() == there.get_state()
    md.manual_seed(3)
    first = md.rand(4, device="cuda").numpy()
    md.manual_seed(3)
    np.testing.assert_array_equal(first, md.rand(4).numpy())
    assert md.randn(2, 3, requires_grad=True, device="cuda").device is cuda


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (3, 1, 0, 2), (1, 2, 3, 0)])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropout_drops_the_same_elements_on_both_devices(cuda, axes, p):
    host, got = a(3, 5, 4, 2) + 2, {}
    for where in ("cpu", "cuda"):
        x = Tensor(host, requires_grad=True, device=where)
        y = F.dropout(x.permute(*axes), p, generator=md.Generator(11, device=where))
        y.backward(Tensor(np.ones(y.shape, np.float32), device=where))
        got[where] = y.detach().numpy(), x.grad.numpy()
    for mine, want in zip(got["cuda"], got["cpu"]):
        np.testing.assert_array_equal(mine, want)


# modules, optimizers, files, loops


def net():
    """No bias before the batch norm: its gradient is rounding, of which Adam makes whole steps."""
    md.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(),
        nn.Linear(72, 10),
    )  # fmt: skip


def batches(n=2):
    return DataLoader(digits("test")[: 8 * n], 8)


def test_a_model_moves_with_all_it_holds(cuda):
    model = net()
    before = model.state_dict()
    assert model.cuda() is model
    assert {t.device for t in (*model.parameters(), *model.buffers())} == {cuda}
    assert all(p.requires_grad for p in model.parameters())
    after = model.cpu().state_dict()
    assert {t.device.name for t in (*model.parameters(), *model.buffers())} == {"cpu"}
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    double = net().cuda().double()
    assert {p.dtype for p in double.parameters()} == {np.dtype("float64")}
    table = net().cuda().summary((2, 28, 28, 1))
    assert table.parameters == sum(p.size for p in model.parameters())


def test_an_optimizer_made_before_the_move_says_so(cuda):
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    x, y = next(iter(batches()))
    model.cuda()
    F.cross_entropy(model(x.cuda()), y.cuda()).backward()
    with pytest.raises(RuntimeError, match=r"on 'cuda', but was .* on 'cpu'.*after model.to\(\)"):
        optimizer.step()


def test_clipping_refuses_gradients_of_two_devices(cuda):
    x, y = (Tensor([3.0, 4.0], requires_grad=True, device=d) for d in ("cpu", "cuda"))
    x.sum().backward()
    y.sum().backward()
    assert optim.clip_grad_norm_([y], 1.0).item() == pytest.approx(2**0.5)
    assert y.grad.tolist() == pytest.approx([0.5**0.5] * 2, rel=1e-5)
    with pytest.raises(RuntimeError, match="several devices"):
        optim.clip_grad_norm_([x, y], 1.0)


def learn(model, optimizer, loader):
    for x, y in loader:
        where = next(model.parameters()).device
        optimizer.zero_grad()
        F.cross_entropy(model(x.to(where)), y.to(where)).backward()
        optimizer.step()


@pytest.mark.parametrize("kind", [optim.Adam, lambda p: optim.SGD(p, momentum=0.9)])
def test_a_checkpoint_goes_from_cuda_to_the_cpu_and_back_bit_for_bit(cuda, kind, tmp_path):
    model, loader = net().cuda(), batches()
    optimizer = kind(model.parameters())
    learn(model, optimizer, loader)
    md.rand(5, device="cuda")
    state = default_generator("cuda").get_state()
    parts = dict(model=model, optimizer=optimizer)
    io.save_checkpoint(tmp_path / "cuda.safetensors", **parts)

    elsewhere = net()
    for p in elsewhere.parameters():
        with md.no_grad():
            p.copy_(0.0)
    other = kind(elsewhere.parameters())
    io.load_checkpoint(tmp_path / "cuda.safetensors", model=elsewhere, optimizer=other)
    io.save_checkpoint(tmp_path / "cpu.safetensors", model=elsewhere, optimizer=other)
    saved = [(tmp_path / f"{where}.safetensors").read_bytes() for where in ("cuda", "cpu")]
    assert saved[0] == saved[1]

    learn(model, optimizer, loader)  # away from what was saved, and back
    md.manual_seed(99)
    io.load_checkpoint(tmp_path / "cpu.safetensors", **parts)
    assert default_generator("cuda").get_state() == state
    io.save_checkpoint(tmp_path / "again.safetensors", **parts)
    assert (tmp_path / "again.safetensors").read_bytes() == saved[0]
    assert {p.device for p in model.parameters()} == {cuda}


def test_a_generator_that_is_not_there_yet_gets_its_state_later(cuda, monkeypatch):
    md.random.set_states({"cpu": (4, 2), "cuda": (9, 8)})
    assert "cuda" in md.random.get_states()
    monkeypatch.setattr("minidl.random._waiting", {"cuda": (9, 8)})
    assert default_generator("cuda").get_state() == (9, 8)
    assert default_generator().get_state() == (4, 2)


def test_weights_are_saved_from_cuda_and_read_on_the_cpu(cuda, tmp_path):
    model = md.models.mnist_mlp(hidden=8).cuda()
    md.save(model, tmp_path / "model.safetensors")
    again = md.load(tmp_path / "model.safetensors")
    assert {p.device.name for p in again.parameters()} == {"cpu"}
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], array)
    assert md.load(tmp_path / "model.safetensors", model) is model
    assert {p.device for p in model.parameters()} == {cuda}


def test_fit_evaluate_and_predict_bring_the_batches_to_the_model(cuda):
    def run(model):
        history = fit(model, batches(), epochs=2, validation=batches(1), progress=False)
        images = next(iter(batches(1)))[0].numpy()
        given = predict(model, images), predict(model, batches(1)), predict(model, Tensor(images))
        return history, evaluate(model, batches()), given

    here, measured, probabilities = run(net())
    there, measured_there, probabilities_there = run(net().cuda())
    assert there["loss"] == pytest.approx(here["loss"], rel=1e-4)
    assert there["val_accuracy"] == here["val_accuracy"]
    assert measured_there == pytest.approx(measured, rel=1e-3)
    for mine, want in zip(probabilities_there, probabilities, strict=True):
        np.testing.assert_allclose(mine, want, rtol=1e-3, atol=1e-5)


def test_a_model_without_parameters_is_on_the_cpu():
    assert evaluate(nn.Sequential(nn.Flatten()), [(a(2, 3), np.array([0, 1]))])["loss"] > 0


def test_the_command_line_trains_on_cuda(cuda, tmp_path, capsys, monkeypatch):
    from minidl.cli import main

    few = digits("test")[:64]
    monkeypatch.setattr("minidl.data.digits", lambda split: few)
    flags = ["--epochs", "1", "--device", "cuda", "--out", str(tmp_path)]
    assert main(["train", "mnist-mlp", *flags]) == 0
    assert "test accuracy" in capsys.readouterr().out
    assert '"device": "cuda"' in (tmp_path / "mnist-mlp" / "result.json").read_text()


# what is in memory


def test_live_arrays_are_counted(cuda, memory):
    gc.collect()
    before, count = md.cuda.memory_allocated(), len(memory.live())
    x = Tensor(np.zeros((64, 32), np.float32), device="cuda")
    assert md.cuda.memory_allocated() == before + 8192
    view = x.T[3:]
    del x
    assert md.cuda.memory_allocated() == before + 8192, "a view keeps all of it alive"
    del view
    assert md.cuda.memory_allocated() == before
    md.cuda.reset_peak_memory_stats()
    assert md.cuda.max_memory_allocated() == before
    Tensor(np.zeros((64, 64), np.float32), device="cuda")
    assert md.cuda.max_memory_allocated() == before + 16384
    assert md.cuda.memory_allocated() == before
    assert len(memory.live()) == count
    md.cuda.synchronize()
    md.cuda.empty_cache()


def test_devices_and_what_is_in_their_memory(cuda):
    (device,) = md.cuda.devices()
    assert device.compute_capability >= (7, 5)
    assert device.memory > 2**20
    keep = Tensor(np.zeros((300, 1000)), device="cuda")
    text = md.cuda.memory_summary()
    assert text.startswith(f"cuda: {device.name}, compute capability ")
    assert "float64 (300, 1000)" in text
    assert "2.3 MiB" in text
    assert keep.shape == (300, 1000)


@emulated
def test_out_of_memory_says_what_takes_the_room(cuda, memory, monkeypatch):
    gc.collect()
    monkeypatch.setattr(memory, "LIMIT", memory.allocated() + 3 * 2**20)
    weights = Tensor(np.zeros((512, 512), np.float32), device="cuda")
    with pytest.raises(md.cuda.OutOfMemoryError) as error:
        Tensor(np.zeros((1024, 1024), np.float32), device="cuda")
    first, *rest = str(error.value).splitlines()
    assert first.startswith(
        "out of GPU memory: 4.0 MiB for float32 (1024, 1024) were asked for, 2."
    )
    assert "hold" in first
    assert any("1.0 MiB  float32 (512, 512)" in line for line in rest)
    assert "smaller batches" in rest[-1]
    assert isinstance(error.value, MemoryError)
    assert Tensor(np.zeros((512, 512), np.float32), device="cuda").shape == weights.shape
    assert "free" in md.cuda.memory_summary()


@emulated
def test_a_limit_that_is_no_number_is_refused(memory, monkeypatch):
    monkeypatch.setenv("MINIDL_CUDA_MEMORY", "2GB")
    with pytest.raises(ValueError, match="MINIDL_CUDA_MEMORY is '2GB', but must be a whole"):
        memory._limit()
    monkeypatch.setenv("MINIDL_CUDA_MEMORY", "2048")
    assert memory._limit() == 2**31


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 bytes"), (1023, "1,023 bytes"), (1024, "1.0 KiB"), (5 * 2**20, "5.0 MiB"),
     (3 * 2**40, "3,072.0 GiB")],
)  # fmt: skip
@emulator
def test_numbers_of_bytes_are_readable(nbytes, text):
    memory = importlib.import_module("minidl.kernels.cuda.memory")
    assert memory.readable(nbytes) == text


# memory on a GPU, tried on what stands in for CuPy: as its documentation has it, on NumPy arrays


class CupyArray:
    """cupy.ndarray, as far as memory.py asks it."""

    def __init__(self, host):
        self.host, self.data = host, SimpleNamespace(ptr=host.ctypes.data)
        self.shape, self.dtype, self.ndim = host.shape, host.dtype, host.ndim
        self.flags, self.strides, self.nbytes = host.flags, host.strides, host.nbytes
        self.__cuda_array_interface__ = {}

    def set(self, host):
        assert type(host) is np.ndarray
        assert host.flags.c_contiguous
        assert (host.shape, host.dtype) == (self.shape, self.dtype)
        self.host[...] = host

    def get(self):
        return self.host.copy()


class Pool:
    def __init__(self):
        self.limit, self.calls = 0, []

    def set_limit(self, size):
        self.limit = size

    def used_bytes(self):
        return 2**20

    def free_bytes(self):
        return 3 * 2**20

    def total_bytes(self):
        return 4 * 2**20

    def free_all_blocks(self):
        self.calls.append("free_all_blocks")


@pytest.fixture
def fake(monkeypatch, memory):
    """A machine with a GPU: calls that were made, and what memory.py takes for CuPy."""
    pool, calls = Pool(), []

    def new(shape, dtype):
        calls.append("empty")
        if np.prod(shape) > 1e6:
            raise type("OutOfMemoryError", (MemoryError,), {})("Out of memory allocating")
        return CupyArray(np.empty(shape, dtype))

    runtime = SimpleNamespace(
        memGetInfo=lambda: (10 * 2**20, 80 * 2**20),
        getDevice=lambda: 0,
        getDeviceProperties=lambda device: {
            "name": b"NVIDIA H200", "major": 9, "minor": 0, "totalGlobalMem": 80 * 2**20},
        deviceSynchronize=lambda: calls.append("synchronize"),
    )  # fmt: skip
    cupy = SimpleNamespace(
        empty=new, ndarray=CupyArray, get_default_memory_pool=lambda: pool,
        cuda=SimpleNamespace(runtime=runtime), from_dlpack=lambda source: ("shared", source),
    )  # fmt: skip
    gpu = SimpleNamespace(cupy=cupy, stream=lambda: calls.append("stream"))
    package = importlib.import_module("minidl.kernels.cuda")
    monkeypatch.setitem(sys.modules, "minidl.kernels.cuda.gpu", gpu)
    monkeypatch.setattr(package, "gpu", gpu, raising=False)
    monkeypatch.setattr(importlib.import_module("minidl.kernels.cuda._numba"), "EMULATED", False)
    memory._gpu.cache_clear()
    yield SimpleNamespace(calls=calls, pool=pool)
    memory._gpu.cache_clear()


@emulated
def test_arrays_on_a_gpu_are_cupys_in_the_stream_that_kernels_run_in(fake, memory):
    x = memory.from_host(a(4, 3).T)
    assert type(x) is CupyArray
    assert fake.calls == ["stream", "empty"]
    np.testing.assert_array_equal(memory.to_host(x), a(4, 3).T)
    assert fake.calls[-1] == "stream"
    assert memory.on_device(x)
    assert not memory.on_device(a(3))
    assert memory.pointer(x) == x.data.ptr
    assert memory.from_host(np.float32(2)).shape == ()
    assert memory.from_dlpack("x") == ("shared", "x")
    assert memory.memory_order(x) is None
    memory.synchronize()
    memory.empty_cache()
    assert fake.calls[-1] == "stream"
    assert "synchronize" in fake.calls
    assert fake.pool.calls == ["free_all_blocks"]


@emulated
def test_memory_of_a_gpu_is_counted_and_described(fake, memory, monkeypatch):
    before = memory.allocated()
    x = memory.empty((10, 25), "float32")
    assert memory.allocated() == before + 1000
    assert memory.describe() == ("NVIDIA H200", (9, 0), 80 * 2**20)
    assert memory.reserved() == 4 * 2**20
    assert memory.room() == (13 * 2**20, 80 * 2**20)
    with pytest.raises(memory.OutOfMemoryError) as error:
        memory.empty((1024, 1024), "float32")
    first, *rest = str(error.value).splitlines()
    assert first.startswith("out of GPU memory: 4.0 MiB for float32 (1024, 1024) were asked for, ")
    assert "13.0 MiB of 80.0 MiB are free" in first
    assert any("1,000 bytes  float32 (10, 25)" in line for line in rest)
    assert "allocating" in str(error.value.__cause__)
    del x
    assert memory.allocated() == before
    monkeypatch.setattr(memory, "LIMIT", 5 * 2**20)
    memory._gpu.cache_clear()
    assert memory.room() == (4 * 2**20, 5 * 2**20)
    assert fake.pool.limit == 5 * 2**20, "CuPy's pool holds the limit"


# views and orders of memory, through the engine


@pytest.mark.parametrize(
    "expression",
    [
        lambda x: (x.permute(2, 0, 1) * 2).sum(axis=1),
        lambda x: x.permute(2, 1, 0).reshape(4, -1) @ x.reshape(6, 4),
        lambda x: x.sum(axis=0, keepdims=True).permute(1, 2, 0) + x[0, :, :, None],
        lambda x: (x.T.flatten() - 1) / (x.flatten() + 3),
        lambda x: x[:, 1:, ::2].mean(axis=(0, 2)).T,
        lambda x: x.permute(1, 2, 0).max(axis=1) ** 2,
        lambda x: F.log_softmax(x.permute(2, 0, 1), 0),
        lambda x: F.linear(x.permute(1, 2, 0), x[:, :, 0]),
        lambda x: F.conv2d(x.permute(2, 0, 1)[..., None], x[:2, :, 0, None, None], padding="same"),
        lambda x: F.max_pool2d(x.permute(2, 1, 0)[None], 2),
        lambda x: F.batch_norm(x.permute(0, 2, 1), None, None, training=True),
        lambda x: x.permute(2, 0, 1)[[1, 0, 1]] + x[0, 0, 0],
        lambda x: md.maximum(x.T, 0.2) * x.astype("float32").astype("float64").T,
        lambda x: F.cross_entropy(x[0].T, Tensor(np.array([1, 0, 0, 1]), device=x.device)),
        lambda x: x.permute(1, 0, 2).relu().exp().log().sqrt()[..., 1:],
        lambda x: x[1:1].sum(axis=0) + x[:2, :, :0].sum(axis=2, keepdims=True),
    ],
)
def test_views_in_any_order_go_through_ops_as_on_the_cpu(cuda, expression):
    def run(where):
        x = Tensor(a(3, 2, 4, dtype="float64") + 1.5, requires_grad=True, device=where)
        y = expression(x)
        (y * y).sum().backward()
        return y.detach().numpy(), x.grad.numpy()

    for mine, want in zip(run("cuda"), run("cpu")):
        np.testing.assert_allclose(mine, want, rtol=1e-11, atol=1e-12)


@emulated
def test_the_command_line_says_what_takes_the_room(cuda, memory, monkeypatch, tmp_path, capsys):
    from minidl.cli import main

    monkeypatch.setenv("MINIDL_QUIET", "1")  # compiling may take so long that a line tells it
    monkeypatch.setattr(memory, "LIMIT", memory.allocated() + 2**18)
    assert main(["train", "mnist-mlp", "--device", "cuda", "--out", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("minidl: out of GPU memory: ")
    assert not list(tmp_path.iterdir())


@emulator
def test_where_the_emulator_cannot_run_the_error_says_so(monkeypatch):
    monkeypatch.setenv("MINIDL_CUDA", "emulate")
    monkeypatch.setitem(sys.modules, "minidl.kernels.cuda.emulator", None)
    with pytest.raises(RuntimeError, match=r"kernels do not load here: .*emulator halted"):
        backend.Cuda("cuda").array([1.0])
    for ask in (md.cuda.memory_summary, md.cuda.memory_allocated, md.cuda.synchronize):
        with pytest.raises(RuntimeError, match="device 'cuda'"):
            ask()


def test_a_loader_takes_tensors_of_the_device(cuda):
    x, y = Tensor(a(5, 2), device="cuda"), Tensor(np.arange(5), device="cuda")
    (batch, labels), *_ = DataLoader((x, y), batch_size=4)
    np.testing.assert_array_equal(batch.numpy(), a(5, 2)[:4])
    assert labels.tolist() == [0, 1, 2, 3]
    assert batch.device.name == "cpu", "fit brings it to the model"


def test_fit_moves_batches_made_of_parts(cuda):
    class Two(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(2, 3)

        def forward(self, parts):
            return self.linear(parts["left"] + parts["right"][0])

    batch = {"left": a(4, 2), "right": (Tensor(a(4, 2)), "a name")}
    history = fit(Two().cuda(), [(batch, np.array([0, 1, 2, 0]))], epochs=2, progress=False, lr=0.1)
    assert history["loss"][1] < history["loss"][0]
