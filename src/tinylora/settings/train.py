"""Every setting, its range and its default; where a recipe, the flags and Python meet.

In Python the adapter's settings are nested (`TrainConfig.adapter`). In a recipe and on the command
line all settings are flat, and `seed` is both the run's and the projections'; `flatten` and
`unflatten` go between the two. Values are checked here, when they are parsed; what depends on a
model (how many modules there are, how long its context is) is checked where the model is read.

Importing this module imports neither torch nor transformers.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from tinylora.errors import RequestError

SEVEN_MAPS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ENGINES = ("transformers", "vllm")
LAYER_BANDS = ("all", "early", "middle", "late")
TASK_HELP = "pocket, gsm8k, math, rg:NAME, ..., data.jsonl, or my_task.py:make"
TEXT_PREFIX = "tl1:"  # of an adapter as one line of text
TestSource = Literal["public", "private", "generated"]
IN_PYTHON = "python:"  # before the name of a task or a model that was given as an object


def _none_word(value: object) -> object:
    """`none` on the command line is YAML's null."""
    return None if isinstance(value, str) and value.lower() in ("none", "null") else value


def _comma_list(value: object) -> object:
    return tuple(filter(None, re.split(r"[,\s]+", value))) if isinstance(value, str) else value


OrNone = BeforeValidator(_none_word)
CommaList = BeforeValidator(_comma_list)


class _Settings(BaseModel):
    """Frozen, no unknown keys, and every failure is one `RequestError` in whole sentences."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RequestError(_sentences(error, type(self))) from None


class AdapterConfig(_Settings):
    """What is trained: how many numbers, where they act, and what they are multiplied with."""

    u: int = Field(default=13, ge=1, description="how many numbers each group of modules trains")
    rank: int = Field(
        default=2, ge=1, description="how many singular directions of each module are kept"
    )
    num_groups: Annotated[int | None, OrNone] = Field(
        default=1,
        ge=1,
        description="how many groups share their numbers (1: all tied; none: no sharing)",
    )
    sharing: Literal["tiled", "structured"] = Field(
        default="tiled",
        description="groups run along depth (tiled), or by type, then depth (structured)",
    )
    seed: int = Field(default=0, ge=0, description="the seed of the run and of the projections P")
    scale: bool = Field(default=True, description="U S R V^T (true) or U R V^T (false)")
    basis: Literal["svd", "random"] = Field(
        default="svd", description="U and V from the weights' SVD, or random orthonormal columns"
    )
    subspace: Literal["top", "middle"] = Field(
        default="top", description="which singular directions are kept"
    )
    projection: Literal["gaussian", "shared", "identity"] = Field(
        default="gaussian",
        description="P random for each module, one random P shared by all of them, or the unit "
        "matrices (with u = rank^2: LoRA-XS)",
    )
    targets: Annotated[tuple[str, ...], CommaList] = Field(
        default=SEVEN_MAPS, min_length=1, description="names of the linear maps that are adapted"
    )
    layers: str = Field(
        default="all",
        description="which blocks are adapted: all, early, middle, late, or a-b (from 0)",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.projection == "identity" and self.u != self.rank**2:
            raise ValueError(
                f'u = {self.u} with projection = "identity", but there is one unit matrix for each '
                f"of the rank^2 = {self.rank**2} places in R. Use u = {self.rank**2}."
            )
        if self.basis == "random" and self.subspace != "top":
            raise ValueError(
                f'subspace = "{self.subspace}" with basis = "random": random columns have no '
                'middle. Use basis = "svd", or leave subspace out.'
            )
        _check_layers(self.layers)
        return self


def _check_layers(layers: str) -> None:
    band = re.fullmatch(r"(\d+)-(\d+)", layers)
    if layers in LAYER_BANDS or (band and int(band[1]) <= int(band[2])):
        return
    raise ValueError(
        f'layers = "{layers}" names no blocks. Use all, early, middle, late (thirds), or a range '
        "such as 4-7: first and last block, counted from 0."
    )


class TaskConfig(_Settings):
    """How a task is read, asked and graded; a `TrainConfig` has these settings too, flat."""

    data: Annotated[str | None, OrNone] = Field(
        default=None, description="a local file or folder with the task's rows (none: the hub)"
    )
    prompt_template: Annotated[Literal["hash", "boxed", "simplerl"] | None, OrNone] = Field(
        default=None,
        description="how a mathematical question is put: answer after ####, in a box, or as "
        "SimpleRL does (none: the task's)",
    )
    reward_format: Literal["strict", "lenient"] = Field(
        default="strict",
        description="which answers count: in the format that the prompt asked for, or in any "
        "recognised form (both are always reported)",
    )
    answer_format: Literal["exact", "any", "boxed", "hash"] = Field(
        default="exact",
        description="how rows of your own (data.jsonl) are graded: the completion is the answer, "
        "or mathematics in any form, in a box, after ####",
    )
    level: Annotated[str | None, OrNone] = Field(
        default=None,
        description="which problems of task math to train on: 1 to 5, a range such as 3-5, "
        "hardest, or simplerl (none: all)",
    )
    sources: Annotated[tuple[str, ...], CommaList] = Field(
        default=(),
        description="which parts of a collection of programs: CODEFORCES,ATCODER,... or taco,... "
        "(none: all)",
    )
    difficulties: Annotated[tuple[str, ...], CommaList] = Field(
        default=(), description="which problems of CodeContests: A,B,EASY,... (none: all)"
    )
    test_sources: Annotated[tuple[TestSource, ...], CommaList] = Field(
        default=("public", "private", "generated"),
        min_length=1,
        description="which tests judge a program: public (in the statement), private, generated",
    )
    max_tests: int = Field(default=20, ge=1, description="tests that judge a program, at most")
    max_test_bytes: int = Field(
        default=100_000, ge=1, description="bytes of a problem's tests, at most"
    )
    tests_seed: int = Field(default=0, ge=0, description="the choice of tests, beyond the caps")
    scheme: Literal["binary", "graded"] = Field(
        default="graded",
        description="reward of a program: all tests or nothing; or 0.5 for compiling and 0.5 k/n "
        "for k of n tests",
    )
    factors: Annotated[tuple[str, ...], CommaList] = Field(
        default=(),
        description="factors of a program's reward by source or difficulty, such as "
        "CODEFORCES=1,EASY=0.5 (none: 1)",
    )
    output_compare: Literal["tokens", "exact", "float"] = Field(
        default="tokens", description="how a program's output is compared with the wanted one"
    )
    unsafe_no_sandbox: bool = Field(
        default=False, description="run programs without a wall around them (and warn)"
    )
    chat_template: Literal["auto", "off"] = Field(
        default="auto",
        description="ask through the tokenizer's chat template where it has one (auto), or as "
        "plain text (off: base models)",
    )
    enable_thinking: Annotated[bool | None, OrNone] = Field(
        default=None,
        description="what the chat template is told, for models that can think first, such as "
        "Qwen3 (none: nothing, the template decides)",
    )

    @field_validator("factors")
    @classmethod
    def _factors_are_some(cls, factors: tuple[str, ...]) -> tuple[str, ...]:
        for factor in factors:
            if not re.fullmatch(r"\w+=(1(\.0*)?|0?\.0*[1-9]\d*)", factor):
                raise ValueError(
                    f'factors = "{factor}", but a factor is NAME=NUMBER, the number above 0 and at '
                    "most 1, as in EASY=0.5."
                )
        return factors

    @model_validator(mode="after")
    def _level_is_one(self) -> Self:
        band = re.fullmatch(r"([1-5])(?:-([1-5]))?", self.level or "1")
        if self.level in ("hardest", "simplerl") or (band and band[1] <= (band[2] or band[1])):
            return self
        raise ValueError(
            f'level = "{self.level}" names no problems. Use 1 to 5, a range such as 3-5, hardest '
            "(5), or simplerl (SimpleRL's own set)."
        )


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
        if _none_word(values.get("learning_rate")) is None:
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


BUDGET_KEYS = ("u", "num_groups")
TASK_FIELDS = TaskConfig.model_fields
WHERE = ("targets", "layers", "seed")  # which maps are adapted, and the one seed
READ_BY_METHOD = {  # settings of the adapter; tinylora reads all of them
    "lora-xs": (*WHERE, "rank", "num_groups", "sharing", "scale", "basis", "subspace"),
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
CHAT_FIELDS = ("chat_template", "enable_thinking")  # of them, those that belong to the model
FIELDS = {  # the flat settings, in the order in which help and config.yaml show them
    **{
        name: field
        for name, field in TrainConfig.model_fields.items()
        if name != "adapter" and name not in TASK_FIELDS
    },
    **TASK_FIELDS,
    **AdapterConfig.model_fields,
}


def flatten(config: TrainConfig) -> dict[str, Any]:
    """The settings as one flat mapping, as `config.yaml` and recipes hold them."""
    values = {**config.adapter.model_dump(mode="json"), **config.model_dump(mode="json")}
    unset = set(() if config.params is None else BUDGET_KEYS)
    if (read := READ_BY_METHOD.get(config.method)) is not None:
        unset |= {name for name in AdapterConfig.model_fields if name not in read} | {"params"}
    return {name: values[name] for name in FIELDS if name not in unset}


def unflatten(settings: Mapping[str, Any], source: str = "the settings") -> TrainConfig:
    """Flat settings to a checked `TrainConfig`.

    Args:
        settings: flat names to values, as YAML or the command line give them.
        source: where they stand, for the sentence about an unknown key.

    Raises:
        RequestError: an unknown key (with the nearest spelling), or a value out of its range.
    """
    for name in settings:
        if name not in FIELDS:
            raise RequestError(f"{name} is no setting ({source}).{nearest(name, FIELDS)}")
    adapter = {name: settings[name] for name in settings if name in AdapterConfig.model_fields}
    rest = {name: settings[name] for name in settings if name not in adapter}
    return TrainConfig(adapter=AdapterConfig(**adapter), **rest)


def with_budget(config: TrainConfig, u: int, num_groups: int) -> TrainConfig:
    """The settings with `params` spent as `u` numbers for each of `num_groups` groups."""
    settings = {name: value for name, value in flatten(config).items() if name != "params"}
    return unflatten({**settings, "u": u, "num_groups": num_groups})


def combine(recipe: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags over a recipe; a flag that sets the budget replaces the recipe's whole budget."""
    dropped: tuple[str, ...] = ()
    if "params" in flags:
        dropped = BUDGET_KEYS
    elif any(name in flags for name in BUDGET_KEYS):
        dropped = ("params",)
    return {**{name: recipe[name] for name in recipe if name not in dropped}, **flags}


def load_recipe(path: str | Path) -> dict[str, Any]:
    """The flat settings that a YAML file gives.

    Raises:
        RequestError: the file is missing, is not YAML, or holds an unknown key.
    """
    path = Path(path)
    if not path.is_file():
        raise RequestError(
            f"There is no recipe {path}. Give the path of a YAML file, or leave it out and use "
            'options ("tinylora train --help").'
        )
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise RequestError(
            f'{path} holds a {type(settings).__name__}, but a recipe is lines of "setting: value".'
        )
    for name in settings:
        if name not in FIELDS:
            raise RequestError(f"{path}: {name} is no setting.{nearest(str(name), FIELDS)}")
    return settings


def settings_yaml(config: TrainConfig) -> str:
    """All settings as a recipe that gives this very run."""
    return yaml.safe_dump(flatten(config), sort_keys=False, default_flow_style=None, width=100)


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean ...?`, or nothing where no known name is near."""
    matches = difflib.get_close_matches(name.replace("-", "_"), list(known), n=1)
    return f" Did you mean {matches[0]}?" if matches else ""


def _explicit(settings: AdapterConfig) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.model_fields_set}


def _sentences(error: ValidationError, model: type[BaseModel]) -> str:
    """Pydantic's findings as sentences: the setting, its value, the rule, its meaning."""
    findings = [f for f in error.errors() if f["type"] != "default_factory_not_called"]
    return "\n".join(_sentence(finding, model) for finding in findings)


def _sentence(finding: Any, model: type[BaseModel]) -> str:
    if finding["type"] == "value_error":
        return str(finding["ctx"]["error"])
    name = str(finding["loc"][0]) if finding["loc"] else ""
    if finding["type"] == "extra_forbidden":
        return f"{name} is no setting of {model.__name__}.{nearest(name, model.model_fields)}"
    rule = _RULES.get(finding["type"], finding["msg"]).format(**finding.get("ctx", {}))
    field = model.model_fields.get(name)
    meaning = f": {field.description}" if field and field.description else ""
    return f"{name} = {finding['input']}, but it must be {rule}{meaning}."


_RULES = {  # pydantic's kinds of error, as the end of "but it must be ..."
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt:g}",
    "less_than": "below {lt:g}",
    "literal_error": "{expected}",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "too_short": "a list of at least {min_length}",
}
