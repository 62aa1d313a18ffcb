"""`tinylora train`: from flags and a recipe to a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tinylora.cli.options import Verb, split
from tinylora.errors import RequestError
from tinylora.settings import GROUPS, TrainConfig, combine, load_recipe, unflatten
from tinylora.settings.base import OrNone, Settings


class Request(Settings):
    """What is not a setting of a run."""

    recipe: Annotated[str | None, OrNone] = Field(
        default=None,
        title="RECIPE.yaml",
        description="a YAML file (none: the defaults)",
    )
    resume: bool = Field(default=False, description="resume the run in --output")
    dry_run: bool = Field(
        default=False,
        description="show settings, modules, groups, memory and the number of trained "
        "parameters, and stop",
    )


VERB = Verb(
    name="train",
    description="""\
Train a few parameters on a task by reinforcement learning, and measure what
they did. Settings come from the defaults, then RECIPE.yaml, then the options.
Without any, 13 numbers of the embedded model are trained, in minutes on two
CPU cores.""",
    examples="""\
  tinylora train                                    the embedded model and task
  tinylora train recipes/pocket/demo.yaml --seed 1  a recipe, with another seed
  tinylora train --resume --output runs/a           after an interruption
  tinylora train --model Qwen/Qwen2.5-3B-Instruct --task gsm8k --params 13 --dry-run
  tinylora train --task data.jsonl --answer-format any""",
    groups={"command": Request.model_fields, **GROUPS},
    positional="recipe",
)


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    request, settings = split(Request, VERB.given(argv))
    config = resolve(request, settings)
    if request.dry_run:
        from tinylora.cli.dry_run import show

        show(config, request.resume)
        return
    from tinylora.cli.quiet import quieten
    from tinylora.run.training import train

    quieten(config.model)
    train(config, resume=request.resume)


def resolve(request: Request, flags: Mapping[str, Any]) -> TrainConfig:
    """Defaults < (on --resume: the run's own settings) < recipe < flags."""
    recipe = load_recipe(request.recipe) if request.recipe else {}
    settings = combine(recipe, flags)
    if not request.resume:
        return unflatten(settings)
    if settings.get("output") is None:
        raise RequestError("--resume needs the folder of a run. Name it: --resume --output DIR.")
    from tinylora.run.folder import RunFolder, recorded_settings

    recorded = recorded_settings(RunFolder(Path(settings["output"])))
    return unflatten(combine(recorded, settings))
