"""A stand-in for pynvml: GPUs whose counters a test sets."""

from types import ModuleType, SimpleNamespace


class NVMLError(Exception):
    """What the library raises."""


def fake(gpus=1, driver=True, old=False, **readings):
    """A module with the functions of pynvml that minidl calls.

    readings: energy (millijoules), power (milliwatts), busy (percent), used (bytes), a number or a
    function; asked: which GPU was asked for. old: a GPU that does not count energy.
    """
    nvml = ModuleType("pynvml")

    def reading(name, wrap=lambda value: value):
        def ask(handle):
            if name not in readings or (old and name == "energy"):
                raise NVMLError("Not Supported")
            value = readings[name]
            return wrap(value() if callable(value) else value)

        return ask

    def start():
        if not driver:
            raise NVMLError("NVML Shared Library Not Found")

    def handle(which):
        nvml.asked = which
        return f"gpu {which}"

    nvml.NVMLError, nvml.nvmlInit, nvml.nvmlDeviceGetCount = NVMLError, start, lambda: gpus
    nvml.nvmlDeviceGetHandleByIndex = nvml.nvmlDeviceGetHandleByPciBusId = handle
    nvml.nvmlDeviceGetTotalEnergyConsumption = reading("energy")
    nvml.nvmlDeviceGetPowerUsage = reading("power")
    nvml.nvmlDeviceGetUtilizationRates = reading("busy", lambda n: SimpleNamespace(gpu=n))
    nvml.nvmlDeviceGetMemoryInfo = reading("used", lambda n: SimpleNamespace(used=n))
    return nvml
