"""The loss of a text before and after: Transformers' own loss, and what a request may be."""

from pathlib import Path

import pytest
import torch

import tinylora
from helpers.tiny import values_like
from tinylora import AdapterConfig, RequestError
from tinylora.cli import main
from tinylora.evaluate import side_effects as module
from tinylora.evaluate.side_effects import SHIPPED, paragraphs, side_effects, tokens_of
from tinylora.models import load_model
from tinylora.settings.evaluate import EvalConfig

TEXT = "one two three red\nblue is\n\n\nwhat is blue ?\n \nred\n"  # the last has a single token


def test_losses_are_those_of_transformers(tiny_folder: Path, tmp_path: Path) -> None:
    base = load_model(str(tiny_folder), "fp32", "cpu")
    file = tmp_path / "text.txt"
    file.write_text(TEXT, encoding="utf-8")
    texts = tokens_of(base, paragraphs(str(file)))
    assert [len(ids) for ids in texts] == [6, 4]
    adapter = tinylora.attach(base.model, AdapterConfig(u=2, num_groups=7))
    policy = adapter
    assert side_effects(base, policy, str(file))["difference"] == {
        "value": 0.0, "low": 0.0, "high": 0.0,
    }  # fmt: skip
    adapter.set_values(values_like(adapter.v, size=3.0))
    held = side_effects(base, policy, str(file))
    assert (held["num_paragraphs"], held["num_tokens"]) == (2, 8)
    assert held["loss_after"] == pytest.approx(theirs(base.model, texts), rel=1e-5)
    with adapter.disabled():
        assert held["loss_before"] == pytest.approx(theirs(base.model, texts), rel=1e-5)
    difference = held["loss_after"] - held["loss_before"]
    assert abs(difference) > 1e-2
    assert held["difference"]["value"] == pytest.approx(difference, rel=1e-5)


@torch.no_grad()
def theirs(model: torch.nn.Module, texts: list[list[int]]) -> float:
    """The mean loss of all tokens but the first of each text."""
    losses = [(model(ids := torch.tensor([row]), labels=ids).loss, len(row) - 1) for row in texts]
    return float(sum(loss * count for loss, count in losses) / sum(c for _, c in losses))


def test_a_long_paragraph_is_read_in_parts(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_model(str(tiny_folder), "fp32", "cpu")
    monkeypatch.setattr(module, "MOST_TOKENS", 3)
    assert [len(ids) for ids in tokens_of(base, ["one two three red blue"])] == [3, 2]


def test_the_text_that_ships_has_paragraphs_of_its_own() -> None:
    parts = paragraphs(None)
    assert len(parts) == len({*parts}) == 26
    assert all(len(part.split()) > 20 for part in parts)
    assert SHIPPED.read_text(encoding="utf-8").count("\n    return ") == 1  # code keeps its lines


def test_wrong_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RequestError, match="side_effects = true compares an adapter"):
        EvalConfig(side_effects=True)
    with pytest.raises(RequestError, match=r"text = a\.txt without side_effects, so no text"):
        EvalConfig(adapter="runs/a", text="a.txt")
    with pytest.raises(RequestError, match=r"none\.txt, which cannot be read"):
        paragraphs(str(tmp_path / "none.txt"))


def test_the_command_shows_the_losses(
    tiny_folder: Path, task_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = tinylora.attach(load_model(str(tiny_folder), "fp32", "cpu").model, AdapterConfig())
    adapter.save(tmp_path / "a.safetensors")
    named = [f"--adapter={tmp_path / 'a.safetensors'}", f"--model={tiny_folder}"]
    options = [f"--task={task_name}", "--samples=1", "--device=cpu", "--side-effects"]
    assert main(["eval", *named, *options]) == 0
    printed = capsys.readouterr().out
    assert "side effects: text shipped, 26 paragraphs" in printed
    assert "+0.0000 [+0.0000, +0.0000]" in printed
