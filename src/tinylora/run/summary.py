"""What `summary.json` holds."""

import json
from dataclasses import dataclass
from typing import Any

from tinylora.adapter.files import DTYPES
from tinylora.algorithms import snapshots
from tinylora.algorithms.log import whole_lines
from tinylora.algorithms.loop import Outcome
from tinylora.algorithms.validation import Best
from tinylora.run.folder import RunFolder
from tinylora.run.origin import versions
from tinylora.run.prepare import Prepared, degrees_of_freedom, linear_layers


@dataclass(frozen=True)
class Saved:
    """What training left behind."""

    num_trainable: int
    file_bytes: int
    best: Best | None


def summarise(
    prepared: Prepared,
    folder: RunFolder,
    evaluations: dict[str, dict[str, Any]],
    saved: Saved,
    outcome: Outcome,
    seconds: float,
) -> dict[str, Any]:
    """The settings that matter, the accuracies, and what it took.

    Args:
        evaluations: of `base` and `final`, and of `best` where validation chose one.
    """
    config = prepared.config
    base, final = evaluations["base"], evaluations["final"]
    rollouts = num_rollouts(folder)
    return {
        "model": prepared.base.name,
        "model_parameters": prepared.base.model.num_parameters(),
        "num_modules": len(linear_layers(prepared)),
        "task": prepared.task.name,
        "method": config.method,
        "algorithm": config.algorithm,
        "reward_control": config.reward_control,
        "output": str(folder.path),
        "base_accuracy": base["greedy"]["accuracy"],
        "final_accuracy": final["greedy"]["accuracy"],
        "base_accuracy_sampled": base["sampled"]["accuracy"],
        "final_accuracy_sampled": final["sampled"]["accuracy"],
        "num_trainable": saved.num_trainable,
        "degrees_of_freedom": degrees_of_freedom(prepared, saved.num_trainable),
        **_layout(prepared, saved.num_trainable),
        "adapter_bytes": saved.num_trainable * DTYPES[config.store].itemsize,
        "file_bytes": saved.file_bytes,
        "store": config.store,
        "steps": outcome.steps,
        "stopped": outcome.stopped,
        "rollouts": rollouts,
        "rollouts_per_step": round(rollouts / outcome.steps),
        "seconds": seconds,
        "versions": versions(),
        "best": saved.best and _best(prepared, saved.best, evaluations["best"]),
        "snapshots": _snapshots(folder),
        "evaluations": evaluations,
    }


def num_rollouts(folder: RunFolder) -> int:
    """Completions that training sampled, as the metrics count them."""
    return sum(int(line.get("rollouts", 0)) for _, line in whole_lines(folder.metrics))


def _snapshots(folder: RunFolder) -> list[dict[str, float]]:
    """The accuracies of the adapter after steps 1, 2, 4, 8, ..., where they were kept."""
    accuracies = []
    for step, path in snapshots.found(folder.snapshots).items():
        if (file := snapshots.figures(path)).is_file():
            held = json.loads(file.read_text(encoding="utf-8"))
            greedy, sampled = (held[kind]["accuracy"] for kind in ("greedy", "sampled"))
            accuracies.append({"step": step, "accuracy": greedy, "accuracy_sampled": sampled})
    return accuracies


def _best(prepared: Prepared, best: Best, measured: dict[str, Any]) -> dict[str, Any]:
    """Which step validation chose, and what its file is worth on the test problems."""
    assert prepared.validation is not None
    return {
        "step": best.step,
        "validation_accuracy": best.accuracy,
        "num_validation_problems": len(prepared.validation.problems),
        "accuracy": measured["greedy"]["accuracy"],
        "accuracy_sampled": measured["sampled"]["accuracy"],
    }


def _layout(prepared: Prepared, num_trainable: int) -> dict[str, Any]:
    """How the parameters are laid out, by method."""
    settings = prepared.config.adapter
    if prepared.config.has_factors:
        return {"u": settings.u, "num_groups": num_trainable // settings.u}
    return {"rank": settings.rank} if prepared.config.method in ("lora", "vera") else {}
