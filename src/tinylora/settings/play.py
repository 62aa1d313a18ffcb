"""What `tinylora play` opens, where it listens, and what its page may ask."""

from typing import Annotated

from pydantic import Field

from tinylora.settings.adapter import AdapterConfig
from tinylora.settings.base import OrNone, Settings
from tinylora.settings.evaluate import EvalConfig

LOCAL = "127.0.0.1"
MAX_NUMBERS = 4096  # a slider each
MAX_CANDIDATES = 64
PLACED = ("u", "rank", "num_groups", "sharing", "layers", "targets")  # of a model without adapter
KEPT = ("model", "task", "split", "max_new_tokens", "dtype", "quantize", "device", "force")


class PlaySettings(Settings):
    """What is opened, and where the page is served."""

    source: Annotated[str | None, OrNone] = Field(
        default=None,
        title="ADAPTER|RUN|MODEL",
        description="an adapter file, a run folder, an adapter's text (tl1:...) or hub id; or a "
        "model: pocket, a local folder, a hub id (none: pocket, with a run that comes with it)",
    )
    problems: int = Field(
        default=64, ge=1, le=1024, description="how many problems the gauge shows, from the first"
    )
    host: str = Field(
        default=LOCAL,
        description="the address to listen on; any other than this machine's own lets others on "
        "the network use the model",
    )
    port: int = Field(
        default=8013, ge=0, le=65535, description="the port to listen on (0: any free one)"
    )
    browser: bool = Field(default=False, description="also open the page in the browser")


PLAY_FIELDS = {
    "options": PlaySettings.model_fields,
    "what is measured, and how": {name: EvalConfig.model_fields[name] for name in KEPT},
    "how a model without an adapter is adapted": {
        name: AdapterConfig.model_fields[name] for name in PLACED
    },
}


class Numbers(Settings):
    """v, its numbers in a row."""

    values: tuple[float, ...] = Field(max_length=MAX_NUMBERS, description="v, group after group")


class Ask(Numbers):
    """A question to the base model and to the one under v."""

    prompt: str = Field(min_length=1, max_length=16_000, description="what both models read")
    problem: int | None = Field(
        default=None, ge=0, description="the place of the problem that the prompt is, if it is one"
    )
    prompted: bool = Field(default=False, description="put the best prompt before the steered one")
    temperature: float = Field(default=0.0, ge=0, le=5, description="0: the likeliest token")
    seed: int = Field(default=0, ge=0, lt=2**63, description="of both answers")


class Measure(Settings):
    """Which candidates answer which problems."""

    candidates: tuple[tuple[float, ...], ...] = Field(
        min_length=1, max_length=MAX_CANDIDATES, description="one v each"
    )
    first: int = Field(default=0, ge=0, description="the place of the first problem")
    count: int = Field(default=1, ge=1, le=1024, description="how many problems")
    prompted: bool = Field(default=False, description="with the best prompt before each problem")


class Pasted(Settings):
    """An adapter's text."""

    text: str = Field(min_length=1, max_length=32_768, description="tl1:...")
