"""Energy, in joules that the hardware itself has counted: never an estimate, else "not measured".

    monitor = EnergyMonitor(samples=len(train))
    history = fit(model, loader, epochs=3, callbacks=[monitor])
    history["gpu_joules"], history["gpu_joules_per_sample"]     # where they are measured
    print(monitor)                                              # what is, and why the rest is not

The GPU's counter is read through NVML (pip install 'minidl[energy]'), and tells millijoules of the
whole board since the driver was loaded. Those of the CPUs and their memory are RAPL's, which Linux
shows in /sys/class/powercap; since 2020 most systems let root alone read them. Both count what the
machine does besides, too.
"""

import math
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from . import backend, cuda
from .nn import Module
from .train import Callback, History

POWERCAP = "/sys/class/powercap"
READ_EVERY = 60.0  # seconds: counters of CPUs hold 65 or 262 kJ, 4 minutes at 250 W at least
LOOK_EVERY = 0.2  # seconds: NVML's own utilisation is a mean over 1/6 s to 1 s


class NotMeasured(RuntimeError):
    """Why a quantity is not measured here."""


class Counter(Protocol):
    """Something that counts joules, from any start; `name` begins its columns."""

    name: str

    def joules(self) -> float: ...


class Nvml:
    """A GPU as NVIDIA's management library sees it: energy, utilisation, memory, power.

    The GPU that minidl computes on; where it computes on none so far, the machine's first.
    NotMeasured where there is no such library or GPU.
    """

    name = "gpu"

    def __init__(self) -> None:
        self.nvml, self.handle = _nvml()

    def joules(self) -> float:
        """Joules since the driver was loaded. NotMeasured for GPUs older than Volta."""
        return self._ask(self.nvml.nvmlDeviceGetTotalEnergyConsumption) / 1e3

    def utilization(self) -> float:
        """In how many percent of the last moments a kernel was running."""
        return float(self._ask(self.nvml.nvmlDeviceGetUtilizationRates).gpu)

    def memory(self) -> float:
        """Bytes in use on the GPU, by all programs together."""
        return float(self._ask(self.nvml.nvmlDeviceGetMemoryInfo).used)

    def watts(self) -> float:
        """What the board takes now."""
        return self._ask(self.nvml.nvmlDeviceGetPowerUsage) / 1e3

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        try:
            return question(self.handle)
        except self.nvml.NVMLError as error:
            raise NotMeasured(f"NVML does not tell ({error})") from error


def _nvml() -> tuple[ModuleType, Any]:
    try:
        nvml = import_module("pynvml")
    except ImportError:
        raise NotMeasured(
            "no NVML: pip install 'minidl[energy]' brings what asks NVIDIA's driver"
        ) from None
    try:
        nvml.nvmlInit()
        if not nvml.nvmlDeviceGetCount():
            raise NotMeasured("no GPU")
        bus = cuda.bus_id() if any(d.name == "cuda" for d in backend.devices()) else ""
        if bus:
            return nvml, nvml.nvmlDeviceGetHandleByPciBusId(bus)
        return nvml, nvml.nvmlDeviceGetHandleByIndex(0)
    except nvml.NVMLError as error:
        raise NotMeasured(f"no GPU ({error})") from error


class Rapl:
    """The CPUs' own energy counters, each package and its memory (Linux: powercap, intel-rapl).

    The same folders tell those of AMD's. NotMeasured where there are none, or where they are for
    root alone.
    """

    name = "cpu"

    def __init__(self, root: str | Path = POWERCAP):
        # a package holds its cores; "psys" is the whole board, packages included
        kept = ("package", "dram")
        zones = sorted(Path(root).glob("intel-rapl:*"))
        self.zones = [z for z in zones if _read(z / "name").startswith(kept)]
        if not self.zones:
            raise NotMeasured(f"no RAPL: there is no energy counter in {root}")
        self.ranges = {zone: int(_read(zone / "max_energy_range_uj")) for zone in self.zones}
        self.last = {zone: _microjoules(zone) for zone in self.zones}
        self.total = 0

    def joules(self) -> float:
        """Joules since this object was made, if it was asked before a counter ran over twice."""
        for zone in self.zones:
            now = _microjoules(zone)
            # a counter that has run over starts again from 0
            self.total += (
                now - self.last[zone] + (self.ranges[zone] if now < self.last[zone] else 0)
            )
            self.last[zone] = now
        return self.total / 1e6


def _read(file: Path) -> str:
    try:
        return file.read_text("ascii").strip()
    except PermissionError:
        raise NotMeasured(f"RAPL: {file} is not for this user to read") from None
    except (OSError, UnicodeDecodeError) as error:
        raise NotMeasured(f"RAPL: {file} cannot be read: {error}") from error


def _microjoules(zone: Path) -> int:
    text = _read(zone / "energy_uj")
    if not text.isdigit():
        raise NotMeasured(f"RAPL: {zone / 'energy_uj'} says {text!r}, which is no number")
    return int(text)


class Meter:
    """Joules by counter, from one reading to the next.

    counters: how to make each; those that cannot be made are in `missing`, with the reason.
    """

    def __init__(self, counters: Sequence[Callable[[], Counter]] = (Nvml, Rapl)):
        self.counters: list[Counter] = []
        self.missing: dict[str, str] = {}
        self.last: dict[str, float] = {}
        self.lock = threading.Lock()
        for make in counters:
            try:
                counter = make()
                self.last[counter.name] = counter.joules()
                self.counters.append(counter)
            except NotMeasured as why:
                self.missing[getattr(make, "name", "energy")] = str(why)

    def read(self) -> dict[str, float]:
        """Joules since the last reading by the counter's name; NaN where one failed to tell."""
        with self.lock:
            now = {counter.name: self._now(counter) for counter in self.counters}
            spent = {name: joules - self.last[name] for name, joules in now.items()}
            self.last = now
        return spent

    def look(self) -> None:
        """Read the counters, so that none of them runs over unseen."""
        with self.lock:
            for counter in self.counters:
                self._now(counter)

    def _now(self, counter: Counter) -> float:
        try:
            return counter.joules()
        except NotMeasured as why:
            self.missing[counter.name] = str(why)
            return math.nan

    def __str__(self) -> str:
        told = [f"{c.name}: measured" for c in self.counters if c.name not in self.missing]
        told += [f"{name}: not measured ({why})" for name, why in self.missing.items()]
        return "; ".join(told)


class Beat:
    """Calls a function every so many seconds, in a thread that ends with the program."""

    def __init__(self, call: Callable[[], None], seconds: float):
        self.call, self.seconds = call, seconds
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, name="minidl-energy", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.ended.wait(self.seconds):
            self.call()

    def end(self) -> None:
        """Let the last call be done, and call no more."""
        self.ended.set()
        self.thread.join()


class EnergyMonitor(Callback):
    """Notes in the history the joules of each epoch, validation included: gpu_joules, cpu_joules.

    With samples, how many there are in an epoch, also gpu_joules_per_sample and so on. What is not
    measured has no column; print(monitor) tells why. Counts from when it is made on: make it where
    fit is called.
    """

    def __init__(self, samples: int | None = None, meter: Meter | None = None):
        if samples is not None and samples < 1:
            raise ValueError(f"EnergyMonitor: samples is {samples}, but must be at least 1")
        self.samples, self.meter = samples, meter or Meter()
        self.beat = Beat(self.meter.look, READ_EVERY) if self.meter.counters else None

    def on_epoch_end(self, model: Module, history: History) -> None:
        """Note the joules of the epoch."""
        for name, joules in self.meter.read().items():
            row = {f"{name}_joules": joules}
            if self.samples:
                row[f"{name}_joules_per_sample"] = joules / self.samples
            history.add(row)

    def on_train_end(self, model: Module, history: History) -> None:
        """Leave the counters alone."""
        if self.beat is not None:
            self.beat.end()
            self.beat = None

    def __str__(self) -> str:
        return f"energy: {self.meter}"


class GpuStat(Callback):
    """Notes what the GPU did in each epoch, and tells it: utilisation, memory, watts.

    Columns gpu_percent (mean), gpu_megabytes (the most in use, by all programs) and gpu_watts
    (mean); NaN for what the GPU does not tell. Where there is no GPU it says so once, and notes
    nothing.
    """

    def __init__(self, gpu: Callable[[], Nvml] = Nvml, tell: Callable[[str], Any] = print):
        self.tell, self.seen = tell, list[tuple[float, ...]]()
        self.beat: Beat | None = None
        try:
            self.gpu = gpu()
        except NotMeasured as why:
            text = str(why)
            self.tell("gpustat: " + (text if text.startswith("no GPU") else f"no GPU ({text})"))
        else:
            self.beat = Beat(self.look, LOOK_EVERY)

    def look(self) -> None:
        """Take one sample."""
        questions = self.gpu.utilization, self.gpu.memory, self.gpu.watts
        self.seen.append(tuple(map(_number, questions)))

    def on_epoch_end(self, model: Module, history: History) -> None:
        """Note and tell what was seen since the last epoch."""
        if self.beat is None:
            return
        self.look()
        seen, self.seen = np.array(self.seen), []
        percent, most, watts = seen[:, 0].mean(), seen[:, 1].max() / 1e6, seen[:, 2].mean()
        history.add(
            {"gpu_percent": float(percent), "gpu_megabytes": float(most), "gpu_watts": float(watts)}
        )
        told = ("{:.0f} % busy", percent), ("{:,.0f} MB in use", most), ("{:.0f} W", watts)
        known = [form.format(value) for form, value in told if not math.isnan(value)]
        self.tell("gpu " + (", ".join(known) or "not measured"))

    def on_train_end(self, model: Module, history: History) -> None:
        """Look no more."""
        if self.beat is not None:
            self.beat.end()
            self.beat = None


def _number(question: Callable[[], float]) -> float:
    try:
        return question()
    except NotMeasured:
        return math.nan
