"""The sanitizer: what it finds in kernels that say what is wrong with them, and what it counts."""

import importlib

import pytest
from sanitized import KERNELS, Labelled

from minidl.kernels import sanitize
from minidl.kernels.cuda.emulator import schedule

pytestmark = pytest.mark.emulator
for theme in ("races", "warps", "blocks", "memory", "barriers"):
    importlib.import_module(f"sanitized.{theme}")


@pytest.mark.parametrize("order", ["forward", "reverse", "shuffled"])
@pytest.mark.parametrize("labelled", KERNELS, ids=lambda k: k.name)
def test_what_is_found(labelled: Labelled, order: str):
    with schedule(order):
        report = sanitize(
            labelled.kernel, labelled.grid, labelled.block, *labelled.args(), **labelled.options
        )
    labels = labelled.labels()
    if not labels:
        assert report, report
        return
    assert report.findings, "nothing found"
    kinds = {(kind, name) for kind, array, _ in labels for name in array.split("|")}
    lines = {line for _, _, line in labels}
    for found in report.findings:
        assert (found.kind, found.array) in kinds, report
        at = {place.line for place in found.places}
        assert found.kind == "launch" or at & lines, report
