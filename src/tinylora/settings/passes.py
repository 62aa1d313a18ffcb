"""What algorithms with a backward pass share: its size, its schedule, Adam."""

from typing import Annotated, Literal

from pydantic import Field

from tinylora.settings.base import OrNone, Settings

Precision = Literal["fp32", "bf16", "fp16"]


class StepSettings(Settings):
    """What every algorithm reads: how many problems a step has."""

    prompts_per_step: int = Field(default=32, ge=1, description="problems per step")


class Passes(StepSettings):
    """How the model runs forward and backward."""

    micro_batch_tokens: Annotated[int | None, OrNone] = Field(
        default=None,
        ge=1,
        description="tokens in one forward and backward pass (none: 2048 on a CPU; on a GPU at "
        "most 16384, as its memory allows)",
    )
    activation_checkpointing: Annotated[bool | None, OrNone] = Field(
        default=None,
        description="run blocks again in the backward pass instead of keeping their activations: "
        "less memory, a third more time (none: where a GPU's memory asks for it)",
    )
    precision: Precision = Field(
        default="fp32",
        description="precision in which parameters are trained: below fp32 they are rounded after "
        "every step, as figure 4 compares",
    )


class Scheduled(Settings):
    """Steps whose size falls over the run."""

    schedule: Literal["constant", "cosine", "linear"] = Field(
        default="cosine", description="how the step size (learning_rate, step_kl) falls over a run"
    )


class Adam(Passes, Scheduled):
    """Steps by Adam."""

    learning_rate: Annotated[float | None, OrNone] = Field(
        default=None,
        gt=0,
        description="Adam's step size (none: depends on --method; 5e-2 for tinylora on pocket, "
        "2e-4 on other models, the top of the paper's sweep)",
    )
    warmup_steps: int = Field(
        default=5, ge=0, description="steps over which the learning rate rises from zero"
    )
    adam_beta1: float = Field(default=0.9, ge=0, lt=1, description="Adam's decay of the mean")
    adam_beta2: float = Field(default=0.95, ge=0, lt=1, description="Adam's decay of the square")
    max_grad_norm: float = Field(
        default=1.0, gt=0, description="the gradient is clipped to this norm"
    )

    @property
    def rate(self) -> float:
        """The learning rate; a `TrainConfig` fills in the default of its model and method."""
        assert self.learning_rate is not None
        return self.learning_rate
