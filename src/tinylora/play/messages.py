"""What the page may ask of the server: the bodies of its requests."""

from pydantic import Field

from tinylora.settings.base import Settings

MAX_NUMBERS = 4096  # a slider each
MAX_CANDIDATES = 64


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
