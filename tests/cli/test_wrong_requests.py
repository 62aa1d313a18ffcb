"""Every wrong request: exit status 2, one clear sentence, no traceback, nothing written."""

import re
import shutil
from pathlib import Path

import pytest

from tinylora.cli import main


def refused(argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command refuses the request with this sentence, and says no more."""
    status = main(argv)
    captured = capsys.readouterr()
    assert re.search(sentence, captured.err), captured.err
    assert status == 2
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["trian"], r"tinylora trian: trian is not a verb. Did you mean train\?"),
        (["train", "--learning-rat=1"], r"--learning-rat is not an option.*mean --learning-rate\?"),
        (["train", "--quantise", "nf4"], '--quantise is not an option of "tinylora train"'),
        (["eval", "--adaptor", "x"], r"--adaptor is not an option.* Did you mean --adapter\?"),
        (["inspect", "pocket", "--num-group=3"], r"Did you mean --num-groups\?"),
        (["train", "nowhere.yaml"], "The recipe nowhere.yaml does not exist"),
        (["train", "--u=0"], "u = 0, but it must be at least 1"),
        (["train", "--params=3", "--u=1"], "params = 3 together with u"),
        (["train", "--resume"], "--resume needs the folder of a run. Name it"),
        (["train", "--resume", "--output=nowhere"], "nowhere is not a run that can be resumed"),
        (["train", "--task=pockt", "--output=x"], r'"pockt" is not a task.*Did you mean pocket\?'),
        (["train", "--model=./nowhere"], r"The model folder ./nowhere does not exist"),
        (["train", "--model=./nowhere", "--dry-run"], r"The model folder ./nowhere does not exist"),
        (["eval", "--model=nobody/nothing"], "and the hub did not provide a model of that name"),
        (["eval", "--adapter=nowhere.safetensors"], "No adapter was found at nowhere.safetensors"),
        (
            ["eval", "--force"],
            "force = true loads an adapter onto another base, but no",
        ),
        (["eval", "--controls"], "no adapter was given. Name it with --adapter"),
        (["eval", "--problems", "x"], "eval_problems = x, but it must be a whole number"),
        (["eval", "--problems"], "--eval-problems/--problems needs a value"),
        (["eval", "--split", "dev"], "split = dev, but it must be 'train' or 'test'"),
        (["train", "a.yaml", "b.yaml"], "does not know what to do with b.yaml"),
        (["inspect"], r'"tinylora inspect" needs MODEL\|ADAPTER\. All options'),
        (["export", "x"], "needs --to lora.*sliders and --out DIR"),
        (["eval", "--problems=0"], "eval_problems = 0, but it must be at least 1"),
        (["eval", "--temperature=0"], "temperature = 0, but it must be above 0"),
        (["eval", "--json=no/such/folder.json"], "the folder no/such does not exist"),
        (["eval", "--json=/"], "json = / is a folder. Name a file in it"),
        (
            ["eval", "--adapter=a", "--compare", "b", "c"],
            "a, b, c are 3 adapters, but only two can be",
        ),
        (["eval", "--compare=a"], "No adapter was found at a"),
        (["export", "x", "--to=lora", "--out=."], r"\. is the current working folder"),
        (["inspect", "tl1:AAAA", "--num-groups=3"], "--num-groups is for a model, but tl1:AAAA"),
        (["inspect", "pocket", "--model=pocket"], "but pocket is a model itself. Leave --model"),
        (["inspect", "./nowhere"], "The model folder ./nowhere does not exist"),
        (["inspect", "runs/nowhere.safetensors"], "The adapter file runs/nowhere"),
    ],
)
def test_a_wrong_request_is_refused(
    argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(argv, sentence, capsys)


def test_an_unknown_key_names_recipe_and_nearest_spelling(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("learning_rat: 1\n", encoding="utf-8")
    sentence = r"recipe.yaml: learning_rat is not a setting. Did you mean learning_rate\?"
    refused(["train", str(recipe)], sentence, capsys)


@pytest.mark.parametrize("extra", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--targets=c_attn", "LlamaForCausalLM has no module named c_attn"),
        ("--num-groups=15", "num_groups = 15, but only 14 modules matched"),
        (
            "--rank=9",
            r"rank = 9, but model.layers.0.self_attn.k_proj of shape \(8, 16\) has only 8",
        ),
        ("--track=nothing", "track = nothing, but it must be 'tensorboard', 'wandb' or 'trackio'"),
        ("--method=ia3", 'method = "ia3" is not a method. Use tinylora, lora, '),
        ("--layers=1-2", "layers = 1-2, but the model's adapted blocks are 0 to 1"),
        ("--max-new-tokens=65", "max_new_tokens = 65 after a prompt of .*context ends at 64"),
    ],
)
def test_what_the_model_cannot_give_is_refused(
    option: str,
    sentence: str,
    extra: list[str],
    small: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    refused(["train", *small, f"--output={folder}", option, *extra], sentence, capsys)
    assert not folder.exists()


@pytest.mark.parametrize("extra", [[], ["--dry-run"]])
def test_a_folder_with_another_run_is_refused(
    extra: list[str], small: list[str], finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished_run / "config.yaml").read_bytes()
    argv = ["train", *small, f"--output={finished_run}", *extra]
    refused(argv, "contains another run, and its results would be overwritten", capsys)
    assert (finished_run / "config.yaml").read_bytes() == before


def test_a_folder_with_other_files_is_refused(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    argv = ["train", *small, f"--output={tmp_path}"]
    refused(argv, "exists and is not an empty folder", capsys)


def test_a_run_is_not_resumed_under_other_settings(
    small: list[str], finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", *small, "--resume", f"--output={finished_run}", "--learning-rate=0.5"]
    refused(
        argv, "learning_rate = 0.5, but the run in .* began with learning_rate = 0.0002", capsys
    )


def test_an_adapter_whose_base_is_not_there_asks_for_it(
    finished_run: Path, task_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "adapter.safetensors"
    shutil.copy(finished_run / "adapter.safetensors", file)
    argv = ["eval", f"--adapter={file}", f"--task={task_name}"]
    refused(argv, "names tiny as its base model. tiny is not a folder.*with --model", capsys)


@pytest.mark.parametrize("extra", [[], ["--dry-run"]])
def test_a_tracker_that_is_not_installed_is_refused(
    extra: list[str],
    small: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tinylora.run.prepare.find_spec", lambda name: None)
    argv = ["train", *small, "--track=wandb", f"--output={tmp_path / 'run'}", *extra]
    refused(
        argv, r"track = wandb, but wandb is not installed. Install it: pip install .*wandb", capsys
    )


@pytest.mark.parametrize("extra", [[], ["--dry-run"]])
def test_a_task_without_test_problems_is_refused(
    extra: list[str], small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "empty.py"
    path.write_text(
        "from tinylora import Problem, Task\n"
        "make = lambda: Task('empty', [Problem('what', 'red')], [], lambda *_: None)\n"
    )
    argv = ["train", *small, f"--task={path}:make", f"--output={tmp_path / 'run'}", *extra]
    refused(argv, "The task empty has no test problems", capsys)


def test_a_run_without_an_adapter_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("steps: 3\n")
    again = f'has not written an adapter yet.*"tinylora train --resume --output {tmp_path}"'
    refused(["inspect", str(tmp_path)], again, capsys)


def test_a_file_that_is_no_adapter_is_refused(
    task_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "adapter.safetensors").write_bytes(b"no adapter at all")
    argv = ["eval", f"--adapter={tmp_path}", f"--task={task_name}"]
    refused(argv, "cannot be read as safetensors", capsys)
