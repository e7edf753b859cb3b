"""Energy: counters that are read right, that run over, that are not there; no number is made up."""

import itertools
import math
import sys

import numpy as np
import pytest
from fake_nvml import fake

import minidl
from minidl import energy, nn
from minidl.callbacks import CSVLogger
from minidl.energy import EnergyMonitor, GpuStat, Meter, NotMeasured, Nvml, Rapl
from minidl.train import History, fit


@pytest.fixture
def nvml(monkeypatch):
    """Put a fake pynvml where the real one would be."""

    def install(**options):
        module = fake(**options)
        monkeypatch.setitem(sys.modules, "pynvml", module)
        return module

    return install


@pytest.fixture
def rapl(tmp_path):
    """A folder like /sys/class/powercap, and a function that sets a counter."""

    def put(zone, microjoules, name=None, most=1000):
        folder = tmp_path / zone
        folder.mkdir(exist_ok=True)
        (folder / "energy_uj").write_text(f"{microjoules}\n")
        (folder / "max_energy_range_uj").write_text(f"{most}\n")
        if name:
            (folder / "name").write_text(f"{name}\n")

    (tmp_path / "intel-rapl").mkdir()  # the control type, which is no zone
    return tmp_path, put


# RAPL


def test_packages_and_their_memory_are_added_up(rapl):
    root, put = rapl
    put("intel-rapl:0", 100, "package-0")
    put("intel-rapl:0:0", 70, "core")  # a part of the package
    put("intel-rapl:0:1", 10, "dram")
    put("intel-rapl:1", 500, "package-1")
    put("intel-rapl:2", 900, "psys")  # the whole board, packages included
    put("intel-rapl-mmio:0", 100, "package-0")  # the same package once more
    counter = Rapl(root)
    assert [zone.name for zone in counter.zones] == [
        "intel-rapl:0", "intel-rapl:0:1", "intel-rapl:1",
    ]  # fmt: skip
    assert counter.joules() == 0
    put("intel-rapl:0", 160)
    put("intel-rapl:0:1", 15)
    put("intel-rapl:2", 999)
    assert counter.joules() == pytest.approx(65e-6)
    assert counter.joules() == pytest.approx(65e-6)


def test_a_counter_that_runs_over_goes_on(rapl):
    root, put = rapl
    put("intel-rapl:0", 900, "package-0", most=1000)
    counter = Rapl(root)
    put("intel-rapl:0", 50)
    assert counter.joules() == pytest.approx(150e-6)
    put("intel-rapl:0", 40)
    assert counter.joules() == pytest.approx(1140e-6)


def test_no_counter_is_told_as_such(rapl):
    root, put = rapl
    with pytest.raises(NotMeasured, match="there is no energy counter"):
        Rapl(root)
    put("intel-rapl:0", "broken", "package-0")
    with pytest.raises(NotMeasured, match="says 'broken', which is no number"):
        Rapl(root)
    (root / "intel-rapl:0" / "energy_uj").unlink()
    with pytest.raises(NotMeasured, match="cannot be read"):
        Rapl(root)


def test_a_counter_for_root_alone_says_so(rapl, monkeypatch):
    root, put = rapl
    put("intel-rapl:0", 1, "package-0")
    real = energy.Path.read_text

    def refuse(self, *args):
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *args)

    monkeypatch.setattr(energy.Path, "read_text", refuse)
    with pytest.raises(NotMeasured, match="energy_uj is not for this user to read"):
        Rapl(root)


# NVML


def test_millijoules_are_joules(nvml):
    module = nvml(energy=2500, power=71_500, busy=93, used=3_000_000_000)
    gpu = Nvml()
    assert module.asked == 0
    assert (gpu.joules(), gpu.watts(), gpu.utilization(), gpu.memory()) == (2.5, 71.5, 93.0, 3e9)


def test_the_gpu_is_the_one_that_computes(nvml, monkeypatch):
    module = nvml(energy=1)
    there = type("Where", (), {"name": "cuda"})
    monkeypatch.setattr(energy.backend, "devices", lambda: [there])
    monkeypatch.setattr(energy.cuda, "bus_id", lambda: "0000:65:00.0")
    Nvml()
    assert module.asked == "0000:65:00.0"


@pytest.mark.parametrize(
    "words, options",
    [
        ("no GPU .NVML Shared Library Not Found", dict(driver=False)),
        ("^no GPU$", dict(gpus=0)),
    ],
)
def test_no_gpu_is_told_as_such(nvml, words, options):
    nvml(**options)
    with pytest.raises(NotMeasured, match=words):
        Nvml()


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NotMeasured, match=r"pip install 'minidl\[energy\]'"):
        Nvml()


def test_a_gpu_that_does_not_count_has_no_energy_but_the_rest(nvml):
    nvml(old=True, energy=1, busy=50, used=10**6, power=1000)
    assert Nvml().utilization() == 50
    meter = Meter((Nvml,))
    assert meter.read() == {}
    assert "gpu: not measured (NVML does not tell (Not Supported))" in str(meter)


# Meters and callbacks


def trained(*callbacks, epochs=3):
    model = nn.Sequential(nn.Linear(4, 2))
    batch = np.ones((8, 4), np.float32), np.zeros(8, np.int64)
    return fit(model, [batch] * 2, epochs=epochs, callbacks=callbacks, progress=False)


def test_the_history_has_joules_of_each_epoch_and_sample(nvml, rapl, tmp_path):
    root, put = rapl
    put("intel-rapl:0", 0, "package-0")
    spent = itertools.accumulate([1000, 4000, 6000, 8000])
    nvml(energy=lambda: next(spent))
    monitor = EnergyMonitor(samples=16, meter=Meter((Nvml, lambda: Rapl(root))))
    history = trained(monitor, CSVLogger(tmp_path / "log.csv"))
    assert history["gpu_joules"] == [4, 6, 8]
    assert history["gpu_joules_per_sample"] == [0.25, 0.375, 0.5]
    assert history["cpu_joules"] == [0, 0, 0]
    assert str(monitor) == "energy: gpu: measured; cpu: measured"
    assert monitor.beat is None  # nobody reads the counters any more
    assert "gpu_joules_per_sample" in (tmp_path / "log.csv").read_text().splitlines()[0]


def test_what_is_not_measured_has_no_column(nvml, tmp_path):
    nvml(driver=False)
    meter = Meter((Nvml, lambda: Rapl(tmp_path)))
    monitor = EnergyMonitor(samples=16, meter=meter)
    history = trained(monitor)
    assert not [name for name in history if "joule" in name]
    assert "gpu: not measured (no GPU" in str(monitor)
    assert "not measured (no RAPL" in str(monitor)


def test_a_counter_that_fails_later_leaves_nan(nvml):
    readings = iter([1000, 3000, "lost", 9000, 9500])

    def ask():
        value = next(readings)
        if value == "lost":
            raise sys.modules["pynvml"].NVMLError("GPU is lost")
        return value

    nvml(energy=ask)
    meter = Meter((Nvml,))
    found = [meter.read()["gpu"] for _ in range(4)]
    assert found[0] == 2 and found[3] == 0.5
    assert math.isnan(found[1]) and math.isnan(found[2])  # from a reading that there was not
    assert "GPU is lost" in str(meter)


def test_long_epochs_are_looked_at_before_a_counter_runs_over_twice(rapl, monkeypatch):
    root, put = rapl
    put("intel-rapl:0", 900, "package-0", most=1000)
    monkeypatch.setattr(energy, "READ_EVERY", 0.01)
    monitor = EnergyMonitor(meter=Meter((lambda: Rapl(root),)))
    counter = monitor.meter.counters[0]

    def seen(microjoules):
        put("intel-rapl:0", microjoules)
        for _ in range(500):
            if counter.last[counter.zones[0]] == microjoules:
                return
            monitor.beat.ended.wait(0.01)
        raise AssertionError("the beat does not read")

    for microjoules in (500, 100, 40):  # over, over, over
        seen(microjoules)
    history = History()
    monitor.on_epoch_end(nn.Module(), history)
    monitor.on_train_end(nn.Module(), history)
    assert history["cpu_joules"] == pytest.approx([(600 + 600 + 940) * 1e-6])


def test_samples_that_make_no_sense():
    with pytest.raises(ValueError, match="samples is 0"):
        EnergyMonitor(samples=0, meter=Meter(()))


def test_gpustat_notes_and_tells_each_epoch(nvml):
    nvml(busy=80, used=2_000_000, power=150_000)
    told = []
    history = trained(GpuStat(tell=told.append), epochs=2)
    assert history["gpu_percent"] == [80, 80]
    assert history["gpu_megabytes"] == [2, 2]
    assert history["gpu_watts"] == [150, 150]
    assert told == ["gpu 80 % busy, 2 MB in use, 150 W"] * 2


def test_gpustat_leaves_out_what_the_gpu_does_not_tell(nvml):
    nvml(used=2_000_000)
    told = []
    history = trained(GpuStat(tell=told.append), epochs=1)
    assert math.isnan(history["gpu_watts"][0])
    assert told == ["gpu 2 MB in use"]


@pytest.mark.parametrize("options", [dict(driver=False), dict(gpus=0)])
def test_gpustat_says_no_gpu_and_goes_on(nvml, options):
    nvml(**options)
    told = []
    history = trained(GpuStat(tell=told.append))
    assert history.epochs == 3
    assert [name for name in history if "gpu" in name] == []
    assert len(told) == 1 and told[0].startswith("gpustat: no GPU")


@pytest.mark.gpu
def test_a_real_gpu_counts():
    pytest.importorskip("pynvml")
    meter = Meter((Nvml,))
    x = minidl.randn(2048, 2048).to("cuda")
    for _ in range(200):
        y = x @ x
    minidl.cuda.synchronize()
    y.numpy()
    spent = meter.read()
    assert meter.missing or 0 < spent["gpu"] < 1000
