"""What a run began with: its base's weights, its problems, the versions; a resumed run is compared.

`origin.json` is written beside `config.yaml`. Settings name a model and a data file; this says
whether they are still the same ones.
"""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tinylora.adapter import fingerprint
from tinylora.errors import RequestError
from tinylora.run.folder import RunFolder
from tinylora.run.prepare import MOST_PROMPTS, Prepared
from tinylora.settings import TrainConfig
from tinylora.tasks.draw import draw_problems
from tinylora.tasks.task import Problem

PACKAGES = ("tinylora", "torch", "transformers")


def versions() -> dict[str, str]:
    """Of the packages that a result depends on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a checkout that is not installed
            found[package] = "unknown"
    return found


def origin_of(prepared: Prepared) -> dict[str, Any]:
    """What is recorded of a run's beginning; the model is still bare."""
    return {
        "base": fingerprint.take(prepared.base.model),
        "problems": _hash(prepared),
        "versions": versions(),
    }


def check_origin(folder: RunFolder, now: Mapping[str, Any], config: TrainConfig) -> list[str]:
    """Refuse to resume a run on other weights or problems; returns what else has changed.

    Nothing is compared where an older version did not record it.

    Args:
        now: what a run would begin with.

    Raises:
        RequestError: the weights or the problems are not those that the run began with.
    """
    before = _recorded(folder)
    changed = fingerprint.compare(str(before.get("base", "")), str(now["base"]))
    if changed is not None:
        raise RequestError(
            f"model = {config.model}, but its weights are not those that the run in {folder.path} "
            f"began with: {changed.what}. {changed.cause} Put those weights back, or start a new "
            "run with a different output folder."
        )
    if before.get("problems", now["problems"]) != now["problems"]:
        raise RequestError(
            f"task = {config.task}, but its problems are not those that the run in {folder.path} "
            "began with: the file or function behind it has changed. Put it back as it was, or "
            "start a new run with a different output folder."
        )
    there = before.get("versions", {})
    differing = [
        f"{name} {there[name]} (now {here})"
        for name, here in now["versions"].items()
        if there.get(name, here) != here
    ]
    return [f"The run began with {', '.join(differing)}: results may differ."] if differing else []


def _recorded(folder: RunFolder) -> dict[str, Any]:
    """The recorded origin; nothing where it is not there, or a power cut left it damaged."""
    try:
        held = json.loads(folder.origin.read_bytes())
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) and isinstance(held.get("versions", {}), dict) else {}


def _hash(prepared: Prepared) -> str:
    """Of the problems that are asked: of very many, the first ones that are drawn."""
    train, config = prepared.task.train, prepared.config
    if len(train) > MOST_PROMPTS:
        train = draw_problems(train, config.learning.prompts_per_step, config.seed, step=0)
    total = hashlib.sha256()
    for problem in (*train, *prepared.exam.problems):
        total.update(repr(_told(problem)).encode())
    return total.hexdigest()[:32]


def _told(problem: Problem) -> tuple[Any, ...]:
    """What the model is told, and what counts as right."""
    turns = [(turn["role"], turn["content"]) for turn in problem.turns]
    return problem.system, turns, problem.prompt, problem.plain, problem.gold, problem.solution
