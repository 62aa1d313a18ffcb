"""`tinylora.train`, the Python way: a loaded model, a task of one's own, a reward function."""

import inspect
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from rich.console import Console
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import tinylora
from tinylora import AdapterConfig, Problem, RequestError, TrainConfig
from tinylora.cli.eval import run as cli_eval
from tinylora.run import training as run
from tinylora.run.prepare import prepare
from tinylora.run.report import draw_curve, smooth
from tinylora.settings import Adam


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
    seen: list[torch.Tensor] = []
    measure = run.Course.measure

    def noted(course: Any, engine: Any) -> Any:
        seen.append(engine.policy.adapter.v.detach().clone())
        return measure(course, engine)

    monkeypatch.setattr(run.Course, "measure", noted)
    config = settings(tmp_path / "run", model=str(tiny_folder), task=task_name, store="bf16")
    tinylora.train(config, console=quiet)
    base, final = seen
    assert not base.any()
    assert torch.equal(final, final.bfloat16().float())
    assert final.any()


def test_what_rounding_costs_is_said(
    tiny_folder: Path, task_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for store in ("bf16", "fp32"):
        config = settings(tmp_path / store, model=str(tiny_folder), task=task_name, store=store)
        tinylora.train(config)
        said = "Stored in bf16: rounding moved v by 0." in capsys.readouterr().out
        assert said == (store == "bf16")


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


def test_a_reward_function_gets_the_tokens_of_the_completions(
    tiny_folder: Path, task_name: str, tmp_path: Path, quiet: Console
) -> None:
    words = PreTrainedTokenizerFast.from_pretrained(tiny_folder)

    def tokens(completions: list[str], completion_ids: list[list[int]]) -> list[float]:
        assert completion_ids == [words(text)["input_ids"] for text in completions]
        return [float(len(ids)) for ids in completion_ids]

    config = settings(tmp_path / "run", model=str(tiny_folder), task=task_name, steps=1)
    assert tinylora.train(config, reward=tokens, console=quiet)["steps"] == 1


@pytest.mark.parametrize("is_training", [True, False])
def test_every_module_is_left_in_its_mode(
    is_training: bool, tiny_folder: Path, task_name: str, tmp_path: Path, quiet: Console
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder).train(is_training)
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    tinylora.train(settings(tmp_path / "run", steps=1), model=model, task=task_name, console=quiet)
    assert [module.training for module in model.modules()] == before


def test_a_task_given_as_an_object_is_recorded_as_one(
    tiny_folder: Path, task_name: str, tmp_path: Path, quiet: Console
) -> None:
    """So that no other task of the same name is taken for it; in Python the run goes on."""
    task = replace(tinylora.load_task(task_name), name="pocket")
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    config = settings(tmp_path / "run", steps=1)
    tinylora.train(config, model=model, task=task, console=quiet)
    with pytest.raises(RequestError, match="was given its task pocket as an object in Python"):
        cli_eval([f"--adapter={tmp_path / 'run'}"])
    longer = settings(tmp_path / "run", steps=2)
    assert tinylora.train(longer, model=model, task=task, resume=True, console=quiet)["steps"] == 2


def test_what_is_loaded_is_recorded(tiny_folder: Path, task_name: str, tmp_path: Path) -> None:
    """The precision and the rate are those of the model that trains, not of `config.model`."""
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    for given, rate in (({}, 2e-4), ({"learning_rate": 0.3}, 0.3)):
        config = prepare(settings(tmp_path, **given), model=model, task=task_name).config
        assert isinstance(config.learning, Adam)
        assert (config.dtype, config.learning.learning_rate) == ("fp32", rate)


def test_a_refused_model_leaves_no_folder(
    tiny_folder: Path, task_name: str, tmp_path: Path, quiet: Console
) -> None:
    broken = AutoModelForCausalLM.from_pretrained(tiny_folder)
    broken.lm_head.weight.data[1, 2] = float("nan")
    forgetful = AutoModelForCausalLM.from_pretrained(tiny_folder)
    forgetful.config.layer_types = ["linear_attention", "full_attention"]
    forgetful.forward = lambda input_ids: None
    for model, sentence in ((broken, "weight is NaN"), (forgetful, "keeps its past in a form")):
        with pytest.raises(RequestError, match=sentence):
            tinylora.train(settings(tmp_path / "run"), model=model, task=task_name, console=quiet)
    assert not (tmp_path / "run").exists()


def test_a_training_prompt_beyond_the_context_is_refused(
    tiny_folder: Path, task_name: str, tmp_path: Path
) -> None:
    task = tinylora.load_task(task_name)
    long = Problem("what " * 100, "red")
    for train in ([*task.train, long], Endless(long)):
        config = settings(tmp_path, model=str(tiny_folder), long_prompts="refuse")
        with pytest.raises(RequestError, match=r"prompt of 100 tokens.*Shorten the prompt, or use"):
            prepare(config, task=replace(task, train=train))


def test_prompts_beyond_the_context_are_left_out_and_counted(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """With the line of the first one; the test split as well. None left is refused."""
    rows = [
        {"prompt": f"what is {'one ' * n}{i}", "answer": "red"} for i in range(9) for n in (1, 2)
    ]
    rows[5]["prompt"] = rows[11]["prompt"] = "what " * 600
    (path := tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"model": str(tiny_folder), "task": str(path), "max_new_tokens": 8}
    prepared = prepare(settings(tmp_path, **given))
    assert len(prepared.task.train) + len(prepared.exam.problems) == 16
    (said,) = [note for note in prepared.task.notes if "context" in note]
    assert "problems have a prompt of more than 56 tokens (the first: " in said
    assert f"{path}, line 6)" in said
    assert "max_new_tokens = 8 passes the model's context of 64 tokens: they are left out" in said
    with pytest.raises(RequestError, match=r"context ends at 64 tokens"):
        prepare(settings(tmp_path, **{**given, "max_new_tokens": 64}))


class Endless(Sequence[Problem]):
    """The same problem, more often than anybody would read it."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.num_read = problem, 0

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: Any) -> Any:
        self.num_read += 1
        assert self.num_read <= 1_000
        return [self.problem] if isinstance(index, slice) else self.problem


def test_the_default_folder_is_the_tasks_name_without_what_a_path_would_read(
    tiny_folder: Path,
    task_name: str,
    tmp_path: Path,
    quiet: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinylora.run.folder.time.strftime", lambda form: "now")
    config = settings(tmp_path, model=str(tiny_folder), steps=1)
    config = config.model_copy(update={"output": None})
    task = replace(tinylora.load_task(task_name), name="../my task/1")
    assert tinylora.train(config, task=task, console=quiet)["output"] == "runs/my-task-1-seed0-now"
    with pytest.raises(
        RequestError, match="output = runs/my-task-1-seed0-now contains another run"
    ):
        tinylora.train(config, task=task, console=quiet)


def test_the_signature_is_written_out() -> None:
    called, does = inspect.signature(tinylora.train), inspect.signature(run.train)
    assert list(called.parameters) == list(does.parameters)
    assert list(called.parameters)[:3] == ["config", "model", "tokenizer"]
    assert list(called.parameters)[3:6] == ["task", "reward", "resume"]
    for name, parameter in called.parameters.items():
        assert parameter.default == does.parameters[name].default


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


def test_the_curve_of_sft_is_its_loss_beside_the_accuracies(tmp_path: Path) -> None:
    metrics, picture = tmp_path / "metrics.jsonl", tmp_path / "curve.png"
    lines: list[dict[str, float]] = [{"step": i, "loss": 3 / i} for i in range(1, 21)]
    lines[9]["validation_accuracy"] = 0.5
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {"base_accuracy": 0.2, "final_accuracy": 0.9, "num_trainable": 13, "model": "m"}
    draw_curve(metrics, summary, picture)
    pixels = imread(picture)
    assert pixels.shape == (600, 2100, 4)
    orange = (abs(pixels[..., :3] - [0.835, 0.369, 0.0]) < 0.02).all(axis=-1)
    assert orange[:, 1050:].any(axis=0).mean() > 0.7  # the final accuracy, in the second panel
    blue = (abs(pixels[..., :3] - [0.0, 0.447, 0.698]) < 0.02).all(axis=-1)
    assert blue[:, :1050].any(axis=0).mean() > 0.7  # the loss, in the first


def test_smoothing_is_the_mean_of_neighbours() -> None:
    assert smooth([0.0] * 10 + [9.0] + [0.0] * 10)[5:16] == [0.0] + [1.0] * 9 + [0.0]
    assert smooth([2.0]) == [2.0]


def test_under_a_control_the_true_reward_is_watched(
    tiny_folder: Path, task_name: str, tmp_path: Path, quiet: Console
) -> None:
    """Both runs sample the same completions in the first step: only what rewards them differs."""
    lines = {}
    for control in (None, "random"):
        output = tmp_path / str(control)
        options = {"model": str(tiny_folder), "task": task_name, "reward_control": control}
        summary = tinylora.train(settings(output, steps=1, **options), console=quiet)
        assert summary["reward_control"] == control
        (lines[control],) = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    assert lines["random"]["true_reward"] == lines[None]["reward"]
    assert lines["random"]["reward"] != lines[None]["reward"]
    assert "true_reward" not in lines[None]
