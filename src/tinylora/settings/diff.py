"""What `tinylora diff` compares, under the names that a run's settings have."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tinylora.settings.base import OrNone
from tinylora.settings.evaluate import (
    ADAPTER_HELP,
    RECORDED,
    SAMPLED,
    Asked,
    check_writable,
    of_the_run,
    recorded_run,
)


class DiffConfig(Asked):
    """Whose answers are looked at, token by token."""

    adapter: str = Field(description=ADAPTER_HELP, title="ADAPTER")
    eval_problems: int = Field(default=128, ge=1, description="how many problems, from the first")
    answers: Literal["trained", "base"] = Field(
        default="trained", description="whose answers both models read"
    )
    temperature: float = Field(
        default=0.0,
        ge=0,
        description="of the answers (0: greedy); distributions are compared at temperature 1",
    )
    shown: int = Field(default=12, ge=1, description="how many answers the page shows in full")
    html: Annotated[str | None, OrNone] = Field(
        default=None,
        description="write a page of some answers, coloured by the KL of each token, to this file "
        "(none: no file)",
        title="FILE",
    )

    def idle(self) -> dict[str, str]:
        reason = "without html, so no answer is shown. Add --html FILE, or leave shown out."
        return {} if self.html else {"shown": reason}

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        check_writable("html", self.html)
        return self


def diff_config(given: Mapping[str, Any]) -> DiffConfig:
    """The request; model and task are as in the run that the adapter belongs to, if any."""
    run = recorded_run([given.get("adapter")])
    names = [name for name in RECORDED if name not in ("eval_problems", *SAMPLED)]
    return DiffConfig(**{**of_the_run(run, given, names), **given})
