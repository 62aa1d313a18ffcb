"""`tinylora eval`: accuracy of a base model or an adapter, greedy and sampled, with controls."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tinylora.cli.options import parse
from tinylora.config import load_recipe
from tinylora.errors import RequestError

DESCRIPTION = """Accuracy of a model or an adapter on a task: greedy (pass@1) and sampled, with 95 %
intervals."""
RECORDED = ("model", "task", "temperature", "max_new_tokens")
DEFAULTS = {"task": "pocket", "temperature": 1.0}


@dataclass
class Options:
    """What to measure, and how."""

    model: Annotated[
        str | None,
        tyro.conf.arg(
            help="pocket, a local folder, or a hub id",
            metavar="TEXT",
            help_behavior_hint="(default: the adapter's, else pocket)",
        ),
    ] = None
    adapter: Annotated[
        str | None,
        tyro.conf.arg(
            help="an adapter file, or a run folder",
            metavar="PATH",
            help_behavior_hint="(default: none, the base model)",
        ),
    ] = None
    task: Annotated[
        str | None,
        tyro.conf.arg(
            help="pocket, data.jsonl, or my_task.py:make",
            metavar="TEXT",
            help_behavior_hint="(default: the run's, else pocket)",
        ),
    ] = None
    split: Annotated[Literal["train", "test"], tyro.conf.arg(help="which problems of the task")] = (
        "test"
    )
    problems: Annotated[int, tyro.conf.arg(help="how many of them, from the first")] = 512
    samples: Annotated[int, tyro.conf.arg(help="answers to each for the sampled accuracy")] = 4
    temperature: Annotated[
        float | None,
        tyro.conf.arg(
            help="of the sampled accuracy",
            metavar="FLOAT",
            help_behavior_hint="(default: the run's, else 1.0)",
        ),
    ] = None
    max_new_tokens: Annotated[
        int | None,
        tyro.conf.arg(
            help="completion budget",
            metavar="INT",
            help_behavior_hint="(default: the run's or the task's)",
        ),
    ] = None
    seed: Annotated[int, tyro.conf.arg(help="of the samples and of the random controls")] = 0
    dtype: Annotated[
        Literal["auto", "fp32", "bf16"], tyro.conf.arg(help="precision of the base model")
    ] = "auto"
    device: Annotated[
        str, tyro.conf.arg(help="where the model runs: auto, cpu, cuda, ...", metavar="TEXT")
    ] = "auto"
    controls: Annotated[
        bool,
        tyro.conf.arg(
            help="also measure the base, the zero adapter and ten random v of the same norm",
            help_behavior_hint="",
        ),
    ] = False
    json: Annotated[
        str | None,
        tyro.conf.arg(help="also write the figures to this file", metavar="FILE"),
    ] = None


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    options = parse(Options, argv, "eval", DESCRIPTION)
    check(options)
    from tinylora.cli.measure import measure

    measure(with_recorded(options))


def with_recorded(options: Options) -> Options:
    """What was not given is as it was in the run whose folder `--adapter` names, if it is one."""
    recorded: dict[str, Any] = {}
    if options.adapter is not None:
        recipe = Path(options.adapter) / "config.yaml"
        recorded = load_recipe(recipe) if recipe.is_file() else {}
    known: dict[str, Any] = {**DEFAULTS, **{n: recorded[n] for n in RECORDED if n in recorded}}
    for name in RECORDED:
        if getattr(options, name) is None:
            setattr(options, name, known.get(name))
    return options


def check(options: Any) -> None:
    """Ranges, and what goes together.

    Raises:
        RequestError: a value is out of its range, or --controls has no adapter.
    """
    for name in ("problems", "samples", "max_new_tokens"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise RequestError(f"{name} = {value}, but it must be at least 1.")
    if options.temperature is not None and options.temperature <= 0:
        raise RequestError(
            f"temperature = {options.temperature}, but sampling needs one above 0. The greedy "
            "accuracy is always measured."
        )
    if options.controls and options.adapter is None:
        raise RequestError(
            "--controls compares an adapter with zero and random ones, but no --adapter was given."
        )
    if options.json is not None and not Path(options.json).parent.is_dir():
        raise RequestError(
            f"json = {options.json}, but there is no folder {Path(options.json).parent}."
        )
