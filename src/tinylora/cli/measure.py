"""What `tinylora eval` computes and prints."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tinylora.adapter import TinyLora, load
from tinylora.adapter.files import read
from tinylora.cli.eval import task_settings
from tinylora.cli.quiet import quieten
from tinylora.errors import RequestError
from tinylora.evaluate import NUM_RANDOM, Evaluation, UntrainedPolicy, controls, evaluate, text_of
from tinylora.models import Base, check_context, load_model
from tinylora.policy import Policy, TinyLoraPolicy
from tinylora.rollout.transformers import TransformersEngine
from tinylora.tasks import Task, load_task
from tinylora.train.folder import write_json
from tinylora.train.report import accuracy_text
from tinylora.train.rollouts import derive_seed


class Measure:
    """One model, one task, one set of problems; any number of policies."""

    def __init__(self, base: Base, task: Task, options: Any) -> None:
        self.options = options
        self.task = task
        self.text = text_of(base, task_settings(options))
        split = self.task.test if options.split == "test" else self.task.train
        self.problems = list(split[: options.problems])
        prompts = [self.text.encode(problem) for problem in self.problems]
        check_context(base.model, prompts, options.max_new_tokens or self.task.max_new_tokens)

    def __call__(self, policy: Policy, temperature: float, samples: int) -> Evaluation:
        return evaluate(
            TransformersEngine(policy),
            self.problems,
            self.task,
            self.text,
            temperature=temperature,
            samples=samples,
            seed=derive_seed(self.options.seed, "evaluate", 0),  # as a run does
            max_new_tokens=self.options.max_new_tokens,
        )

    def both(self, policy: Policy) -> dict[str, Any]:
        """Greedy and sampled figures of a policy."""
        return {
            "greedy": self(policy, 0.0, 1).summary(),
            "sampled": self(policy, self.options.temperature, self.options.samples).summary(),
        }


def measure(options: Any) -> None:
    """Measure what the options name, print it, and write it where they say."""
    task = load_task(options.task)
    base = load_base(options)
    measured = Measure(base, task, options)
    result: dict[str, Any] = {
        "model": base.name,
        "adapter": options.adapter,
        "task": measured.task.name,
        "split": options.split,
        "seed": options.seed,
        "temperature": options.temperature,
    }
    if options.adapter is None:
        result |= measured.both(UntrainedPolicy(base.model))
    else:
        before = measured.both(UntrainedPolicy(base.model)) if options.controls else None
        adapter = load(base.model, options.adapter)
        result |= measured.both(TinyLoraPolicy(adapter))
        if before is not None:
            result["controls"] = {"base": before, **_controls(measured, adapter)}
    if options.json is not None:
        write_json(Path(options.json), result)
    for table in tables(result):
        Console().print(table)


def load_base(options: Any) -> Base:
    """The model that was asked for, or the one that the adapter's file names.

    Raises:
        RequestError: it is not there.
    """
    held = None if options.adapter is None else read(options.adapter)
    name = options.model or (held.base if held else "") or "pocket"
    quieten(name)
    try:
        return load_model(name, options.dtype, options.device)
    except RequestError as error:
        if options.model is not None or held is None:
            raise
        raise RequestError(
            f"{options.adapter} names {name} as its base model. {error} Or name it by --model."
        ) from error


def _controls(measured: Measure, adapter: TinyLora) -> dict[str, Any]:
    """Greedy and sampled accuracy of the zero adapter and of random ones."""
    policy, options = TinyLoraPolicy(adapter), measured.options
    return {
        "greedy": controls(adapter, lambda: measured(policy, 0.0, 1).accuracy, options.seed),
        "sampled": controls(
            adapter,
            lambda: measured(policy, options.temperature, options.samples).accuracy,
            options.seed,
        ),
    }


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Accuracies with their controls; then the kinds of answers, where the task names some."""
    what = result["adapter"] or "the base model"
    greedy = result["greedy"]
    title = (
        f"{result['model']}, {what}: {result['task']} ({result['split']}), "
        f"{greedy['num_problems']} problems"
    )
    table = Table("", "greedy (pass@1)", "sampled", title=title, title_justify="left")
    table.add_row("accuracy", *(accuracy_text(result[kind]) for kind in ("greedy", "sampled")))
    for name in ("mean_length", "truncated_share", "num_unjudged"):
        form = "{:.1%}" if name.endswith("share") else "{:.4g}"
        cells = (form.format(result[kind][name]) for kind in ("greedy", "sampled"))
        table.add_row(NAMES[name], *cells)
    if "controls" in result:
        table.add_section()
        for row in _control_rows(result["controls"]):
            table.add_row(*row)
    labels = _label_table(result)
    return [table] if labels is None else [table, labels]


NAMES = {
    "mean_length": "mean length",
    "truncated_share": "cut off by budget",
    "num_unjudged": "not judged",
}


def _control_rows(held: Mapping[str, Any]) -> list[tuple[str, ...]]:
    kinds = ("greedy", "sampled")
    return [
        ("base model", *(accuracy_text(held["base"][kind]) for kind in kinds)),
        ("zero adapter", *(f"{held[kind]['zero']:.1%}" for kind in kinds)),
        ("random v, mean", *(f"{statistics.fmean(held[k]['random']):.1%}" for k in kinds)),
        (f"({NUM_RANDOM}, same norm)", *(_spread(held[kind]["random"]) for kind in kinds)),
    ]


def _spread(values: list[float]) -> str:
    return f"{min(values):.1%} to {max(values):.1%}"


def _label_table(result: Mapping[str, Any]) -> Table | None:
    kinds = {kind: result[kind]["by_label"] for kind in ("greedy", "sampled")}
    labels = dict.fromkeys([*kinds["greedy"], *kinds["sampled"]])
    if not labels:
        return None
    table = Table(
        "kind of answer",
        title="kinds of answers: their share, and how many were right",
        title_justify="left",
    )
    for kind in kinds:
        table.add_column(kind, justify="right")
    for label in labels:
        cells = [kinds[kind].get(label) for kind in kinds]
        row = [
            f"{cell['share']:.1%}, {cell['accuracy']:.1%} right" if cell else "-" for cell in cells
        ]
        table.add_row(label, *row)
    return table
