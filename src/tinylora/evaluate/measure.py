"""What `tinylora eval` computes: the answers of one policy or two, and the controls."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinylora.adapter import hub, load
from tinylora.adapter.files import FILE_NAME, read
from tinylora.adapter.fingerprint import quantization
from tinylora.adapter.text import is_text
from tinylora.errors import RequestError
from tinylora.evaluate.estimators import paired
from tinylora.evaluate.exam import Exam, controls, summaries
from tinylora.evaluate.records import Evaluation, num_different
from tinylora.evaluate.side_effects import side_effects
from tinylora.methods import method_of
from tinylora.models import Base, check_context, load_model, stored_quantization
from tinylora.policy import Policy, UntrainedPolicy
from tinylora.prompts import fitting, text_of
from tinylora.rollout.transformers import TransformersEngine
from tinylora.settings import TASK_FIELDS, TrainConfig, recorded, unflatten
from tinylora.settings.evaluate import BASE, Asked, EvalConfig, run_folder
from tinylora.tasks import Problem, Task, load_task

Answers = dict[str, Evaluation]  # "greedy" and "sampled"


def measure(config: EvalConfig) -> dict[str, Any]:
    """Measure what the request names; returns all figures, and all answers under "problems".

    Raises:
        RequestError: controls of what is not a TinyLoRA adapter; names that do not fit together.
    """
    if config.controls and config.adapter and (run := _other_run(config.adapter)):
        raise RequestError(
            f"--controls draws random values for a TinyLoRA adapter, but {config.adapter} was "
            f"trained with method = {run.method}. Compare it with the base model: --compare base."
        )
    if config.force:
        _check_force(config.adapters)
    task = load_task(config.task, config)
    base = load_base(config.model, config.adapters, config.dtype, config.device, config.quantize)
    budget = config.max_new_tokens or task.max_new_tokens
    task = fitting(task, base.model, text_of(base, config).encode, config, budget)
    for note in task.notes:
        print(note)
    exam = make_exam(base, task, config)
    bare = exam.both(TransformersEngine(UntrainedPolicy(base.model))) if config.controls else None
    held: dict[str, Any] = {}
    with policy_of(base, config.adapter, config.force) as policy:
        first = exam.both(TransformersEngine(policy))
        if bare is not None:
            held["controls"] = measure_controls(exam, policy, bare, config.seed)
        if config.side_effects:
            held["side_effects"] = side_effects(base, policy, config.text)
    second = None
    if config.compare is not None:
        with policy_of(base, config.compare, config.force) as policy:
            second = exam.both(TransformersEngine(policy))
        held["compare"] = compared(exam, config.compare, first, second)
    problems = [problem_record(exam, i, first, second) for i in range(len(exam.problems))]
    return {**head(base, exam, config), **summaries(first), **held, "problems": problems}


def make_exam(base: Base, task: Task, config: EvalConfig) -> Exam:
    """The problems and how they are asked.

    Raises:
        RequestError: the split is empty, or a prompt and the completion budget do not fit into the
            model's context.
    """
    text, problems = text_of(base, config), asked_problems(task, config)
    budget = config.max_new_tokens or task.max_new_tokens
    check_context(base.model, [text.encode(problem) for problem in problems], budget)
    return Exam(task, text, problems, config.temperature, config.eval_samples, config.seed, budget)


def asked_problems(task: Task, config: Asked) -> list[Problem]:
    """The first problems of the split.

    Raises:
        RequestError: it is empty.
    """
    split = task.test if config.split == "test" else task.train
    problems = list(split[: config.eval_problems])
    if not problems:
        other = "train" if config.split == "test" else "test"
        raise RequestError(
            f"task {task.name} has no {config.split} problems, so there is nothing to measure. "
            f"Use --split {other}, or pass --data that has some."
        )
    return problems


def base_name(model: str | None, adapters: Sequence[str]) -> str:
    """The model that was asked for, or the one that the adapters' files name, or else pocket.

    Raises:
        RequestError: the adapters name different ones.
    """
    if model is not None:
        return model
    named = {adapter: read(adapter).base for adapter in adapters}
    if len(set(named.values())) > 1:
        pairs = " and ".join(f"{adapter} names {name or 'none'}" for adapter, name in named.items())
        raise RequestError(
            f"{pairs} as base model, but adapters can only be compared on the same one. Name it "
            "with --model."
        )
    return next(iter(named.values()), "") or "pocket"


def load_base(
    model: str | None, adapters: Sequence[str], dtype: str, device: str, quantize: str | None
) -> Base:
    """The model that was asked for, or the adapters' own, quantised as theirs was unless told.

    Raises:
        RequestError: it is not there, or the adapters name different ones.
    """
    name = base_name(model, adapters)
    try:
        return load_model(name, dtype, device, quantize or _quantize(adapters, name))
    except RequestError as error:
        if model is not None or not adapters:
            raise
        raise RequestError(
            f"{adapters[0]} names {name} as its base model. {error} Name it with --model."
        ) from error


def _quantize(adapters: Sequence[str], name: str) -> str:
    """As the first adapter's base was quantised, where the model is not stored so."""
    asked = quantization(read(adapters[0]).fingerprint) if adapters else "none"
    return "none" if asked == "none" or stored_quantization(name) else asked


def is_adapter(source: str) -> bool:
    """Whether this names an adapter and not a model: a text, a file, a run, or one on the hub."""
    if is_text(source) or source.endswith(".safetensors"):
        return True
    if any(os.path.isfile(os.path.join(source, name)) for name in (FILE_NAME, "config.yaml")):
        return True
    if not hub.is_hub_id(source) or os.path.exists(source) or hub.is_kept(source, "config.json"):
        return False
    try:
        hub.download(source, FILE_NAME)
    except RequestError:  # it is a model, or nothing, which loading it will say
        return False
    return True


@contextmanager
def policy_of(base: Base, adapter: str | None, force: bool) -> Iterator[Policy]:
    """Inside, the base model with the adapter on it; without one for None and "base"."""
    if adapter is None or adapter == BASE:
        yield UntrainedPolicy(base.model)
        return
    policy = _trained(base, adapter, force)
    try:
        yield policy
    finally:
        policy.detach()


def _trained(base: Base, adapter: str, force: bool) -> Policy:
    """An adapter in any of its forms, or what a run by another method left in its folder."""
    run = _other_run(adapter)
    if run is None:
        return load(base.model, adapter, force=force)
    place = Path(adapter)
    folder = place.parent if place.is_file() else place
    return method_of(run.method).load(base.model, folder, run.adapter)


def _check_force(adapters: Sequence[str]) -> None:
    """Refuse --force where there is nothing that it would overrule."""
    for adapter in adapters:
        if (run := _other_run(adapter)) is not None:
            raise RequestError(
                f"--force overrules the check of an adapter's base, but {adapter} was trained with "
                f"method = {run.method}, whose files name no fingerprint to check. Leave it out."
            )


def _other_run(adapter: str) -> TrainConfig | None:
    """The settings of a run that trained by another method than TinyLoRA."""
    recipe = os.path.join(run_folder(adapter), "config.yaml")
    run = unflatten(recorded(recipe), recipe) if os.path.isfile(recipe) else None
    return None if run is None or run.has_factors else run


def measure_controls(exam: Exam, policy: Policy, base: Answers, seed: int) -> dict[str, Any]:
    """All figures of the base model, the zero adapter and random ones.

    `num_different` says how many answers of the zero adapter are not the base model's.
    """
    engine = TransformersEngine(policy)
    assert policy.adapter is not None  # refused before anything was loaded
    zero, random = controls(policy.adapter, lambda: exam.both(engine), seed)
    return {
        "base": summaries(base),
        "zero": {
            **summaries(zero),
            "num_different": {kind: num_different(base[kind], zero[kind]) for kind in base},
        },
        "random": [summaries(answers) for answers in random],
    }


def compared(exam: Exam, name: str, first: Answers, second: Answers) -> dict[str, Any]:
    """The second policy's figures, the tests of the first against it, and what they disagree on."""
    rights = {kind: (first[kind].right_share_P, second[kind].right_share_P) for kind in first}
    return {
        "adapter": name,
        **summaries(second),
        "paired": {kind: asdict(paired(*shares)) for kind, shares in rights.items()},
        "changed": [
            {
                "index": index,
                "prompt": exam.problems[index].prompt,
                "gold": exam.problems[index].gold,
                "change": "gained" if right else "lost",
                "completion": first["greedy"].records_P_G[index][0].completion,
                "compared": second["greedy"].records_P_G[index][0].completion,
            }
            for index, (right, other) in enumerate(zip(*rights["greedy"], strict=True))
            if None not in (right, other) and right != other
        ],
    }


def head(base: Base, exam: Exam, config: EvalConfig) -> dict[str, Any]:
    """What was measured, and how."""
    return {
        "model": base.name,
        "adapter": config.adapter,
        "task": exam.task.name,
        "split": config.split,
        "seed": config.seed,
        "temperature": config.temperature,
        "max_new_tokens": exam.max_new_tokens,
        "task_settings": config.model_dump(include={*TASK_FIELDS}, exclude_defaults=True),
    }


def problem_record(
    exam: Exam, index: int, first: Answers, second: Answers | None
) -> dict[str, Any]:
    """One problem with all its answers and their verdicts."""
    problem = exam.problems[index]
    record = {"index": index, "prompt": problem.prompt, "gold": problem.gold}
    compare = {} if second is None else {"compare": _answers(second, index)}
    return {**record, **_answers(first, index), **compare}


def _answers(answers: Mapping[str, Evaluation], index: int) -> dict[str, Any]:
    return {
        kind: [record.as_json() for record in evaluation.records_P_G[index]]
        for kind, evaluation in answers.items()
    }
