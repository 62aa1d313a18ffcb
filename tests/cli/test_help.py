"""Help is instant, because it imports no torch; the installed command behaves as `main` does."""

import os
import resource
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest

import tinylora
from tinylora.cli import VERBS, file_of, main
from tinylora.cli.options import Verb

NO_TORCH = (
    "import sys; from tinylora.cli import main; status = main(sys.argv[1:]); "
    "sys.exit(status or ('torch' in sys.modules) or ('transformers' in sys.modules))"
)


def seconds_of(argv: list[str]) -> float:
    """Seconds that a call keeps a processor: what it takes on a machine that does nothing else."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(("argv", "limit_s"), [(["--help"], 0.3), (["train", "--help"], 1.0)])
def test_help_is_instant(argv: list[str], limit_s: float) -> None:
    command = [sys.executable, "-m", "tinylora", *argv]
    assert min(seconds_of(command) for _ in range(3)) < limit_s


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_imports_no_torch(verb: str | None) -> None:
    argv = [sys.executable, "-c", NO_TORCH, *([verb] if verb else []), "--help"]
    subprocess.run(argv, check=True, capture_output=True)


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert [verb for verb in VERBS if f"tinylora {verb} " not in printed] == []


def test_nothing_asked_is_a_wrong_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: tinylora VERB" in capsys.readouterr().out


def verb_of(name: str) -> Verb:
    verb: Verb = import_module(f"tinylora.cli.{file_of(name)}").VERB
    assert verb.name == name
    return verb


@pytest.mark.parametrize("name", VERBS)
def test_help_says_every_default_once_and_ends_with_examples(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is no value, the description says what happens then: "(none: ...)"."""
    verb = verb_of(name)
    assert main([name, "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for wrong in ("undefined", "None", "default: )", "default: none)", "none) (none"):
        assert wrong not in printed.replace("int8: LLM.int8; v stays fp32; default: none)", "")
    options = verb.fields.items()
    texts = {option: verb.help_of(option) for option, field in options if not field.is_required()}
    is_told = {
        option: verb.fields[option].default is False or "default: " in text or "none: " in text
        for option, text in texts.items()
    }
    assert [option for option, told in is_told.items() if not told] == []
    assert f"examples: tinylora {name}" in printed
    assert f"usage: tinylora {name}" in printed


@pytest.mark.parametrize("words", [["--help"], *([verb, "--help"] for verb in VERBS)])
def test_help_into_a_closed_pipe_ends_quietly(words: list[str]) -> None:
    """As in `tinylora train --help | head -1`: no traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "tinylora", *words], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert done.returncode in (0, 141)  # argparse itself is silent about a pipe that is closed
    assert done.stderr == ""


def test_a_table_into_a_closed_pipe_ends_quietly() -> None:
    """It is rich that meets the closed pipe there."""
    reader, writer = os.pipe()
    os.close(reader)
    argv = [sys.executable, "-m", "tinylora", "inspect", "pocket", "--spectrum=no"]
    done = subprocess.run(argv, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_output_into_a_pipe_comes_line_by_line() -> None:
    code = (
        "import sys, tinylora.cli as cli; "
        "cli.main = lambda argv: print(sys.stdout.line_buffering) or 0; cli.run()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True\n"


def test_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    lines = capsys.readouterr().out.splitlines()
    packages = ("tinylora", "torch", "transformers")
    assert lines[:3] == [f"{package} {version(package)}" for package in packages]
    assert lines[3].startswith(("device cpu", "device cuda"))
    assert tinylora.__version__ == version("tinylora")


def test_every_setting_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    from tinylora.settings import FIELDS

    assert main(["train", "--help"]) == 0
    printed = capsys.readouterr().out
    assert [n for n in FIELDS if f"--{n.replace('_', '-')} " not in printed] == []


def test_a_missing_value_is_a_wrong_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--u"]) == 2
    assert "tinylora train: --u needs a value. All options: " in capsys.readouterr().err


def test_the_installed_command_exits_with_the_status() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tinylora", "train", "--u=0"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == (
        "tinylora train: u = 0, but it must be at least 1: "
        "how many parameters each group of modules trains.\n"
    )
