"""`tinylora.train`, the Python way: a loaded model, a task of one's own, a reward function."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from rich.console import Console
from transformers import AutoModelForCausalLM

import tinylora
from tinylora import AdapterConfig, TrainConfig
from tinylora.train.report import draw_curve, smooth


def settings(output: Path, **changes: Any) -> TrainConfig:
    """A run of a second."""
    small: dict[str, Any] = {"steps": 2, "prompts_per_step": 4, "samples_per_prompt": 4}
    return TrainConfig(output=str(output), eval_samples=2, device="cpu", **{**small, **changes})


@pytest.fixture
def quiet() -> Console:
    return Console(quiet=True)


def test_a_loaded_model_is_trained_and_left_as_it_was(
    tiny_folder: Path, task_name: str, tmp_path: Path, quiet: Console
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = settings(tmp_path / "run", adapter=AdapterConfig(u=2, num_groups=3))
    summary = tinylora.train(config, model=model, task=task_name, console=quiet)
    assert summary["num_trainable"] == 6
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    adapter = tinylora.load(model, summary["output"])
    assert adapter.v.shape == (3, 2)
    adapter.detach()


def test_the_final_accuracy_is_that_of_the_file(
    tiny_folder: Path,
    task_name: str,
    tmp_path: Path,
    quiet: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever lies in the file after training is what is measured: here, other numbers."""
    from tinylora.train import run

    seen: list[torch.Tensor] = []
    measure = run._measure

    def noted(job: Any, adapter: Any) -> Any:
        seen.append(adapter.v.detach().clone())
        return measure(job, adapter)

    monkeypatch.setattr(run, "_measure", noted)
    config = settings(tmp_path / "run", model=str(tiny_folder), task=task_name, store="bf16")
    tinylora.train(config, console=quiet)
    base, final = seen
    assert not base.any()
    assert torch.equal(final, final.bfloat16().float())
    assert final.any()


def test_a_reward_function_replaces_the_tasks_grader(
    tiny_folder: Path, task_name: str, tmp_path: Path, quiet: Console
) -> None:
    def always_right(completions: list[str], **columns: Any) -> list[float]:
        assert len(columns["prompts"]) == len(columns["answer"]) == len(completions)
        return [1.0] * len(completions)

    config = settings(tmp_path / "run", model=str(tiny_folder), task=task_name)
    summary = tinylora.train(config, reward=always_right, console=quiet)
    assert summary["base_accuracy"] == summary["final_accuracy"] == 1.0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["zero_variance_share"] == 1.0


def test_the_curve_shows_both_accuracies(tmp_path: Path) -> None:
    metrics, picture = tmp_path / "metrics.jsonl", tmp_path / "curve.png"
    lines = [{"step": i, "reward": i / 40, "accuracy": i / 40} for i in range(1, 21)]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {"base_accuracy": 0.2, "final_accuracy": 0.9, "num_trainable": 13, "model": "m"}
    draw_curve(metrics, summary, picture)
    pixels = imread(picture)
    assert pixels.shape == (600, 1050, 4)
    orange = (abs(pixels[..., :3] - [0.835, 0.369, 0.0]) < 0.02).all(axis=-1)
    assert orange.any(axis=0).mean() > 0.7  # the final accuracy runs through the whole picture


def test_smoothing_is_the_mean_of_neighbours() -> None:
    assert smooth([0.0] * 10 + [9.0] + [0.0] * 10)[5:16] == [0.0] + [1.0] * 9 + [0.0]
    assert smooth([2.0]) == [2.0]
