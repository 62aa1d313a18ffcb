"""Training when the rollout engine rounds what the trainer does not: corrected, and not.

    python benchmarks/mismatch.py            # 3 ways x 3 seeds of a short run on pocket

The usual way merges the update into bf16 weights for the rollouts. Here such rollouts are made by
rounding the folded weights to bf16 and computing in fp32 (this way a processor without bf16
products does it in time); the trainer stays in fp32. Three ways: exact rollouts, merged ones with
truncated importance weights (cap 2), and merged ones without correction. For each: mean final
accuracy over the seeds with its 95 % interval, and the KL between trainer and rollout.
"""

import argparse
import os
import platform
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from rich.console import Console

from tinylora import TrainConfig
from tinylora.adapter import TinyLora, attach
from tinylora.algorithms import make_step
from tinylora.algorithms.log import RunLog
from tinylora.algorithms.loop import Loop, Run, run_steps
from tinylora.evaluate.exam import Exam
from tinylora.models import load_model
from tinylora.prompts import text_of
from tinylora.rollout.engine import Sampling
from tinylora.rollout.transformers import TransformersEngine
from tinylora.settings import AdapterConfig
from tinylora.sweep.panels import mean_interval
from tinylora.tasks import load_task

WAYS: dict[str, tuple[bool, float | None]] = {  # rollouts from merged weights?, importance cap
    "exact rollouts": (False, 2.0),
    "merged bf16, truncated weights": (True, 2.0),
    "merged bf16, uncorrected": (True, None),
}


def merge_rollouts(adapter: TinyLora) -> None:
    """Rollouts from here on come from weights into which the update is merged in bf16."""

    @contextmanager
    def rollout() -> Iterator[None]:
        with adapter.folded():
            for layer in adapter.maps.values():
                weight = layer.linear.weight()
                weight.copy_(weight.bfloat16())
            yield

    adapter.rollout = rollout  # type: ignore[method-assign]


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    print(
        f"pocket, {options.steps} steps, seeds 0 to {options.seeds - 1}; torch "
        f"{torch.__version__}, transformers {transformers.__version__}, {platform.machine()}, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    for name, way in WAYS.items():
        found = [one_run(*way, seed, options) for seed in range(options.seeds)]
        parts = []
        for kind in ("greedy", "sampled"):
            mean, half = mean_interval([100 * run[kind] for run in found])
            parts.append(f"{kind} {mean:5.1f} +- {half:4.1f} %")
        kl = statistics.fmean(run["kl"] for run in found)
        print(f"{name:32} {'   '.join(parts)}   KL {kl:.1e}", flush=True)


def one_run(
    merged: bool, cap: float | None, seed: int, options: argparse.Namespace
) -> dict[str, float]:
    """A training run from the base model; its final accuracies and its mean KL."""
    config = TrainConfig(
        adapter=AdapterConfig(u=1, num_groups=13, rank=1, layers="2-3"),
        seed=seed,
        steps=options.steps,
        importance_cap=cap,
        rollout_tolerance=10.0,
    )
    base, task = load_model("pocket"), load_task("pocket")
    text = text_of(base)
    policy = attach(base.model, config.adapter)
    exact = policy.rollout
    if merged:
        merge_rollouts(policy)
    with tempfile.TemporaryDirectory() as folder:
        log = RunLog(Path(folder), config.steps, console=Console(quiet=True))
        sampling = Sampling(config.temperature, task.max_new_tokens, text.eos_token_ids)
        engine = TransformersEngine(policy)
        run = Run(policy, engine, task, text, sampling, config.seed, config.steps)
        loop = Loop(config, config.checkpoint_every, Path(folder) / "checkpoint", log)
        run_steps(policy, make_step(run, config.learning), loop)
        log.close()
        kl = statistics.fmean(_values(Path(folder) / "metrics.jsonl", "kl_rollout"))
    policy.rollout = exact  # type: ignore[method-assign]
    problems = list(task.test[: options.problems])
    measured = Exam(task, text, problems, samples=2).both(TransformersEngine(policy))
    scores = {kind: evaluation.accuracy for kind, evaluation in measured.items()}
    return {**scores, "kl": kl}


def _values(path: Path, name: str) -> list[float]:
    import json

    return [json.loads(line)[name] for line in path.read_text().splitlines()]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--problems", type=int, default=512)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


if __name__ == "__main__":
    main()
