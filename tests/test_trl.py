"""A task's rewards and an adapter of this project in TRL's own GRPOTrainer."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import tinylora
from tinylora.adapter.files import read
from tinylora.pocket import model_folder

EXAMPLE = Path(__file__).parent.parent / "examples" / "trl_grpo.py"
OWN_TASK = """
from dataclasses import replace
from tinylora import Verdict, load_task

def make():
    return replace(pocket, train=pocket.train[:40], grade=grade)

def grade(gold, completion):
    return Verdict(None, "cannot judge") if int(gold) % 5 == 0 else pocket.grade(gold, completion)

pocket = load_task("pocket")
"""


def load_example() -> Any:
    spec = importlib.util.spec_from_file_location("trl_grpo", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")  # TRL's own, about names that transformers has changed
def test_two_steps_in_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """v learns in fp32 from our grader's verdicts, some of them None; nothing else moves."""
    example, given = load_example(), []
    make_reward = example.as_reward

    def noted(task: Any) -> Any:
        reward = make_reward(task)

        def note(**columns: Any) -> list[float | None]:
            given.append((columns, reward(**columns)))
            return given[-1][1]

        return note

    small = example.settings(tmp_path, 2)
    small.per_device_train_batch_size = 16
    monkeypatch.setattr(example, "as_reward", noted)
    monkeypatch.setattr(example, "settings", lambda output, steps: small)
    own = tmp_path / "own.py"
    own.write_text(OWN_TASK)
    adapter = example.main(["--steps=2", f"--task={own}:make", f"--output={tmp_path}"])

    assert adapter.v.dtype == torch.float32
    assert adapter.v.abs().max() > 1e-3
    assert torch.equal(read(tmp_path / "adapter.safetensors").v, adapter.v.detach())
    before = AutoModelForCausalLM.from_pretrained(model_folder(), dtype=torch.float32)
    after = adapter.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.state_dict().items())

    pocket = tinylora.load_task("pocket")
    assert len(given) == 2
    for columns, scores in given:
        for gold, turns, score in zip(
            columns["answer"], columns["completions"], scores, strict=True
        ):
            expected = pocket.grade(gold, turns[-1]["content"]).score
            assert score == (None if int(gold) % 5 == 0 else expected)
    assert {score for _, scores in given for score in scores} == {None, 0.0, 1.0}
