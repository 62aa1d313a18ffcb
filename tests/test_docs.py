"""The examples of docs/tasks.md work as they stand."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from tinylora.cli import main

PAGE = (Path(__file__).parent.parent / "docs" / "tasks.md").read_text(encoding="utf-8")
SMALL = ["--eval-problems=4", "--prompts-per-step=2", "--samples-per-prompt=2", "--device=cpu"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (rows,), (file, _) = blocks("jsonl"), blocks("python")
    Path("pens.jsonl").write_text(rows, encoding="utf-8")
    Path("my_task.py").write_text(file, encoding="utf-8")
    commands = blocks("sh")
    assert len(commands) == 2
    for number, command in enumerate(commands):
        argv = shlex.split(command)
        assert argv[:2] == ["tinylora", "train"]
        assert main([*argv[1:], *SMALL, f"--output=run{number}"]) == 0
        assert main(["check-rewards", *argv[3:4], *argv[4:6][: 2 if number == 0 else 0]]) == 0


def test_the_example_in_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _, function = blocks("python")
    Path("example.py").write_text(function, encoding="utf-8")
    assert runpy.run_path("example.py")["summary"]["steps"] == 2
    assert capsys.readouterr().out.splitlines()[-1] == "13"
