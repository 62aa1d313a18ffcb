"""What `tinylora eval` measures, under the names that a run's settings have."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tinylora.settings.base import OrNone, Settings
from tinylora.settings.recipe import recorded
from tinylora.settings.tasks import CHAT_FIELDS, TASK_FIELDS, TASK_HELP, TaskConfig

SNAPSHOTS = "snapshots"  # the folder of a run's adapters after steps 1, 2, 4, 8, ...
BASE = "base"  # in place of an adapter: the model without one
ADAPTER_HELP = "an adapter file, a run folder, a hub id, or an adapter's text (tl1:...)"
Quantize = Literal["none", "nf4", "int8"]


class OnItsBase(Settings):
    """How an adapter's base model is loaded, and whether the adapter must be its own."""

    dtype: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="precision of the base model (auto: fp32 on a CPU, bf16 on a GPU)",
    )
    quantize: Quantize | None = Field(
        default=None,
        description="how the base model is quantised (default: as the run's or the adapter's was)",
    )
    device: str = Field(
        default="auto", description="where the model runs: auto, cpu, cuda, cuda:1, ..."
    )
    force: bool = Field(
        default=False,
        description="load an adapter onto a base model different from its own: it then acts on "
        "other singular vectors than it was trained for",
    )


class Asked(OnItsBase, TaskConfig):
    """What `eval` and `diff` share: a model with or without an adapter, and a task's problems."""

    model: Annotated[str | None, OrNone] = Field(
        default=None,
        description="pocket, a local folder, or a hub id (none: the run's or the adapter's, else "
        "pocket)",
    )
    adapter: Annotated[str | None, OrNone] = Field(
        default=None, description=f"{ADAPTER_HELP} (none: the base model)", title="ADAPTER"
    )
    task: str = Field(default="pocket", description=TASK_HELP)
    split: Literal["train", "test"] = Field(
        default="test", description="which problems of the task"
    )
    eval_problems: int = Field(default=512, ge=1, description="how many problems, from the first")
    max_new_tokens: Annotated[int | None, OrNone] = Field(
        default=None,
        ge=1,
        description="completion budget in tokens (none: the run's or task's)",
    )
    seed: int = Field(default=0, ge=0, description="seed of the samples and of the random controls")
    json_file: Annotated[str | None, OrNone] = Field(
        default=None,
        description="also write everything that was measured to this file (none: no file)",
        title="FILE",
    )

    @model_validator(mode="after")
    def _can_be_written(self) -> Self:
        check_writable("json", self.json_file)
        return self


class EvalConfig(Asked):
    """Which model and adapter are measured, on what, and how."""

    compare: Annotated[str | None, OrNone] = Field(
        default=None,
        description="the adapter to test against on the same problems, or base; without "
        "--adapter: two adapters, or one against the base model (none: nothing)",
        title="ADAPTER",
    )
    eval_samples: int = Field(
        default=4,
        ge=1,
        description="answers to each problem for the sampled figures: k of mean@k, pass@k and "
        "majority@k",
    )
    temperature: float = Field(
        default=1.0,
        gt=0,
        description="temperature of the sampled answers; greedy ones are always measured",
    )
    controls: bool = Field(
        default=False,
        description="also measure the base model, the zero adapter and ten random v of the same "
        "norm",
    )
    side_effects: bool = Field(
        default=False,
        description="also measure what the adapter does to a text that has nothing to do with the "
        "task: the language-model loss before and after",
    )
    text: Annotated[str | None, OrNone] = Field(
        default=None,
        description="of side effects: a text file (none: the one that ships)",
        title="FILE",
    )

    @property
    def adapters(self) -> list[str]:
        """The adapters that are measured, without the base model."""
        return [name for name in (self.adapter, self.compare) if name not in (None, BASE)]

    def idle(self) -> dict[str, str]:
        reason = "without side_effects, so no text is read. Add --side-effects, or leave text out."
        return {} if self.side_effects else {"text": reason}

    @model_validator(mode="after")
    def _measures_an_adapter(self) -> Self:
        for name, what in (
            ("controls", "compares an adapter with the zero adapter and random ones"),
            ("side_effects", "compares an adapter with its base model"),
        ):
            if getattr(self, name) and self.adapter in (None, BASE):
                raise ValueError(
                    f"{name} = true {what}, but no adapter was given. Name it with --adapter."
                )
        if self.force and not self.adapters:
            raise ValueError(
                "force = true loads an adapter onto another base, but no adapter was given. Name "
                "it with --adapter, or leave force out."
            )
        return self


def check_writable(name: str, file: str | None) -> None:
    """Refuse a file that could only fail after everything was measured."""
    path = Path(file or "file")
    if not path.parent.is_dir():
        raise ValueError(
            f"{name} = {path}, but the folder {path.parent} does not exist. Create it first."
        )
    if path.is_dir():
        raise ValueError(f"{name} = {path} is a folder. Name a file in it.")


SAMPLED = ("eval_samples", "temperature")
RECORDED = (  # what is as it was in the run, whatever the task
    "model", "task", "eval_problems", *SAMPLED, "max_new_tokens", "seed", "dtype", "quantize",
)  # fmt: skip
TRUSTED = ("unsafe_no_sandbox",)  # asked for anew each time: a run folder may be somebody else's


def eval_config(given: Mapping[str, Any]) -> EvalConfig:
    """The request; what was not given is as in the run that the adapters belong to, if any."""
    run = recorded_run([given.get("adapter"), given.get("compare")])
    return EvalConfig(**{**of_the_run(run, given, RECORDED), **given})


def of_the_run(
    run: Mapping[str, Any], given: Mapping[str, Any], recorded_names: Sequence[str]
) -> dict[str, Any]:
    """What a request takes from the run that its adapter belongs to.

    How the task is read and graded is as it was only for the run's own task.
    """
    names = {*recorded_names, *CHAT_FIELDS}
    if given.get("task") in (None, run.get("task")):
        names |= TASK_FIELDS.keys() - {*TRUSTED}
    return {name: run[name] for name in run if name in names}


def recorded_run(adapters: Sequence[str | None]) -> dict[str, Any]:
    """The settings of the first of these adapters that belongs to a run; else none."""
    recipes = [os.path.join(run_folder(name), "config.yaml") for name in adapters if name]
    return next((recorded(recipe) for recipe in recipes if os.path.isfile(recipe)), {})


def run_folder(adapter: str) -> str:
    """The run of an adapter: its folder, or that of a file in it, its `best/` or `snapshots/`."""
    # by os.path: an adapter's text is not a path, and may be too long for one
    folder = os.path.normpath(os.path.dirname(adapter) if os.path.isfile(adapter) else adapter)
    is_inside = os.path.basename(folder) in ("best", SNAPSHOTS)
    return os.path.dirname(folder) if is_inside else folder
