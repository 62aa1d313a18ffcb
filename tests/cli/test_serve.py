"""`tinylora serve`: the command that it becomes."""

import itertools
import json
import re
from pathlib import Path

import pytest

from tinylora import vllm_plugin
from tinylora.cli import main
from tinylora.cli.serve import address_of
from tinylora.pocket import model_folder


@pytest.fixture
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_plugin, "vllm_version", lambda: "0.32.0")


def command(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    assert main(["serve", *argv, "--dry-run"]) == 0
    return capsys.readouterr().out.split()


@pytest.mark.usefixtures("version")
def test_vllm_is_given_our_settings_and_its_own_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "names.tsv"
    table.write_text("# nobody yet\n", encoding="utf-8")
    ours = ["--adapters", str(table), "--slots", "50", "--texts", "false", "--core-rank=4"]
    theirs = ["--port", "9000", "--dtype=float32", "--tensor-parallel-size", "2"]
    words = command(capsys, "pocket", *theirs, *ours)
    assert words[-len(theirs) :] == theirs
    after = dict(itertools.pairwise(words))
    assert after["--model"] == str(model_folder())
    assert after["--served-model-name"] == "pocket"
    assert (after["--max-loras"], after["--max-cpu-loras"]) == ("50", "50")
    start = words.index("--additional-config") + 1
    given = json.loads(" ".join(words[start : words.index("--host")]))
    assert given == {
        "tinylora": {"native": True, "adapters": str(table), "texts": False, "core_rank": 4}
    }


@pytest.mark.usefixtures("version")
def test_what_the_user_says_to_vllm_stands(capsys: pytest.CaptureFixture[str]) -> None:
    words = command(capsys, "pocket", "--host=0.0.0.0", "--served-model-name", "mine")
    assert words.count("--served-model-name") == 1
    assert words[-1] == "mine"
    assert "--host" not in words
    assert "127.0.0.1" in command(capsys, "pocket")


def test_where_the_server_will_be() -> None:
    assert address_of([]) == "http://127.0.0.1:8000/v1"
    assert address_of(["--port=81", "--host", "example.org"]) == "http://example.org:81/v1"


@pytest.mark.parametrize(
    ("argv", "found", "sentence"),
    [
        ([], "0.32.0", "needs MODEL"),
        (["pocket", "--max-loras", "4"], "0.32.0", "--max-loras is set by .*Use --slots"),
        (["pocket", "--adapters", "absent"], "0.32.0", "adapters = absent does not exist"),
        (["pocket", "--slots", "0"], "0.32.0", "slots = 0, but it must be at least 1"),
        (["pocket"], "0.40.0", "vLLM 0.40.0 is not a version"),
        (["pocket"], None, "vLLM, which serves, is not installed"),
    ],
)
def test_wrong_requests_are_refused(
    argv: list[str],
    found: str | None,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(vllm_plugin, "vllm_version", lambda: found)
    assert main(["serve", *argv]) == 2
    said = capsys.readouterr().err
    assert re.search(sentence, said), said
    assert said.count("\n") == 1
