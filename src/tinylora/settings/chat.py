"""What `tinylora chat` opens, and how it answers."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from tinylora.settings.base import OrNone
from tinylora.settings.evaluate import OnItsBase, recorded_run
from tinylora.settings.tasks import CHAT_FIELDS, ChatSettings

RECORDED = ("model", "dtype", "quantize", *CHAT_FIELDS)  # as they were in the adapter's run


class ChatConfig(OnItsBase, ChatSettings):
    """A model with or without an adapter, and how it is asked."""

    source: Annotated[str | None, OrNone] = Field(
        default=None,
        title="ADAPTER|RUN|MODEL",
        description="an adapter file, a run folder, an adapter's text (tl1:...) or hub id; or a "
        "model: pocket, smollm2, a local folder, a GGUF file, a hub id (none: pocket, with a "
        "run that comes with it)",
    )
    model: Annotated[str | None, OrNone] = Field(
        default=None, description="the base of the adapter (none: the run's or the adapter's)"
    )
    system: Annotated[str | None, OrNone] = Field(
        default=None, title="TEXT", description="the system turn before the first line (none: none)"
    )
    max_new_tokens: int = Field(
        default=512, ge=1, description="the longest answer in tokens, where the context has room"
    )
    temperature: float = Field(
        default=0.0, ge=0, description="of the answers; 0 takes the likeliest token"
    )
    seed: int = Field(default=0, ge=0, description="seed of the answers, with a temperature")

    def idle(self) -> dict[str, str]:
        """Greedy answers draw nothing."""
        reason = "with temperature = 0, where nothing is drawn. Add --temperature, or leave it out."
        return {} if self.temperature else {"seed": reason}


def chat_config(given: Mapping[str, Any]) -> ChatConfig:
    """The request; what was not given is as in the run that the adapter belongs to, if any."""
    run = recorded_run([given.get("source")])
    return ChatConfig(**{**{name: run[name] for name in RECORDED if name in run}, **given})
