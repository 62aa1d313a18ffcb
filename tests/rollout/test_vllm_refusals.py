"""What vLLM in this process cannot serve, said before anything is loaded; vLLM is not needed."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tinylora.cli import main
from tinylora.errors import RequestError, TinyLoraError
from tinylora.rollout import vllm
from tinylora.rollout.vllm import check_vllm, completion, slot_rank
from tinylora.run.engines import check_engine
from tinylora.settings import TrainConfig


@pytest.fixture(params=[True, False], ids=["installed", "absent"])
def is_installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(vllm, "find_spec", lambda name: object() if request.param else None)
    return bool(request.param)


def test_the_extra_is_named_where_it_is_absent(is_installed: bool) -> None:
    if is_installed:
        check_vllm("pocket", "none", 2)
        return
    with pytest.raises(RequestError, match=r'not installed. .*pip install "vllm<'):
        check_vllm("pocket", "none", 2)


@pytest.mark.parametrize("extra", [[], ["--dry-run"]])
def test_the_command_says_so_in_one_line(
    extra: list[str],
    tiny_folder: Path,
    task_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(vllm, "find_spec", lambda name: None)
    given = [f"--model={tiny_folder}", f"--task={task_name}", f"--output={tmp_path / 'run'}"]
    assert main(["train", *given, "--rollout=vllm", *extra]) == 2
    said = capsys.readouterr().err
    assert said.startswith("tinylora train: rollout = vllm, but vLLM is not installed.")
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "quantize", "rank", "sentence"),
    [
        ("python:LlamaForCausalLM", "none", 2, "passed as an object in Python .LlamaForCausalLM."),
        ("pocket", "nf4", 2, "quantize = nf4, but vLLM .* lacks bitsandbytes layers"),
        ("pocket", "none", 300, "rank = 300, but vLLM serves LoRA of rank 256 at most"),
    ],
)
def test_what_vllm_cannot_serve(
    model: str, quantize: str, rank: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "find_spec", lambda name: object())
    with pytest.raises(RequestError, match=sentence):
        check_vllm(model, quantize, rank)


@pytest.mark.parametrize("rollout", ["vllm", "http://localhost:8000"])
def test_methods_that_are_no_lora_are_refused(
    rollout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "find_spec", lambda name: object())
    for method in ("tinylora", "lora"):
        check_engine(TrainConfig(method=method, rollout=rollout), "pocket")
    with pytest.raises(RequestError, match=f"rollout = {rollout} can only serve"):
        check_engine(TrainConfig(method="full", rollout=rollout), "pocket")


def test_several_trainers_are_sent_to_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "find_spec", lambda name: object())
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RequestError, match=r"in 2 processes.*Start servers"):
        check_vllm("pocket", "none", 2)


def test_slots_are_the_smallest_that_fit() -> None:
    assert [slot_rank(rank) for rank in (1, 2, 8, 9, 64, 256)] == [8, 8, 8, 16, 64, 256]


def test_a_completion_that_is_not_whole_is_an_error() -> None:
    logprobs = [{5: SimpleNamespace(logprob=-0.5)}, {6: SimpleNamespace(logprob=-1.5)}]
    answer = SimpleNamespace(finish_reason="stop", token_ids=(5, 6), logprobs=logprobs)
    assert completion(answer, {6}).truncated is False
    assert completion(answer, {7}).truncated is True
    assert completion(answer, {6}).logprobs == [-0.5, -1.5]
    answer.finish_reason = "abort"
    with pytest.raises(TinyLoraError, match='ended a completion with "abort"'):
        completion(answer, {6})


def test_the_engine_is_imported_when_it_starts() -> None:
    assert "vllm" not in sys.modules
