"""What the project says of itself, in one voice: versions, extras, and what has been tried."""

import ast
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tinylora import errors, plotting
from tinylora.cli import main
from tinylora.tasks import data

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAMES = {"yaml": "pyyaml"}  # import -> distribution, where they differ
OF_OTHERS = {"sympy", "tokenizers", "huggingface_hub", "latex2sympy2_extended", "jinja2"}
"""Packages that a core dependency itself depends on."""


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[><=~ ]", line)[0].lower() for line in requirements}


def test_one_version() -> None:
    version = PROJECT["version"]
    assert f"## [{version}]" in text("CHANGELOG.md")
    assert yaml.safe_load(text("CITATION.cff"))["version"] == version


def test_the_workflow_runs_the_pythons_that_are_claimed() -> None:
    claimed = [c.split(" :: ")[-1] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    workflow = yaml.safe_load(text(".github/workflows/checks.yml"))
    assert workflow["jobs"]["checks"]["strategy"]["matrix"]["python"] == claimed
    assert PROJECT["requires-python"] == f">={claimed[0]}"


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda p: p.name)
def test_the_forge_s_files_can_be_read(path: Path) -> None:
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["name"]


def test_every_extra_is_pinned() -> None:
    """Of extras that are installed for the tests and the site."""
    pinned = names_of([line for line in text("constraints.txt").splitlines() if "==" in line])
    pinned = {name.replace("_", "-") for name in pinned}
    extras = PROJECT["optional-dependencies"]
    wanted = names_of([*extras["dev"], *extras["docs"], *extras["data"], *extras["figures"]])
    assert {name.replace("_", "-") for name in wanted} - pinned - {"tinylora"} == set()


def imported(tree: ast.AST) -> set[str]:
    """Top-level names of the packages that a file imports, at its top or in functions."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_a_package_beyond_the_core_is_imported_beside_the_sentence_that_installs_it() -> None:
    """Or in a file that is imported only after one that has it."""
    core = names_of(PROJECT["dependencies"]) | OF_OTHERS | {"tinylora"}
    known = {name.replace("_", "-") for name in core | set(sys.stdlib_module_names)}
    behind = {  # file or folder -> the file that has checked
        "sweep/": "cli/figures.py",
        "play/": "cli/play.py",
        "vllm_plugin/": "cli/serve.py",  # or vLLM itself, which imports it
        "tasks/gym_referee.py": "tasks/gym.py",
        "adapter/quantized.py": "models.py",  # which loads such layers
    }
    faults = []
    source = ROOT / "src" / "tinylora"
    for path in sorted(source.rglob("*.py")):
        name = path.relative_to(source).as_posix()
        code = path.read_text(encoding="utf-8")
        found = {NAMES.get(package, package) for package in imported(ast.parse(code))}
        beyond = {package.replace("_", "-") for package in found} - known
        place = next((file for start, file in behind.items() if name.startswith(start)), name)
        checks = (source / place).read_text(encoding="utf-8") if beyond else ""
        if beyond and not re.search(r"install_hint|check_can_draw|missing_tracker", checks):
            faults.append((name, sorted(beyond)))
    assert faults == []


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch):
    """As if a package were not installed."""

    def hide(*packages: str) -> None:
        for package in packages:
            loaded = [name for name in sys.modules if name.split(".")[0] == package]
            for name in [package, *loaded]:
                monkeypatch.setitem(sys.modules, name, None)

    return hide


def test_figures_without_matplotlib_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plotting, "find_spec", lambda name: None)
    assert main(["figures", "runs/a"]) == 2
    said = capsys.readouterr().err
    assert said.startswith('tinylora figures: "tinylora figures" needs matplotlib, which is not')
    assert errors.install_hint("figures") in said


def test_a_run_without_matplotlib_has_everything_but_the_picture(
    tmp_path: Path, tiny_folder: Path, task_name: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(plotting, "find_spec", lambda name: None)
    run = tmp_path / "run"
    options = ["--steps=1", "--prompts-per-step=2", "--eval-problems=2", "--eval-samples=1"]
    argv = [f"--model={tiny_folder}", f"--task={task_name}", f"--output={run}", *options]
    assert main(["train", *argv, "--params=1"]) == 0
    said = capsys.readouterr().out
    assert "curve.png needs matplotlib, which is not installed." in said
    assert "(with summary.json)" in said
    assert not (run / "curve.png").exists()
    assert json.loads((run / "summary.json").read_text())["steps"] == 1


def test_the_hub_without_datasets_is_one_sentence(without, capsys) -> None:
    without("datasets")
    assert main(["check-rewards", "gsm8k"]) == 2
    said = capsys.readouterr().err
    assert "(openai/gsm8k), which needs the package datasets, and that is not installed." in said


def test_parquet_without_pyarrow_is_one_sentence(without, tmp_path: Path) -> None:
    without("pyarrow")
    file = tmp_path / "rows.parquet"
    file.write_bytes(b"PAR1")
    with pytest.raises(errors.RequestError, match="needs pyarrow, and that is not installed"):
        list(data._parquet(file))
