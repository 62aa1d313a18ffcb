"""What `tinylora eval` computes: answers of one policy or two, the controls, and the JSON file."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from tinylora.adapter import load
from tinylora.adapter.files import read
from tinylora.adapter.fingerprint import quantization
from tinylora.atomic import write_atomically
from tinylora.cli.eval import BASE, run_folder, task_settings
from tinylora.cli.quiet import quieten
from tinylora.errors import RequestError
from tinylora.evaluate.estimators import paired
from tinylora.evaluate.exam import Exam, controls, summaries
from tinylora.evaluate.records import Evaluation, num_different
from tinylora.evaluate.tables import tables
from tinylora.methods import METHODS
from tinylora.models import Base, check_context, load_model, stored_quantization
from tinylora.policy import Policy, TinyLoraPolicy, UntrainedPolicy
from tinylora.prompts import text_of
from tinylora.rollout.transformers import TransformersEngine
from tinylora.settings import TrainConfig, recorded, unflatten
from tinylora.tasks import Task, load_task

Answers = dict[str, Evaluation]  # "greedy" and "sampled"


def measure(options: Any) -> None:
    """Measure what the options name, print it, and write it where they say.

    Raises:
        RequestError: --controls for what is no TinyLoRA adapter; names that do not go together.
    """
    if options.controls and (run := _other_run(options.adapter)):
        raise RequestError(
            f"--controls draws other numbers for a TinyLoRA adapter, but {options.adapter} was "
            f"trained by method = {run.method}. Compare it with the base model: --compare base."
        )
    task = load_task(options.task, task_settings(options))
    for note in task.notes:
        Console().print(note, soft_wrap=True, highlight=False, markup=False)
    base = load_base(options)
    exam = make_exam(base, task, options)
    held: dict[str, Any] = {}
    bare = exam.both(TransformersEngine(UntrainedPolicy(base.model))) if options.controls else None
    with policy_of(base, options.adapter, options.force) as policy:
        first = exam.both(TransformersEngine(policy))
        if bare is not None:
            held["controls"] = measure_controls(exam, policy, bare, options.seed)
    second = None
    for name in options.compare:  # one, or none
        with policy_of(base, name, options.force) as policy:
            second = exam.both(TransformersEngine(policy))
        held["compare"] = compared(exam, name, first, second)
    result = {**head(base, exam, options), **summaries(first), **held}
    if options.json is not None:
        problems = [problem_record(exam, i, first, second) for i in range(len(exam.problems))]
        text = json.dumps({**result, "problems": problems}, indent=1, default=str)
        write_atomically(Path(options.json), (text + "\n").encode())
    for table in tables(result):
        Console().print(table)


def make_exam(base: Base, task: Task, options: Any) -> Exam:
    """The problems and how they are asked.

    Raises:
        RequestError: the split is empty, or a prompt and the completion budget pass the model's
            context.
    """
    text = text_of(base, task_settings(options))
    split = task.test if options.split == "test" else task.train
    problems = list(split[: options.problems])
    if not problems:
        other = "train" if options.split == "test" else "test"
        raise RequestError(
            f"task {task.name} has no {options.split} problems, so there is nothing to measure. "
            f"Use --split {other}, or give --data that has some."
        )
    prompts = [text.encode(problem) for problem in problems]
    check_context(base.model, prompts, options.max_new_tokens or task.max_new_tokens)
    return Exam(
        task,
        text,
        problems,
        temperature=options.temperature,
        samples=options.samples,
        seed=options.seed,
        max_new_tokens=options.max_new_tokens,
    )


def load_base(options: Any) -> Base:
    """The model that was asked for, or the one that the adapters' files name.

    Raises:
        RequestError: it is not there, or the adapters name different ones.
    """
    adapters = [a for a in (options.adapter, *options.compare) if a not in (None, BASE)]
    named = {} if options.model else {adapter: read(adapter).base for adapter in adapters}
    if len(set(named.values())) > 1:
        pairs = " and ".join(f"{adapter} names {name or 'none'}" for adapter, name in named.items())
        raise RequestError(
            f"{pairs} as base model, but two adapters are compared on one. Name it by --model."
        )
    name = options.model or next(iter(named.values()), "") or "pocket"
    quieten(name)
    try:
        quantize = options.quantize or _quantize(adapters, name)
        return load_model(name, options.dtype, options.device, quantize)
    except RequestError as error:
        if not named:
            raise
        raise RequestError(
            f"{adapters[0]} names {name} as its base model. {error} Or name it by --model."
        ) from error


def _quantize(adapters: list[str], name: str) -> str:
    """As the first adapter's base was quantised, where the model is not stored so."""
    asked = quantization(read(adapters[0]).fingerprint) if adapters else "none"
    return "none" if asked == "none" or stored_quantization(name) else asked


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
        return TinyLoraPolicy(load(base.model, adapter, force=force))
    return METHODS[run.method].load(base.model, Path(adapter), run.adapter)


def _other_run(adapter: str) -> TrainConfig | None:
    """The settings of a run that trained by another method than TinyLoRA."""
    recipe = os.path.join(run_folder(adapter), "config.yaml")
    run = unflatten(recorded(recipe), recipe) if os.path.isfile(recipe) else None
    return None if run is None or run.has_factors else run


def measure_controls(exam: Exam, policy: Policy, base: Answers, seed: int) -> dict[str, Any]:
    """All figures of the base model, the zero adapter and random ones.

    `num_different` says how many answers of the zero adapter are not the base model's.
    """
    assert isinstance(policy, TinyLoraPolicy)
    engine = TransformersEngine(policy)
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


def head(base: Base, exam: Exam, options: Any) -> dict[str, Any]:
    """What was measured, and how."""
    return {
        "model": base.name,
        "adapter": options.adapter,
        "task": exam.task.name,
        "split": options.split,
        "seed": options.seed,
        "temperature": options.temperature,
        "max_new_tokens": options.max_new_tokens or exam.task.max_new_tokens,
        "task_settings": task_settings(options).model_dump(exclude_defaults=True),
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
