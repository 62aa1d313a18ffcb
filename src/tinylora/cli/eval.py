"""`tinylora eval`: how good a base model or an adapter is, with controls or beside another one."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tinylora.cli.options import ADAPTER_HELP, Force, Quantize, parse, with_settings
from tinylora.errors import RequestError
from tinylora.settings import CHAT_FIELDS, TASK_FIELDS, TASK_HELP, TaskConfig, load_recipe

DESCRIPTION = """How good a model or an adapter is on a task: greedy (pass@1) and sampled accuracy
(mean@k, pass@k, majority@k where answers can be compared), formats, lengths, with 95 % intervals.
With --compare A2 the adapter is tested against another one on the same problems; --compare A B does
that without --adapter, and --compare A against the base model."""
BASE = "base"  # in --compare: the model without an adapter
ASKED_ANEW = "unsafe_no_sandbox"
RECORDED = {  # option -> the setting of a run that it repeats
    "model": "model",
    "task": "task",
    "problems": "eval_problems",
    "samples": "eval_samples",
    "temperature": "temperature",
    "max_new_tokens": "max_new_tokens",
    "seed": "seed",
    "dtype": "dtype",
    "quantize": "quantize",
}
DEFAULTS = {
    "task": "pocket",
    "problems": 512,
    "samples": 4,
    "temperature": 1.0,
    "seed": 0,
    "dtype": "auto",
}


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
            help=ADAPTER_HELP,
            metavar="ADAPTER",
            help_behavior_hint="(default: none, the base model)",
        ),
    ] = None
    task: Annotated[
        str | None,
        tyro.conf.arg(
            help=TASK_HELP,
            metavar="TEXT",
            help_behavior_hint="(default: the run's, else pocket)",
        ),
    ] = None
    split: Annotated[Literal["train", "test"], tyro.conf.arg(help="which problems of the task")] = (
        "test"
    )
    problems: Annotated[
        int | None,
        tyro.conf.arg(
            help="how many of them, from the first",
            metavar="INT",
            help_behavior_hint="(default: the run's, else 512)",
        ),
    ] = None
    samples: Annotated[
        int | None,
        tyro.conf.arg(
            help="answers to each for the sampled figures: k of mean@k, pass@k, majority@k",
            metavar="INT",
            help_behavior_hint="(default: the run's, else 4)",
        ),
    ] = None
    temperature: Annotated[
        float | None,
        tyro.conf.arg(
            help="of the sampled answers",
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
    seed: Annotated[
        int | None,
        tyro.conf.arg(
            help="of the samples and of the random controls",
            metavar="INT",
            help_behavior_hint="(default: the run's, else 0)",
        ),
    ] = None
    dtype: Annotated[
        Literal["auto", "fp32", "bf16"] | None,
        tyro.conf.arg(
            help="precision of the base model",
            metavar="auto|fp32|bf16",
            help_behavior_hint="(default: the run's, else auto)",
        ),
    ] = None
    quantize: Quantize = None
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
    force: Force = False
    compare: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            help="the adapter (or base) to test against, on the same problems; without --adapter "
            "both, or one against the base",
            metavar="A2|A B",
            help_behavior_hint="(default: none)",
        ),
    ] = ()
    json: Annotated[
        str | None,
        tyro.conf.arg(
            help="also write all figures, and every answer with its verdict, to this file",
            metavar="FILE",
        ),
    ] = None


AllOptions = with_settings(Options, TASK_FIELDS)


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    options = with_pair(parse(AllOptions, argv, "eval", DESCRIPTION))
    check(options)
    from tinylora.evaluate.measure import measure

    measure(with_recorded(options))


def with_pair(options: Any) -> Any:
    """`adapter` is what is measured, `compare` what it is tested against: one name, or nothing.

    Raises:
        RequestError: more than two adapters were named.
    """
    named = [*([options.adapter] if options.adapter else []), *options.compare]
    if len(named) > 2:
        raise RequestError(
            f"{', '.join(named)} are {len(named)} adapters, but two are compared at a time. Use "
            "--adapter A --compare A2, or --compare A B."
        )
    if options.compare:
        first, second = [*named, BASE][:2]
        options.adapter, options.compare = (None if first == BASE else first), (second,)
    return options


def with_recorded(options: Any) -> Any:
    """What was not given is as it was in the run that the adapters belong to, the first first.

    How the task is read and asked is as it was only for the run's own task. That programs may run
    without a wall is never taken from a run folder, which may be somebody else's.
    """
    folders = [run_folder(adapter) for adapter in (options.adapter, *options.compare)]
    recipes = [os.path.join(folder, "config.yaml") for folder in folders]
    recorded = next((load_recipe(Path(r)) for r in recipes if os.path.isfile(r)), {})
    is_same_task = options.task in (None, recorded.get("task"))
    for name, setting in RECORDED.items():
        if getattr(options, name) is None:
            setattr(options, name, recorded.get(setting, DEFAULTS.get(name)))
    for name in TASK_FIELDS:
        is_kept = name in CHAT_FIELDS or (is_same_task and name != ASKED_ANEW)
        if getattr(options, name) is None and is_kept:
            setattr(options, name, recorded.get(name))
    return options


def run_folder(adapter: str | None) -> str:
    """The run of an adapter: its folder, or that of a file in it or in its `best/`."""
    path = adapter or BASE  # by os.path: a text is no path, and may be too long for one
    folder = os.path.normpath(os.path.dirname(path) if os.path.isfile(path) else path)
    return os.path.dirname(folder) if os.path.basename(folder) == "best" else folder


def task_settings(options: Any) -> TaskConfig:
    """How the task is read, asked and graded."""
    values = {name: getattr(options, name) for name in TASK_FIELDS}
    return TaskConfig(**{name: value for name, value in values.items() if value is not None})


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
    if options.json is not None and Path(options.json).is_dir():
        raise RequestError(f"json = {options.json} is a folder. Name a file in it.")
