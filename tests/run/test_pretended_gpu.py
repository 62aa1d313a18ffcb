"""On a device that refuses mixing and counts waits (`helpers/pretended_gpu.py`).

What torch does on a GPU is not shown by this: that the project's own code would run there, is.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]


def on_gpu(*arguments: str) -> dict[str, Any]:
    script = TESTS / "helpers" / "run_on_pretended_gpu.py"
    path = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_adapter_adds_two_kernels_a_layer_and_the_host_waits_twice_a_token() -> None:
    found = on_gpu("token")
    assert found["kernels"] <= 2
    assert found["waits"] <= 2


RUNS = [
    ("algorithm=npg",),
    ("algorithm=grpo", "kl_coef=0.1", "num_iterations=2", "dtype=bf16"),
    ("algorithm=sft",),
    ("algorithm=cma-es", "dtype=bf16"),
]


@pytest.mark.slow
@pytest.mark.parametrize("settings", RUNS, ids=" ".join)
def test_a_run_mixes_no_devices(settings: tuple[str, ...], tmp_path: Path) -> None:
    assert on_gpu("run", str(tmp_path / "run"), *settings)["steps"] == 2
