"""The first hour on a GPU: what to look at before anything else, as one table.

    python benchmarks/first_hour.py                                   # pocket, on the GPU
    python benchmarks/first_hour.py --model Qwen/Qwen2.5-0.5B-Instruct --task gsm8k
    python benchmarks/first_hour.py --device cpu                      # the script itself, anywhere

Each row says what was measured, what is expected, and whether it is so. `pytest -m gpu` runs the
same checks on pocket. Nothing here has run on a GPU yet: the first table that somebody prints is
worth an issue.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

import tinylora
from tinylora import AdapterConfig, TrainConfig
from tinylora.models import load_model
from tinylora.run.memory import size_text
from tinylora.run.prepare import estimator, prepare

HALF = torch.bfloat16


@dataclass(frozen=True)
class Row:
    """What was measured, beside what is expected; `is_so` None: only to be read."""

    what: str
    found: str
    expected: str
    is_so: bool | None


def run(folder: Path, options: Any, **settings: Any) -> dict[str, Any]:
    """A short run; the metrics of its last step."""
    config: dict[str, Any] = {
        "model": options.model,
        "task": options.task,
        "device": options.device,
        "steps": 2,
        "prompts_per_step": 8,
        "samples_per_prompt": 4,
        "eval_problems": 16,
        "eval_samples": 1,
        "output": str(folder),
        "checkpoint_every": 1,
    }
    tinylora.train(TrainConfig(**{**config, **settings}))
    metrics: dict[str, Any] = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    return metrics


def rollouts_agree(folder: Path, options: Any) -> Iterator[Row]:
    """Rollouts by Transformers have the trainer's log-probabilities."""
    for dtype, bound in (("fp32", 1e-4), ("bf16", 0.02)):
        found = run(folder / dtype, options, dtype=dtype)["rollout_difference_mean"]
        yield Row(
            f"rollouts - trainer, {dtype}", f"{found:.1e} nats", f"<= {bound:g}", found <= bound
        )


def factors_agree(folder: Path, options: Any) -> Iterator[Row]:
    """The factors that the GPU computes are those of the CPU."""
    deltas, seconds = [], {}
    for device in ("cpu", options.device):
        model = load_model(options.model, "fp32", device).model
        start = time.perf_counter()
        adapter = tinylora.attach(model, AdapterConfig(u=1, num_groups=13))
        seconds[device] = time.perf_counter() - start
        adapter.set_values(torch.ones_like(adapter.v))
        name = next(iter(adapter.maps))
        deltas.append(adapter.delta_weight(name).cpu())
        adapter.detach()
    error = float((deltas[0] - deltas[1]).norm() / deltas[0].norm())
    yield Row("dW of a GPU's factors - a CPU's", f"{error:.1e}", "<= 1e-4", error <= 1e-4)
    took = seconds[options.device]
    yield Row("attach, factors cached or not", f"{took:.1f} s", "seconds", None)


def memory_is_as_estimated(folder: Path, options: Any) -> Iterator[Row]:
    """The peak of a step, beside what --dry-run says."""
    if not torch.cuda.is_available():
        return
    torch.cuda.reset_peak_memory_stats()
    settings = {"model": options.model, "task": options.task, "device": options.device}
    config = TrainConfig(**settings, dtype="bf16", steps=1, eval_problems=16)
    made = prepare(config)
    estimate = estimator(made.config, made.task, made.base.model, made.text.encode)(made.config)
    run(folder / "memory", options, dtype="bf16", steps=1, prompts_per_step=32)
    peak = torch.cuda.max_memory_allocated()
    found = f"{size_text(peak)} of {size_text(estimate.peak)}"
    yield Row("peak of a step, of the estimate", found, "below", peak <= estimate.peak)


def resumes(folder: Path, options: Any) -> Iterator[Row]:
    """Two steps, and one step resumed for a second: the same numbers?"""
    files = []
    for name, parts in (("whole", (2,)), ("parts", (1, 2))):
        place = folder / name
        for steps in parts:
            settings = {"steps": steps, "schedule": "constant", "warmup_steps": 0}
            config: dict[str, Any] = {
                "model": options.model,
                "task": options.task,
                "device": options.device,
                "prompts_per_step": 8,
                "samples_per_prompt": 4,
                "eval_problems": 16,
                "eval_samples": 1,
                "output": str(place),
                **settings,
            }
            tinylora.train(TrainConfig(**config), resume=(place / "metrics.jsonl").exists())
        files.append((place / "adapter.safetensors").read_bytes())
    is_same = files[0] == files[1]
    found = "the same bytes" if is_same else "other bytes"
    is_gpu = options.device != "cpu"
    yield Row("a resumed run", found, "the same on a CPU", None if is_gpu else is_same)


def vllm_agrees(folder: Path, options: Any) -> Iterator[Row]:
    """vLLM in this process: its log-probabilities are the trainer's."""
    if find_spec("vllm") is None:
        yield Row("vLLM", "not installed", "", None)
        return
    metrics = run(folder / "vllm", options, rollout="vllm", dtype="bf16", steps=3)
    found = metrics["rollout_difference_mean"]
    yield Row("vLLM - trainer, bf16", f"{found:.1e} nats", "<= 0.02", found <= 0.02)


def processes_agree(folder: Path, options: Any) -> Iterator[Row]:
    """torchrun with two processes gives what one gives."""
    if options.device != "cpu" and torch.cuda.device_count() < 2:
        yield Row("torchrun with 2 GPUs", f"{torch.cuda.device_count()} GPU here", "", None)
        return
    numbers = []
    for count in (1, 2):
        place = folder / f"processes-{count}"
        command = [
            *(sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}"),
            *("-m", "tinylora", "train", f"--model={options.model}", f"--task={options.task}"),
            *("--steps=2", "--prompts-per-step=8", "--samples-per-prompt=4", "--dtype=fp32"),
            *("--eval-problems=16", "--eval-samples=1", f"--output={place}"),
        ]
        if options.device == "cpu":
            command.append("--device=cpu")
        subprocess.run(command, check=True, capture_output=True)
        numbers.append(tinylora.adapter.files.read(place / "adapter.safetensors").v)
    error = float((numbers[0] - numbers[1]).abs().max())
    yield Row("v of 2 processes - of 1", f"{error:.1e}", "<= 1e-5", error <= 1e-5)


CHECKS: tuple[Callable[[Path, Any], Iterator[Row]], ...] = (
    rollouts_agree,
    factors_agree,
    memory_is_as_estimated,
    resumes,
    vllm_agrees,
    processes_agree,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--task", default="pocket")
    parser.add_argument("--device", default="cuda:0")
    options = parser.parse_args()
    place = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    title = f"{options.model} on {options.device} ({place}); torch {torch.__version__}"
    table = Table("what", "found", "expected", "so", title_justify="left")
    table.title = f"{title}, transformers {transformers.__version__}"
    with tempfile.TemporaryDirectory() as folder:
        for check in CHECKS:
            for row in check(Path(folder), options):
                so = {True: "yes", False: "NO", None: ""}[row.is_so]
                table.add_row(row.what, row.found, row.expected, so)
    Console().print(table)


if __name__ == "__main__":
    main()
