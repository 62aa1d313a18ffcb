"""Every algorithm by every method, through the command line: a whole run folder, or a sentence."""

import json
from itertools import product
from pathlib import Path

import pytest
import yaml

from helpers.documents import unexplained
from tinylora.cli import main
from tinylora.settings.algorithms import ALGORITHMS
from tinylora.settings.choices import METHODS

BY_ROWS = ("npg", "cma-es", "bayes", "random-search")
WITH_A_LAYER = ("tinylora", "lora-xs")  # whose v can differ from row to row
PEFT = {"adapter_config.json", "adapter_model.safetensors"}
NAMES = ["peft:randlora" if name == "peft:NAME" else name for name in METHODS]
FILES = {"lora": PEFT, "vera": PEFT, "peft:randlora": PEFT}
OF_EVERY_RUN = {
    *("base.json", "checkpoint", "config.yaml", "curve.png"),
    *("metrics.jsonl", "origin.json", "samples.jsonl", "summary.json"),
}
PAIRS = list(product(ALGORITHMS, NAMES))
REFUSED = [(a, m) for a, m in PAIRS if a in BY_ROWS and m not in WITH_A_LAYER]
ALLOWED = [pair for pair in PAIRS if pair not in REFUSED]


@pytest.fixture(scope="module")
def solved(task_name: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The task of these tests with solutions, for SFT."""
    source = Path(task_name.rsplit(":", 1)[0]).read_text(encoding="utf-8")
    path = tmp_path_factory.mktemp("tasks") / "solved.py"
    path.write_text(source.replace('?", b)', '?", b, solution=b)'), encoding="utf-8")
    return f"{path}:make"


def argv(algorithm: str, method: str, folder: Path, model: Path, task: str) -> list[str]:
    settings = {
        "algorithm": algorithm,
        "method": method,
        "model": model,
        "task": task,
        "output": folder,
        "device": "cpu",
        "steps": 2,
        "prompts-per-step": 2,
        "eval-problems": 2,
        "eval-samples": 1,
    }
    return ["train", *(f"--{name}={value}" for name, value in settings.items())]


@pytest.mark.parametrize(("algorithm", "method"), ALLOWED)
def test_a_run_leaves_a_whole_folder(
    algorithm: str, method: str, tiny_folder: Path, solved: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert main(argv(algorithm, method, folder, tiny_folder, solved)) == 0
    adapter = FILES.get(method, {"adapter.safetensors"})
    assert {path.name for path in folder.iterdir()} == OF_EVERY_RUN | adapter
    assert (folder / "checkpoint" / "state.pt").is_file()
    recorded = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert (recorded["algorithm"], recorded["method"]) == (algorithm, method)
    metrics = [json.loads(line) for line in lines(folder / "metrics.jsonl")]
    assert [line["step"] for line in metrics] == [1, 2]
    assert unexplained(metrics[-1]) == set()
    assert {json.loads(line)["step"] for line in lines(folder / "samples.jsonl")} == {1, 2}
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert (summary["algorithm"], summary["stopped"], summary["steps"]) == (algorithm, "steps", 2)
    assert summary["rollouts"] == sum(line["rollouts"] for line in metrics)
    assert (summary["rollouts"] == 0) == (algorithm == "sft")
    assert 0 < summary["degrees_of_freedom"] <= summary["num_trainable"]


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(("algorithm", "method"), REFUSED)
def test_what_cannot_be_is_one_sentence(
    algorithm: str,
    method: str,
    tiny_folder: Path,
    solved: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(argv(algorithm, method, tmp_path / "run", tiny_folder, solved)) == 2
    said = capsys.readouterr().err
    assert "in every row of a batch" in said
    assert "Use method = tinylora or lora-xs." in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
