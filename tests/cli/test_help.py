"""Help is instant, because it imports no torch; the installed command behaves as `main` does."""

import resource
import subprocess
import sys

import pytest

from tinylora.cli import VERBS, main

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


def test_every_setting_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    from tinylora.settings import FIELDS

    assert main(["train", "--help"]) == 0
    printed = capsys.readouterr().out
    assert [n for n in FIELDS if f"--{n.replace('_', '-')} " not in printed] == []


def test_a_missing_value_is_a_wrong_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--u"]) == 2
    assert "Missing value for argument '--u'" in capsys.readouterr().err


def test_the_installed_command_exits_with_the_status() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tinylora", "train", "--u=0"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == (
        "tinylora train: u = 0, but it must be at least 1: "
        "how many numbers each group of modules trains.\n"
    )
