"""Sweeps on a real local Ray: runs end, and a worker that dies is tried again."""

from pathlib import Path

import pytest
from rich.console import Console

from tinylora.errors import TinyLoraError
from tinylora.sweep import outcomes
from tinylora.sweep.grid import load_grid
from tinylora.sweep.sweep import sweep

pytestmark = pytest.mark.slow
ONCE = """
import os
from tinylora import load_task

def make():
    mark = {mark!r}
    if not os.path.exists(mark):
        open(mark, "w").close()
        os.kill(os.getpid(), 9)
    return load_task({task!r})
"""


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_worker_that_dies_is_tried_again(
    tiny_folder: Path, task_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    mark = str(tmp_path / "died")
    deadly = tmp_path / "deadly.py"
    deadly.write_text(ONCE.format(mark=mark, task=task_name), encoding="utf-8")
    path = tmp_path / "grid.yaml"
    path.write_text(
        f"settings: {{model: {tiny_folder}, steps: 1, device: cpu, prompts_per_step: 2, "
        "samples_per_prompt: 2, eval_problems: 4, eval_samples: 1}\n"
        f"points: [{{task: '{deadly}:make'}}, {{task: '{task_name}'}}, "
        f"{{task: '{task_name}', num_groups: 999}}]\n",
        encoding="utf-8",
    )
    grid = load_grid(path)
    try:
        with pytest.raises(TinyLoraError, match="1 of 3 runs failed"):
            sweep(grid, tmp_path / "sweep", "ray", 2, Console(quiet=True))
    finally:
        ray.shutdown()
    assert Path(mark).exists()
    states = [outcomes.state(tmp_path / "sweep" / run.folder_name) for run in grid.first_runs()]
    assert states == ["done", "done", "failed"]
