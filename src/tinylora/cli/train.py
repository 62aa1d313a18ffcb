"""`tinylora train`: from flags and a recipe to a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from tinylora.cli.options import given, parse, with_settings
from tinylora.errors import RequestError
from tinylora.settings import TrainConfig, combine, load_recipe, unflatten

DESCRIPTION = """Train a few numbers on a task with GRPO, and measure what they did.

Settings come from the defaults, then RECIPE.yaml, then the options. Without any, 13 numbers of the
embedded model are trained, in minutes on two CPU cores."""


@dataclass
class Options:
    """What is no setting of a run."""

    recipe: Annotated[
        tyro.conf.Positional[str | None],
        tyro.conf.arg(
            help="a YAML file of settings", metavar="RECIPE.yaml", help_behavior_hint="(optional)"
        ),
    ] = None
    resume: Annotated[
        bool,
        tyro.conf.arg(help="go on with the run in --output", help_behavior_hint=""),
    ] = False
    dry_run: Annotated[
        bool,
        tyro.conf.arg(
            help="show settings, modules, groups and the number of trained numbers, and stop",
            help_behavior_hint="",
        ),
    ] = False


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    options = parse(with_settings(Options), argv, "train", DESCRIPTION)
    config = resolve(options)
    if options.dry_run:
        from tinylora.cli.dry_run import show

        show(config, options.resume)
        return
    from tinylora.cli.quiet import quieten
    from tinylora.run.training import train

    quieten(config.model)
    train(config, resume=options.resume)


def resolve(options: Any) -> TrainConfig:
    """Defaults < (on --resume: the run's own settings) < recipe < flags."""
    recipe = load_recipe(options.recipe) if options.recipe else {}
    settings = combine(recipe, given(options))
    if not options.resume:
        return unflatten(settings)
    if settings.get("output") is None:
        raise RequestError(
            "--resume has no run to go on with. Name its folder: --resume --output DIR."
        )
    from tinylora.run.folder import RunFolder, recorded_settings

    recorded = recorded_settings(RunFolder(Path(settings["output"])))
    return unflatten(combine(recorded, settings))
