"""examples/pruning.py runs, in its quick form, and what it says is so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import minidl
from minidl import prune

ROOT = Path(__file__).parent.parent


def test_it_prunes_digits_in_seconds(tmp_path):
    run = subprocess.run(
        [
            sys.executable, ROOT / "examples" / "pruning.py", "--quick", "--out", tmp_path,
            "--sparsity", "0.5", "0.9", "0.98",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "MINIDL_QUIET": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = {
        row["sparsity"]: row for row in json.loads((tmp_path / "result.json").read_text())["rows"]
    }
    assert rows[0.0]["at once"] > 0.85
    assert rows[0.9]["gradually"] > 0.85 > rows[0.98]["at once"]
    for sparsity in (0.5, 0.9):
        assert rows[sparsity]["bytes"] < 1.35 * (1 - sparsity) * rows[0.0]["dense_bytes"]
    assert f"{rows[0.9]['gradually']:.2%}" in run.stdout
    assert (tmp_path / "pruning.png").stat().st_size > 1000
    assert abs(prune.sparsity(minidl.load(tmp_path / "sparse-90.safetensors")) - 0.9) < 1e-4
