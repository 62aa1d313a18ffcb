"""What a run needs, checked and loaded, before anything is computed or written.

`--dry-run` makes the same checks on a model without weights; only `check_model` needs them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

from tinylora.adapter import freedom
from tinylora.adapter.modules import LinearMap, linear_maps, passes_gradient, resolved
from tinylora.adapter.sharing import budget, groups_of
from tinylora.algorithms.batching import check_model
from tinylora.algorithms.npg import check_size
from tinylora.algorithms.trackers import missing_tracker
from tinylora.algorithms.validation import hold_out
from tinylora.errors import RequestError
from tinylora.evaluate.exam import Exam
from tinylora.methods import method_of
from tinylora.models import (
    DTYPES,
    Base,
    check_context,
    evaluation_mode,
    from_loaded,
    load_model,
    load_skeleton,
    load_tokenizer,
    place_of,
    quantization_of,
    resolved_dtype,
)
from tinylora.prompts import Text, encode_problem, fitting, text_of
from tinylora.rollout.engine import Sampling
from tinylora.rollout.past import check_past
from tinylora.run.engines import check_engine
from tinylora.run.memory import Memory, estimate, fitted, free_bytes
from tinylora.settings import IN_PYTHON, Npg, TrainConfig, with_budget
from tinylora.tasks import load_task
from tinylora.tasks.controls import controlled
from tinylora.tasks.draw import draw_problems
from tinylora.tasks.functions import Reward, rewarded, try_grader
from tinylora.tasks.task import Problem, Task, check_task
from tinylora.tasks.twins import with_twins

MOST_PROMPTS = 10_000  # more training problems than that are not all encoded before the run,
FIRST_PROMPTS = 1_000  # but as many as are drawn first


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs, checked, loaded and resolved.

    Args:
        task: the training problems; its grader is the user's reward, where one was given.
        exam: the test problems, before and after training.
        validation: problems held out of training, asked every `eval_every` steps.
        sampling: of the rollouts.
    """

    config: TrainConfig
    base: Base
    task: Task
    text: Text
    sampling: Sampling
    exam: Exam
    validation: Exam | None


def prepare(
    config: TrainConfig,
    model: Any = None,
    tokenizer: Any = None,
    task: Task | str | None = None,
    reward: Reward | None = None,
) -> Prepared:
    """Load and check what a run needs, before anything is computed or written.

    Raises:
        RequestError: a name is unknown, or task, model and settings do not fit together.
    """
    if isinstance(task, str):
        config, task = config.model_copy(update={"task": task}), None
    found = load_task(config.task, config) if task is None else with_twins(check_task(task, "task"))
    config = fit_to_gpu(config, found, model, tokenizer)
    base = _base(config, model, tokenizer)
    config = resolve_budget(_as_loaded(config, base, task), base.model)
    text = text_of(base, config)
    if reward is not None:
        found = rewarded(found, reward, text.tokenize)
    else:
        try_grader(found)
    budget = config.max_new_tokens or found.max_new_tokens
    found = fitting(found, base.model, text.encode, config, budget)
    layers = check_request(config, found, base.model, text.encode)
    with evaluation_mode(base.model):
        _check_gradient(layers)
        if not config.fsdp:  # then the sharded model is checked, before the first step
            check_model(base.model)
    training, held_out = hold_out(found, config)
    if config.reward_control is not None:
        training = controlled(training, config.reward_control, config.seed)

    def exam(problems: Sequence[Problem]) -> Exam:
        return Exam(
            found,
            text,
            list(problems),
            temperature=config.temperature,
            samples=config.eval_samples,
            seed=config.seed,
            max_new_tokens=budget,
        )

    return Prepared(
        config,
        base,
        training,
        text,
        Sampling(config.temperature, budget, text.eos_token_ids),
        exam(found.test[: config.eval_problems]),
        exam(held_out) if held_out else None,
    )


def linear_layers(prepared: Prepared) -> list[LinearMap]:
    """The linear layers that the run adapts."""
    settings = prepared.config.adapter
    return linear_maps(prepared.base.model, settings.targets, settings.layers)


def resolve_budget(config: TrainConfig, model: Any) -> TrainConfig:
    """Put in what depends on the model: names of layers, the sharing, and `params` as u and
    num_groups."""
    config = config.model_copy(update={"adapter": resolved(config.adapter, model)})
    if config.params is None:
        return config
    num_modules = len(linear_maps(model, config.adapter.targets, config.adapter.layers))
    return with_budget(config, *budget(config.params, num_modules))


def check_request(
    config: TrainConfig, task: Task, model: Any, encode: Callable[[Problem], list[int]]
) -> list[LinearMap]:
    """Refuse what cannot be run, by the model's shapes alone; returns the linear layers to adapt.

    Raises:
        RequestError: settings, task and model do not fit together.
    """
    _check_parts(task, config.track)
    check_engine(config, config.model)
    if config.rollout == "transformers":
        check_past(model)
    settings = config.adapter
    maps = linear_maps(model, settings.targets, settings.layers)
    groups_of([linear.name for linear in maps], settings)
    _check_rank(maps, settings.rank)
    if isinstance(config.learning, Npg):
        check_size(method_of(config.method).count(maps, settings))
    training, held_out = hold_out(task, config)
    problems = [*task.test[: config.eval_problems], *held_out, *first_problems(config, training)]
    prompts = [encode(problem) for problem in problems]
    check_context(model, prompts, config.max_new_tokens or task.max_new_tokens)
    return maps


def fit_to_gpu(config: TrainConfig, task: Task, model: Any, tokenizer: Any) -> TrainConfig:
    """The settings with micro-batches and checkpointing that fit the GPU, if the run has one.

    A model that is named is not loaded yet: what cannot fit is refused before. With `fsdp` the
    settings stay, because what a process holds is known after the split alone.

    Raises:
        RequestError: nothing fits.
    """
    free = free_bytes(place_of(config.device))
    if free is None or config.fsdp:
        return config
    is_loaded = model is not None and not isinstance(model, str)
    if not is_loaded:
        name = model or config.model
        model, tokenizer = load_skeleton(name), load_tokenizer(name)
    dtype = resolved_dtype(config.dtype, config.device)
    resolved_config = resolve_budget(config.model_copy(update={"dtype": dtype}), model)
    encode = partial(encode_problem, tokenizer, settings=config)
    memory_of = estimator(resolved_config, task, model, encode)
    if is_loaded:
        free += memory_of(resolved_config).weights
    learning = fitted(resolved_config, free, memory_of).learning
    return config.model_copy(update={"learning": learning})


def estimator(
    config: TrainConfig, task: Task, model: Any, encode: Callable[[Problem], list[int]]
) -> Callable[[TrainConfig], Memory]:
    """The memory of a run, as a function of settings that leave model and task as they are.

    Args:
        config: with `dtype` and the parameters' budget resolved.
        model: with or without weights.
    """
    maps = linear_maps(model, config.adapter.targets, config.adapter.layers)
    num_trainable = method_of(config.method).count(maps, config.adapter)
    problems = [*task.test[: config.eval_problems], *first_problems(config, task)]
    longest = max(len(encode(problem)) for problem in problems)
    most = config.max_new_tokens or task.max_new_tokens
    return lambda settings: estimate(model, maps, settings, num_trainable, longest, most)


def _base(config: TrainConfig, model: Any, tokenizer: Any) -> Base:
    if model is None or isinstance(model, str):
        name = model or config.model
        if config.fsdp:  # the device need not hold it: it gets its part after the attachment
            dtype = resolved_dtype(config.dtype, config.device)
            return load_model(name, dtype, "cpu", attention=config.attention)
        return load_model(
            name, config.dtype, config.device, config.quantize, attention=config.attention
        )
    if config.quantize not in ("none", quantization_of(model)):
        raise RequestError(
            f"quantize = {config.quantize} cannot be applied to a {type(model).__name__} that is "
            "already loaded. Pass its name instead, or load it with "
            f'tinylora.models.load_model(name, quantize="{config.quantize}").'
        )
    return from_loaded(model, tokenizer)


def _as_loaded(config: TrainConfig, base: Base, task: Task | None) -> TrainConfig:
    """The settings with what was loaded in place of what was asked for."""
    dtype = next((name for name, kind in DTYPES.items() if kind == base.model.dtype), config.dtype)
    loaded: dict[str, Any] = {"dtype": dtype, "quantize": quantization_of(base.model)}
    if task is not None:
        loaded["task"] = IN_PYTHON + task.name
    return config.with_rate_of(base.name).model_copy(update=loaded)


def _check_parts(task: Task, tracker: str | None) -> None:
    """What would otherwise be noticed only after the base model was measured."""
    for split, problems in (("training", task.train), ("test", task.test)):
        if not len(problems):
            raise RequestError(f"The task {task.name} has no {split} problems. Add some.")
    if tracker is not None and find_spec(tracker) is None:
        raise missing_tracker(tracker)


def _check_rank(maps: Sequence[LinearMap], rank: int) -> None:
    least = min(maps, key=lambda linear: min(linear.d_out, linear.d_in))
    if rank > min(least.d_out, least.d_in):
        raise RequestError(
            f"rank = {rank}, but {least.name} of shape ({least.d_out}, {least.d_in}) has only "
            f"{min(least.d_out, least.d_in)} singular directions. Use a smaller rank, or leave "
            "such modules out of targets."
        )


def _check_gradient(maps: Sequence[LinearMap]) -> None:
    """One layer of each kind is enough."""
    for linear in {type(linear.module): linear for linear in maps}.values():
        if not passes_gradient(linear):
            raise RequestError(
                f"{linear.name} is a {type(linear.module).__name__} whose backward pass does not "
                "give the gradient of what it computes: its kernel is for inference only, and "
                "training would learn nothing. Load the model again (bitsandbytes packs 4-bit "
                "weights for such a kernel at a first forward pass on some CPUs), or quantise it "
                "in another way."
            )


def first_problems(config: TrainConfig, task: Task) -> Sequence[Problem]:
    """All training problems, or of very many those that the first steps draw."""
    if len(task.train) <= MOST_PROMPTS:
        return task.train
    count = min(FIRST_PROMPTS, config.steps * config.learning.prompts_per_step)
    return draw_problems(task.train, count, config.seed, step=0)


def degrees_of_freedom(prepared: Prepared, num_trainable: int) -> int:
    """How many of the trained parameters are independent: the rank of the map v -> all R."""
    if not prepared.config.has_factors:
        return num_trainable
    names = [linear.name for linear in linear_layers(prepared)]
    settings = prepared.config.adapter
    return freedom.degrees_of_freedom(groups_of(names, settings), settings)
