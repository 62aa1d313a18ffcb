"""What a run needs, checked and loaded, before anything is computed or written.

`--dry-run` makes the same checks on a model without weights; only `check_model` needs them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from tinylora.adapter.modules import LinearMap, linear_maps, passes_gradient
from tinylora.adapter.sharing import assign_groups, budget
from tinylora.algorithms.batching import check_model
from tinylora.algorithms.trackers import missing_tracker
from tinylora.algorithms.validation import hold_out
from tinylora.errors import RequestError
from tinylora.evaluate.exam import Exam
from tinylora.models import (
    DTYPES,
    Base,
    check_context,
    evaluation_mode,
    from_loaded,
    load_model,
    quantization_of,
    refuse_recurrent,
    resolved_dtype,
)
from tinylora.prompts import Text, text_of
from tinylora.run.engines import check_engine
from tinylora.settings import IN_PYTHON, TrainConfig, default_rate, with_budget
from tinylora.tasks import load_task
from tinylora.tasks.draw import draw_problems
from tinylora.tasks.functions import RewardFunction, as_grade
from tinylora.tasks.task import Grade, Problem, Task

MOST_PROMPTS = 10_000  # more training problems than that are not all encoded before the run,
FIRST_PROMPTS = 1_000  # but as many as are drawn first


@dataclass(frozen=True)
class Job:
    """Everything that a run needs, checked and loaded."""

    config: TrainConfig
    base: Base
    task: Task
    text: Text
    exam: Exam  # the test problems, before and after training
    validation: Exam | None  # problems held out of training, every `eval_every` steps
    grade: Grade | None


def prepare(
    config: TrainConfig,
    model: Any = None,
    tokenizer: Any = None,
    task: Task | str | None = None,
    reward: RewardFunction | None = None,
) -> Job:
    """Load and check what a run needs, before anything is computed or written.

    Raises:
        RequestError: a name is unknown, or task, model and settings do not go together.
    """
    if isinstance(task, str):
        config, task = config.model_copy(update={"task": task}), None
    found = load_task(config.task, config) if task is None else task
    base = _base(config, model, tokenizer)
    config = _as_loaded(config, base, task)
    config = resolve_budget(config, base.model)
    text = text_of(base, config)
    maps = check_request(config, found, base.model, text.encode)
    with evaluation_mode(base.model):
        _check_gradient(maps)
        if not config.fsdp:  # then the sharded model is checked, before the first step
            check_model(base.model)
    grade = None if reward is None else as_grade(reward, text.tokenize)
    training, held_out = hold_out(found, config)

    def exam(problems: Sequence[Problem]) -> Exam:
        return make_exam(config, found, text, list(problems), grade)

    validation = exam(held_out) if held_out else None
    tests = exam(found.test[: config.eval_problems])
    return Job(config, base, training, text, tests, validation, grade)


def make_exam(
    config: TrainConfig, task: Task, text: Text, problems: list[Problem], grade: Grade | None
) -> Exam:
    """These problems, asked as the settings say."""
    return Exam(
        task,
        text,
        problems,
        temperature=config.temperature,
        samples=config.eval_samples,
        seed=config.seed,
        max_new_tokens=config.max_new_tokens,
        grade=grade,
    )


def resolve_budget(config: TrainConfig, model: Any) -> TrainConfig:
    """Turn `params` into u and num_groups, which depend on how many modules the model has."""
    if config.params is None:
        return config
    num_modules = len(linear_maps(model, config.adapter.targets, config.adapter.layers))
    return with_budget(config, *budget(config.params, num_modules))


def check_request(
    config: TrainConfig, task: Task, model: Any, encode: Callable[[Problem], list[int]]
) -> list[LinearMap]:
    """Refuse what cannot be run, by the model's shapes alone; returns the maps to adapt.

    Raises:
        RequestError: settings, task and model do not go together.
    """
    _check_parts(config, task)
    check_engine(config, config.model)
    refuse_recurrent(model.config)
    settings = config.adapter
    maps = linear_maps(model, settings.targets, settings.layers)
    assign_groups([linear.name for linear in maps], settings.num_groups, settings.sharing)
    _check_rank(maps, settings.rank)
    training, held_out = hold_out(task, config)
    problems = [*task.test[: config.eval_problems], *held_out, *first_problems(config, training)]
    prompts = [encode(problem) for problem in problems]
    check_context(model, prompts, config.max_new_tokens or task.max_new_tokens)
    return maps


def _base(config: TrainConfig, model: Any, tokenizer: Any) -> Base:
    if model is None or isinstance(model, str):
        name = model or config.model
        if config.fsdp:  # the device need not hold it: it gets its part after the attachment
            return load_model(name, resolved_dtype(config.dtype, config.device), "cpu")
        return load_model(name, config.dtype, config.device, config.quantize)
    if config.quantize not in ("none", quantization_of(model)):
        raise RequestError(
            f"quantize = {config.quantize}, but the {type(model).__name__} that was given is "
            "loaded already, and not so. Give its name, or load it by "
            f'tinylora.models.load_model(name, quantize="{config.quantize}").'
        )
    return from_loaded(model, tokenizer)


def _as_loaded(config: TrainConfig, base: Base, task: Task | None) -> TrainConfig:
    """The settings with what was loaded in place of what was asked for."""
    dtype = next((name for name, kind in DTYPES.items() if kind == base.model.dtype), config.dtype)
    quantize = quantization_of(base.model)
    loaded: dict[str, Any] = {"model": base.name, "dtype": dtype, "quantize": quantize}
    if task is not None:
        loaded["task"] = IN_PYTHON + task.name
    if "learning_rate" not in config.model_fields_set:
        loaded["learning_rate"] = default_rate(base.name, config.method)
    return config.model_copy(update=loaded)


def _check_parts(config: TrainConfig, task: Task) -> None:
    """What would else be missed only after the base was measured."""
    for split, problems in (("training", task.train), ("test", task.test)):
        if not len(problems):
            raise RequestError(f"The task {task.name} has no {split} problems. Give it some.")
    if config.track is not None and find_spec(config.track) is None:
        raise missing_tracker(config.track)


def _check_rank(maps: Sequence[LinearMap], rank: int) -> None:
    least = min(maps, key=lambda linear: min(linear.d_out, linear.d_in))
    if rank > min(least.d_out, least.d_in):
        raise RequestError(
            f"rank = {rank}, but {least.name} of shape ({least.d_out}, {least.d_in}) has only "
            f"{min(least.d_out, least.d_in)} singular directions. Use a smaller rank, or leave "
            "such modules out of targets."
        )


def _check_gradient(maps: Sequence[LinearMap]) -> None:
    """One map of each kind of layer is enough."""
    for linear in {type(linear.module): linear for linear in maps}.values():
        if not passes_gradient(linear):
            raise RequestError(
                f"{linear.name} is a {type(linear.module).__name__} whose backward pass does not "
                "give the gradient of what it computes: its kernel is for inference, and training "
                "would be blind. Load the model anew (bitsandbytes packs 4-bit weights for such a "
                "kernel at a first forward pass on some CPUs), or quantise it otherwise."
            )


def first_problems(config: TrainConfig, task: Task) -> Sequence[Problem]:
    """All training problems, or of very many those that the first steps draw."""
    if len(task.train) <= MOST_PROMPTS:
        return task.train
    count = min(FIRST_PROMPTS, config.steps * config.prompts_per_step)
    return draw_problems(task.train, count, config.seed, step=0)
