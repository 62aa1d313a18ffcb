"""lm-eval as a referee: on the same problems it gives the exported LoRA our accuracy.

It has its own prompt (the chat template of the tokenizer), its own generation, and its own grading
(a regular expression and an exact match).
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tinylora.adapter import AdapterConfig, TinyLora, attach
from tinylora.evaluate.exam import Exam
from tinylora.export import to_lora
from tinylora.models import load_model
from tinylora.pocket import model_folder
from tinylora.policy import Policy, UntrainedPolicy
from tinylora.prompts import text_of
from tinylora.rollout.transformers import TransformersEngine
from tinylora.tasks import load_task

NUM_PROBLEMS = 256
TASK = {
    "task": "pocket_words",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["<|end|>"], "do_sample": False, "max_gen_toks": 64},
    "filter_list": [
        {
            "name": "first-after-hashes",
            "filter": [
                {"function": "regex", "regex_pattern": r"####\s*(-?\d+)"},
                {"function": "take_first"},
            ],
        }
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


@pytest.fixture(scope="module")
def base() -> Any:
    return load_model("pocket", "fp32", "cpu")


def adapter_on(base: Any) -> TinyLora:
    """Numbers that solve some of the problems: 13 drawn at random, and one draw of eight kept."""
    settings = AdapterConfig(u=1, rank=1, num_groups=13, layers="2-3")
    adapter = attach(base.model, settings)
    generator = torch.Generator().manual_seed(2)
    adapter.set_values(0.6 * torch.randn(13, 1, generator=generator))
    return adapter


def our_accuracy(base: Any, policy: Policy) -> float:
    task = load_task("pocket")
    problems = list(task.test[:NUM_PROBLEMS])
    return Exam(task, text_of(base), problems).greedy(TransformersEngine(policy)).accuracy


def write_task(folder: Path) -> None:
    rows = folder / "rows.jsonl"
    problems = load_task("pocket").test[:NUM_PROBLEMS]
    lines = [json.dumps({"question": p.prompt, "answer": p.gold}) for p in problems]
    rows.write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {**TASK, "dataset_kwargs": {"data_files": {"test": str(rows)}}}
    (folder / "pocket_words.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def their_accuracy(folder: Path, lora: Path | None) -> float:
    """What `lm_eval` prints, from its results file."""
    model = f"pretrained={model_folder()},dtype=float32" + (f",peft={lora}" if lora else "")
    command = [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", model),
        *("--tasks", TASK["task"], "--include_path", str(folder), "--apply_chat_template"),
        *("--device", "cpu", "--batch_size", "64", "--output_path", str(folder / "results")),
    ]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **offline})
    assert done.returncode == 0, done.stderr[-3000:]
    (newest,) = (folder / "results").rglob("results_*.json")
    results = json.loads(newest.read_text(encoding="utf-8"))
    assert results["n-samples"][TASK["task"]]["effective"] == NUM_PROBLEMS
    return float(results["results"][TASK["task"]]["exact_match,first-after-hashes"])


@pytest.mark.slow
@pytest.mark.skipif(find_spec("lm_eval") is None, reason="make test-engines installs lm-eval")
@pytest.mark.parametrize("with_adapter", [True, False])
def test_lm_eval_gives_our_accuracy(with_adapter: bool, base: Any, tmp_path: Path) -> None:
    write_task(tmp_path)
    if not with_adapter:
        ours = our_accuracy(base, UntrainedPolicy(base.model))
        assert their_accuracy(tmp_path, None) == ours
        assert 0.05 < ours < 0.25
        return
    adapter = adapter_on(base)
    ours = our_accuracy(base, adapter)
    to_lora(adapter, tmp_path / "lora")
    adapter.detach()
    assert their_accuracy(tmp_path, tmp_path / "lora") == ours
    assert 0.5 < ours < 0.95
