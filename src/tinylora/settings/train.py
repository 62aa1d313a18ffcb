"""One training run: what is trained on what, how, and where it goes."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tinylora.settings.adapter import AdapterConfig
from tinylora.settings.base import OrNone, none_word
from tinylora.settings.task import TASK_FIELDS, TASK_HELP, TaskConfig

ENGINES = ("transformers", "vllm")
IN_PYTHON = "python:"  # before the name of a task or a model that was given as an object


class TrainConfig(TaskConfig):
    """One training run."""

    adapter: AdapterConfig = AdapterConfig()
    params: Annotated[int | None, OrNone] = Field(
        default=None, ge=1, description="how many numbers to train in all: picks u and num_groups"
    )
    model: str = Field(default="pocket", description="pocket, a local folder, or a hub id")
    task: str = Field(default="pocket", description=TASK_HELP)
    method: Literal["tinylora", "lora", "lora-xs", "vera", "bias-only", "full"] = Field(
        default="tinylora", description="what is trained"
    )
    algorithm: Literal["grpo", "sft", "cma-es", "random-search"] = Field(
        default="grpo",
        description="how it is trained: by rewards, on reference solutions, or without gradients",
    )
    rollout: str = Field(
        default="transformers",
        description="the engine that samples: transformers, vllm (in this process), or addresses "
        "of vLLM servers, http://HOST:PORT[,...]",
    )
    rollout_tolerance: Annotated[float | None, OrNone] = Field(
        default=None,
        gt=0,
        description="mean difference between the engine's log-probabilities and the trainer's at "
        "which a run stops (none: 0.01 in fp32, 0.1 in half precision)",
    )
    rollout_cache_gib: Annotated[float | None, OrNone] = Field(
        default=None,
        gt=0,
        description="memory for vLLM's keys and values in this process (none: 1 on a CPU, else 8)",
    )
    rollout_timeout_s: float = Field(
        default=600.0, gt=0, description="how long a vLLM server may take for one answer"
    )
    adapter_dir: Annotated[str | None, OrNone] = Field(
        default=None,
        description="a folder that trainer and vLLM servers see under the same path, for the "
        "adapters (none: /dev/shm)",
    )
    quantize: Literal["none", "nf4", "int8"] = Field(
        default="none",
        description="how the base model is quantised while it is loaded (nf4 with double "
        "quantisation, int8: LLM.int8; v stays fp32)",
    )
    seed: int = Field(default=0, ge=0, description="the seed of the run and of the projections P")
    steps: int = Field(default=60, ge=1, description="how many GRPO steps")
    max_minutes: Annotated[float | None, OrNone] = Field(
        default=None, gt=0, description="stop training after so many minutes (none: no limit)"
    )
    prompts_per_step: int = Field(default=32, ge=1, description="problems in a step")
    samples_per_prompt: int = Field(
        default=8,
        ge=2,
        description="completions of each problem; their mean reward is the baseline",
    )
    temperature: float = Field(
        default=1.0, gt=0, description="sampling temperature of the rollouts"
    )
    references: Literal["task", "own"] = Field(
        default="task",
        description="what SFT learns: the task's solutions, or the base model's own right samples",
    )
    population: Annotated[int | None, OrNone] = Field(
        default=None,
        ge=2,
        description="candidates in a step of cma-es or random-search (none: 4 + 3 ln n)",
    )
    restarts: int = Field(
        default=0, ge=0, description="restarts of cma-es with twice the population"
    )
    sigma: float = Field(
        default=0.5, gt=0, description="spread of the first candidates of cma-es or random-search"
    )
    max_new_tokens: Annotated[int | None, OrNone] = Field(
        default=None, ge=1, description="completion budget in tokens (none: the task's)"
    )
    learning_rate: float = Field(
        default_factory=lambda settings: default_rate(
            settings.get("model"), settings.get("method")
        ),
        gt=0,
        description="Adam's step size (none: by method; 5e-2 for tinylora on pocket, 2e-4 on other "
        "models, the top of the paper's sweep)",
    )
    warmup_steps: int = Field(
        default=5, ge=0, description="steps over which the rate rises from zero"
    )
    schedule: Literal["constant", "cosine", "linear"] = Field(
        default="cosine", description="how the rate falls after the warm-up"
    )
    adam_beta1: float = Field(default=0.9, ge=0, lt=1, description="Adam's decay of the mean")
    adam_beta2: float = Field(default=0.95, ge=0, lt=1, description="Adam's decay of the square")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32",
        description="precision in which the numbers are trained: below fp32 they are rounded after "
        "every step, as figure 4 compares",
    )
    max_grad_norm: float = Field(
        default=1.0, gt=0, description="the gradient of v is clipped to this norm"
    )
    normalize_std: bool = Field(
        default=True, description="divide advantages by the standard deviation of their group"
    )
    clip_low: float = Field(
        default=0.2, ge=0, lt=1, description="importance ratio is clipped at 1 - this"
    )
    clip_high: float = Field(
        default=0.2, ge=0, description="importance ratio is clipped at 1 + this"
    )
    num_iterations: int = Field(
        default=1, ge=1, description="optimiser passes over each batch of rollouts"
    )
    kl_coef: float = Field(default=0.0, ge=0, description="weight of the KL to the base model")
    importance_cap: Annotated[float | None, OrNone] = Field(
        default=2.0,
        gt=0,
        description="cap of the weights trainer / rollout engine (none: no correction)",
    )
    normalizer: Literal["token", "sequence", "constant"] = Field(
        default="constant",
        description="the loss is divided by tokens, per completion, or by the budget",
    )
    micro_batch_tokens: Annotated[int | None, OrNone] = Field(
        default=None,
        ge=1,
        description="tokens in one forward and backward pass (none: 2048 on a CPU, else 16384)",
    )
    activation_checkpointing: bool = Field(
        default=False,
        description="blocks run again in the backward pass instead of keeping their activations: "
        "less memory, a third more time",
    )
    fsdp: bool = Field(
        default=False,
        description="split the base model's blocks over the processes (FSDP2), for a model that "
        "one device cannot hold",
    )
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="precision of the base model (auto: fp32 on a CPU, bf16 on a GPU)",
    )
    device: str = Field(
        default="auto", description="where the model runs: auto, cpu, cuda, cuda:1, ..."
    )
    store: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", description="precision in which the adapter file holds its numbers"
    )
    checkpoint_every: int = Field(default=10, ge=1, description="steps between two checkpoints")
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
        description="training problems that are held out for that (one in five at most)",
    )
    output: Annotated[str | None, OrNone] = Field(
        default=None, description="the run folder (none: a new one under runs/)"
    )
    track: Annotated[Literal["tensorboard", "wandb", "trackio"] | None, OrNone] = Field(
        default=None, description="also send the metrics to a tracker (none: metrics.jsonl alone)"
    )

    @property
    def has_factors(self) -> bool:
        """Whether the method is TinyLoRA's layer, or LoRA-XS, which is a case of it."""
        return self.method in ("tinylora", "lora-xs")

    @model_validator(mode="before")
    @classmethod
    def _one_seed(cls, values: dict[str, Any]) -> dict[str, Any]:
        """One seed serves the run and the projections, wherever it was given."""
        adapter = values.get("adapter", {})
        given = dict(adapter) if isinstance(adapter, Mapping) else _explicit(adapter)
        parsed = [
            AdapterConfig(seed=held["seed"]).seed for held in (values, given) if "seed" in held
        ]
        if len(set(parsed)) > 1:
            raise ValueError(
                f"seed = {parsed[0]} beside adapter.seed = {parsed[1]}, but one seed "
                "serves the run and its projections. Give one of the two."
            )
        seed = parsed[0] if parsed else 0
        settings = _of_method(values.get("method", "tinylora"), {**given, "seed": seed})
        return {**values, "seed": seed, "adapter": AdapterConfig(**settings)}

    @model_validator(mode="before")
    @classmethod
    def _no_rate_is_the_default(cls, values: dict[str, Any]) -> dict[str, Any]:
        if none_word(values.get("learning_rate")) is None:
            return {name: value for name, value in values.items() if name != "learning_rate"}
        return values

    @field_validator("rollout")
    @classmethod
    def _names_an_engine(cls, rollout: str) -> str:
        if rollout in ENGINES or server_addresses(rollout):
            return rollout
        raise ValueError(
            f'rollout = "{rollout}" is no engine. Use {" or ".join(ENGINES)}, or addresses of vLLM '
            "servers such as http://localhost:8000, separated by commas."
        )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.params is not None and self.method != "tinylora":
            raise ValueError(
                f"params = {self.params} with method = {self.method}, whose count follows from "
                "its rank and its maps. Leave params out, or use method = tinylora."
            )
        if self.eval_every is not None and self.eval_every > self.steps:
            raise ValueError(
                f"eval_every = {self.eval_every}, but the run has {self.steps} steps, so it would "
                f"never be validated. Use eval_every <= {self.steps}."
            )
        if self.fsdp and not self.has_factors:
            raise ValueError(
                f"fsdp = true with method = {self.method}, but weights are split that are frozen, "
                "beside an adapter that is no part of the model. Use method = tinylora or lora-xs."
            )
        if self.fsdp and self.quantize != "none":
            raise ValueError(
                f"fsdp = true with quantize = {self.quantize}, but codes cannot be split like "
                "weights. Leave one of the two out."
            )
        chosen = [name for name in BUDGET_KEYS if name in self.adapter.model_fields_set]
        if self.params is not None and chosen:
            raise ValueError(
                f"params = {self.params} beside {' and '.join(chosen)}, but params picks u and "
                "num_groups itself. Give either params, or u and num_groups."
            )
        return self


def server_addresses(rollout: str) -> list[str]:
    """The addresses that `rollout` lists; none where it is anything else."""
    parts = [part.strip().rstrip("/") for part in rollout.split(",")]
    return parts if all(re.fullmatch(r"https?://[^\s/]+(/\S*)?", part) for part in parts) else []


def default_rate(model: str | None, method: str | None = "tinylora") -> float:
    """The learning rate where none is given."""
    on_pocket, elsewhere = DEFAULT_RATES.get(method or "", DEFAULT_RATES["tinylora"])
    return on_pocket if model == "pocket" else elsewhere


def _of_method(method: str, adapter: dict[str, Any]) -> dict[str, Any]:
    """The adapter's settings as the method has them; refuses those that it does not read."""
    read = READ_BY_METHOD.get(method)
    if read is None:  # all, or an unknown method, which the field itself refuses
        return adapter
    rank = AdapterConfig(**{name: adapter[name] for name in ("rank",) if name in adapter}).rank
    fixed = {"u": rank**2, "projection": "identity"}
    for name in adapter:
        held = method == "lora-xs" and name in fixed and adapter[name] == fixed[name]
        if name not in read and not held:
            raise ValueError(
                f"{name} = {adapter[name]} with method = {method}, which has no {name}. Leave it "
                "out, or use method = tinylora."
            )
    return {"num_groups": None, **adapter, **fixed} if method == "lora-xs" else adapter


BUDGET_KEYS = ("u", "num_groups", "n_tie")
WHERE = ("targets", "layers", "seed")  # which maps are adapted, and the one seed
READ_BY_METHOD = {  # settings of the adapter; tinylora reads all of them
    "lora-xs": (*WHERE, "rank", "num_groups", "n_tie", "sharing", "scale", "basis", "subspace"),
    "lora": (*WHERE, "rank"),
    "vera": (*WHERE, "rank"),
    "bias-only": WHERE,
    "full": WHERE,
}
DEFAULT_RATES = {  # (on pocket: docs/results.md, on other models)
    "tinylora": (5e-2, 2e-4),
    "lora-xs": (3e-2, 2e-4),
    "lora": (4e-3, 1e-5),
    "vera": (4e-2, 1e-4),
    "bias-only": (1e-2, 1e-5),
    "full": (3e-4, 1e-6),
}
FIELDS = {  # the flat settings, in the order in which help and config.yaml show them
    **{
        name: field
        for name, field in TrainConfig.model_fields.items()
        if name != "adapter" and name not in TASK_FIELDS
    },
    **TASK_FIELDS,
    **AdapterConfig.model_fields,
}


def _explicit(settings: AdapterConfig) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.model_fields_set}
