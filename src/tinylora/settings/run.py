"""The run itself: what is trained on what, for how long, where, and what it leaves behind."""

from typing import Annotated, Literal

from pydantic import Field

from tinylora.settings.base import OrNone, Settings
from tinylora.settings.tasks import TASK_HELP

IN_PYTHON = "python:"  # before the name of a task or a model that was given as an object


class RunSettings(Settings):
    """What is trained on what, and for how long."""

    model: str = Field(
        default="pocket",
        description="pocket, smollm2, a local folder, a GGUF file, a hub id, or modelscope:ID",
    )
    task: str = Field(default="pocket", description=TASK_HELP)
    method: str = Field(
        default="tinylora",
        title="METHOD",
        description="what is trained: tinylora, lora, lora-xs, vera, bias-only, full, or peft:NAME "
        "for another of PEFT's methods (peft:randlora)",
    )
    algorithm: Literal["grpo", "npg", "sft", "cma-es", "bayes", "random-search"] = Field(
        default="grpo",
        description="how it is trained: by rewards, on reference solutions, or without gradients",
    )
    params: Annotated[int | None, OrNone] = Field(
        default=None,
        ge=1,
        description=(
            "how many parameters to train in all: picks u and num_groups (none: those two decide)"
        ),
    )
    seed: int = Field(default=0, ge=0, description="the seed of the run and of the projections P")
    steps: int = Field(default=60, ge=1, description="how many training steps")
    max_minutes: Annotated[float | None, OrNone] = Field(
        default=None, gt=0, description="stop training after this many minutes (none: no limit)"
    )
    no_signal_steps: int = Field(
        default=10,
        ge=1,
        description="how many steps in a row may teach nothing: no group's rewards differ, or, "
        "for npg, the signal-to-noise ratio is at most 1",
    )
    on_no_signal: Literal["stop", "warn"] = Field(
        default="stop",
        description="when the signal is lost: stop with the last good parameters, or only warn",
    )

    def idle(self) -> dict[str, str]:
        if self.algorithm != "sft":
            return super().idle()
        reason = "with algorithm = sft, which has no rewards to watch. Leave it out."
        return {**super().idle(), "no_signal_steps": reason, "on_no_signal": reason}


class LoadSettings(Settings):
    """How a base model is loaded."""

    quantize: Literal["none", "nf4", "int8"] = Field(
        default="none",
        description="how the base model is quantised while it is loaded (nf4 with double "
        "quantisation, int8: LLM.int8; v stays fp32)",
    )
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="precision of the base model (auto: fp32 on a CPU, bf16 on a GPU)",
    )
    device: str = Field(
        default="auto", description="where the model runs: auto, cpu, cuda, cuda:1, ..."
    )


class ModelSettings(LoadSettings):
    """How the base model is loaded, and where it runs."""

    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3"] = Field(
        default="auto",
        description="implementation of attention; with a flash one, which needs a GPU and its "
        "package, micro-batches have no padding (auto: Transformers' choice)",
    )
    fsdp: bool = Field(
        default=False,
        description="split the base model's blocks over the processes (FSDP2), for a model that "
        "one device cannot hold",
    )


class SamplingSettings(Settings):
    """How completions are drawn, in training and in the evaluation."""

    rollout: str = Field(
        default="transformers",
        description="the engine that samples: transformers, vllm (in this process), or addresses "
        "of vLLM servers, http://HOST:PORT[,...]",
    )
    temperature: float = Field(
        default=1.0, gt=0, description="sampling temperature of rollouts and sampled accuracy"
    )
    max_new_tokens: Annotated[int | None, OrNone] = Field(
        default=None, ge=1, description="completion budget in tokens (none: the task's)"
    )


class OutputSettings(Settings):
    """What is measured, and what is kept."""

    eval_problems: int = Field(
        default=512, ge=1, description="test problems before and after training"
    )
    eval_samples: int = Field(
        default=4, ge=1, description="answers to each test problem for the sampled accuracy"
    )
    eval_every: Annotated[int | None, OrNone] = Field(
        default=None,
        ge=1,
        description="measure greedy accuracy on validation problems every N steps, and keep the "
        "best adapter beside the last (none: off)",
    )
    validation_problems: int = Field(
        default=256,
        ge=1,
        description="training problems held out for validation (one in five at most)",
    )
    snapshots: bool = Field(
        default=False,
        description="also keep the adapter after steps 1, 2, 4, 8, ... in snapshots/, each "
        "measured on the test problems at the end of the run",
    )
    checkpoint_every: int = Field(default=10, ge=1, description="steps between two checkpoints")
    store: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", description="precision of the parameters in the adapter file"
    )
    output: Annotated[str | None, OrNone] = Field(
        default=None, description="the run folder (none: a new one under runs/)"
    )
    track: Annotated[Literal["tensorboard", "wandb", "trackio"] | None, OrNone] = Field(
        default=None, description="also send the metrics to a tracker (none: only metrics.jsonl)"
    )

    def idle(self) -> dict[str, str]:
        reason = "without eval_every, so nothing is validated. Set eval_every, or leave "
        rest = "validation_problems out."
        found = {"validation_problems": reason + rest} if self.eval_every is None else {}
        return {**super().idle(), **found}
