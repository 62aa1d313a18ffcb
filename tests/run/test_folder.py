"""Run folders: damaged ones, moved ones, ones that two processes want, and what resume notices."""

import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import tinylora
from tinylora import RequestError, TrainConfig
from tinylora.algorithms.log import whole_lines
from tinylora.cli import main
from tinylora.errors import TinyLoraError
from tinylora.run.folder import RunFolder, recordable
from tinylora.run.origin import versions

ROWS = "".join(
    f'{{"prompt": "what is {a} {b} ?", "answer": "{b}"}}\n'
    for a in ("one", "two", "three", "red")
    for b in ("one", "two", "blue")
)
QUIET = Console(quiet=True)


def config_in(folder: Path, model: Path, **changes: Any) -> TrainConfig:
    """A run of a second on rows of its own, by paths relative to `folder`."""
    settings = {"model": str(model), "task": "rows.jsonl", "output": "run", "device": "cpu"}
    small = {"steps": 2, "prompts_per_step": 2, "samples_per_prompt": 4, "max_new_tokens": 4}
    (folder / "rows.jsonl").touch()
    return TrainConfig(**{**settings, **small, "eval_samples": 1, "checkpoint_every": 1, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A folder with a model, rows and a run of two steps."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(tiny_folder, folder / "tiny")
    (folder / "rows.jsonl").write_text(ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tinylora.train(config_in(folder, Path("tiny")), console=QUIET)
    return folder


@pytest.fixture
def place(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to damage; the recorded paths are still those of the first."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def resume(folder: Path, **changes: Any) -> dict[str, Any]:
    changes = {"steps": 3, **changes}
    return tinylora.train(config_in(folder, Path("tiny"), **changes), resume=True, console=QUIET)


def as_if_begun_here(folder: Path, finished: Path) -> None:
    config = folder / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(finished), str(folder)))


def test_a_run_resumes_from_another_folder(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings name model and rows by whole paths."""
    shutil.copytree(finished / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    status = main(["train", "--resume", "--output=run", "--steps=3"])
    assert status == 0
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3
    assert main(["eval", "--adapter=run", "--samples=1"]) == 0


def test_paths_are_written_out_and_names_are_not(place: Path) -> None:
    (place / "pocket").mkdir()
    (place / "my.py").touch()
    settings = {"model": "tiny", "task": "my.py:make", "data": None, "steps": 3}
    assert recordable(settings) == {
        "model": str(place / "tiny"), "task": f"{place / 'my.py'}:make", "data": None, "steps": 3,
    }  # fmt: skip
    names = {"model": "pocket", "task": "gsm8k", "data": "nowhere"}
    assert recordable(names) == names
    assert recordable({"model": "org/name"}) == {"model": "org/name"}


@pytest.mark.parametrize("damage", [b"\0" * 300, b"", b'{"greedy": {}', b'["x"]', b"\xff\xfe"])
def test_records_that_a_power_cut_damaged_are_made_anew(
    place: Path, finished: Path, damage: bytes
) -> None:
    as_if_begun_here(place, finished)
    whole = (place / "run" / "base.json").read_bytes()
    (place / "run" / "base.json").write_bytes(damage)
    (place / "run" / "origin.json").write_bytes(damage)
    with (place / "run" / "metrics.jsonl").open("ab") as metrics:
        metrics.write(damage + b"\n" + damage)
    summary = resume(place)
    assert [line["step"] for _, line in whole_lines(place / "run" / "metrics.jsonl")] == [1, 2, 3]
    assert summary["steps"] == 3
    assert (place / "run" / "base.json").read_bytes() == whole


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (b"", "cannot be read"),
        (b"\0" * 500, "cannot be read"),
        (b"else entirely", "cannot be read"),
        ([1, 2], "lacks step"),
        ({"step": 1, "policy": {}}, "lacks seed"),
        ({"step": -1, "seed": 0, "policy": {}}, "step = -1"),
        ({"step": 1, "seed": 0, "policy": 3}, "lacks policy"),
    ],
)
def test_a_damaged_checkpoint_is_one_sentence(
    place: Path, finished: Path, damage: Any, cause: str
) -> None:
    as_if_begun_here(place, finished)
    path = place / "run" / "checkpoint" / "state.pt"
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        torch.save(damage, path)
    with pytest.raises(TinyLoraError, match=rf"state.pt cannot be read.*{cause}|{cause}.*Delete"):
        resume(place)


def test_other_rows_are_noticed(place: Path, finished: Path) -> None:
    as_if_begun_here(place, finished)
    (place / "rows.jsonl").write_text(ROWS.replace("red", "three"))
    with pytest.raises(RequestError, match=r"rows.jsonl, but its problems are not those that the"):
        resume(place)


def test_other_weights_are_noticed(place: Path, finished: Path, tmp_path: Path) -> None:
    as_if_begun_here(place, finished)
    base = tinylora.models.load_model("tiny", device="cpu")
    with torch.no_grad():
        base.model.model.layers[0].mlp.up_proj.weight.mul_(1.01)
    base.model.save_pretrained(place / "tiny")
    with pytest.raises(RequestError, match=r"its weights are not those that .*linear layers dif"):
        resume(place)


def test_other_versions_are_said(
    place: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_if_begun_here(place, finished)
    older = {**versions(), "torch": "2.0.0"}
    origin = place / "run" / "origin.json"
    origin.write_text(origin.read_text().replace(versions()["torch"], older["torch"]))
    console = Console(width=200, file=(said := io.StringIO()))
    config = config_in(place, Path("tiny"), steps=3)
    tinylora.train(config, resume=True, console=console)
    assert f"The run began with torch 2.0.0 (now {versions()['torch']})" in said.getvalue()


def test_two_processes_in_one_folder_are_noticed(tmp_path: Path) -> None:
    """Also when the first one was killed, the second may have the folder."""
    code = (
        "import sys, pathlib, tinylora.run.folder as f\n"
        "with f.RunFolder(pathlib.Path(sys.argv[1])).locked():\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        folder = RunFolder(tmp_path / "run")
        with pytest.raises(RequestError, match=rf"in use: process {other.pid} on .* trains into"):
            folder.locked().__enter__()
        other.kill()
    with folder.locked():
        assert folder.lock.is_file()
    assert not folder.lock.exists()


GRADER = """
from tinylora import Problem, Task
def make():
    rows = [Problem(f"what is {w} ?", w) for w in ("one", "two", "red", "blue")]
    return Task("t", rows[:2], rows[2:], grade, 4)
calls = []
def grade(gold, completion):
    calls.append(completion)
    if len(calls) > 3:
        raise ValueError("no such table")
    return 1.0
"""


def test_a_failed_start_leaves_the_folder_free(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A grader that fails on the base model's answers; then the same command, mended."""
    (tmp_path / "task.py").write_text(GRADER)
    argv = [
        "train", f"--model={tiny_folder}", f"--task={tmp_path / 'task.py'}:make", "--device=cpu",
        "--steps=1", "--prompts-per-step=2", "--samples-per-prompt=2", f"--output={tmp_path}/run",
    ]  # fmt: skip
    assert main(argv) in (1, 2)
    assert "no such table" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    (tmp_path / "task.py").write_text(GRADER.replace("> 3", "> 999"))
    assert main(argv) == 0
