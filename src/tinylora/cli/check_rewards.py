"""`tinylora check-rewards`: does a task's grader know its own right answers? Without a model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import Field

from tinylora.cli.options import Verb, split
from tinylora.errors import RequestError, TinyLoraError
from tinylora.settings import CHAT_FIELDS, TASK_GROUPS, TASK_HELP, TaskConfig
from tinylora.settings.run import LoadSettings

SHOWN = 10  # problems that are not valid
LONGEST = 60  # characters of an answer in a sentence


class Request(LoadSettings):
    """What to check, and with `one` the model that answers."""

    task: str = Field(title="TASK", description=TASK_HELP)
    problems: int = Field(
        default=10_000, ge=1, description="how many problems of each split, from the first"
    )
    one: bool = Field(
        default=False,
        description="instead, ask --model one problem and show every stage: prompt, answer, "
        "extraction, verdict",
    )
    model: str = Field(default="pocket", description="with one: the model that is asked")
    index: int = Field(default=0, ge=0, description="with one: which test problem, from 0")

    def idle(self) -> dict[str, str]:
        reason = "without --one, which asks no model. Add --one, or leave it out."
        return (
            {}
            if self.one
            else dict.fromkeys(("model", "index", *LoadSettings.model_fields), reason)
        )


VERB = Verb(
    name="check-rewards",
    description="""\
Check a task's grader without a model: grade every reference answer (or
accepted program) and other spellings of it, an empty answer and a wrong one,
and count the problems that can be graded. Exit status 1 if the task cannot be graded.
With --one, take one problem through every stage with a model.""",
    examples="""\
  tinylora check-rewards gsm8k
  tinylora check-rewards data.jsonl --answer-format any
  tinylora check-rewards my_task.py:make --problems 100
  tinylora check-rewards gsm8k --one --model Qwen/Qwen2.5-0.5B-Instruct""",
    groups={
        "options": Request.model_fields,
        **{
            title: {name: option for name, option in group.items() if name not in CHAT_FIELDS}
            for title, group in TASK_GROUPS.items()
        },
    },
    positional="task",
)


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    options, given = split(Request, VERB.given(argv))
    settings = TaskConfig(**given)
    from rich.console import Console

    from tinylora.tasks import load_task
    from tinylora.tasks.functions import try_grader

    task = load_task(options.task, settings)
    try_grader(task)  # as training does
    if options.one:
        _show_stages(task, options, settings)
        return
    found = _check_splits(task, options.problems)
    for note in task.notes:
        print(note)
    for name, checked in found.items():
        for finding in checked.findings[:SHOWN]:
            print(_sentence(name, finding))
    Console().print(table(task.name, found))
    _refuse_broken(task.name, found)


def _show_stages(task: Any, options: Request, settings: TaskConfig) -> None:
    """One problem through every stage, each under its name."""
    from tinylora.cli.quiet import quieten
    from tinylora.evaluate.stages import stages
    from tinylora.models import load_model

    quieten(options.model)
    problems = task.test or task.train
    if options.index >= len(problems):
        raise RequestError(
            f"--index {options.index}, but task {task.name} has {len(problems)} problems, counted "
            "from 0."
        )
    base = load_model(options.model, options.dtype, options.device, options.quantize)
    for name, text in stages(base, task, problems[options.index], settings):
        print(f"--- {name}\n{text}\n")


def _check_splits(task: Any, most: int) -> dict[str, Any]:
    from tinylora.tasks.check import check

    found = {}
    for name, problems in {"train": task.train, "test": task.test}.items():
        if len(problems):
            chosen = problems[:most]
            with _progress(f"{task.name}, {name}", len(chosen)) as done:
                found[name] = check(task, chosen, done)
    return found


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal while a split is checked; nothing where stderr is not one."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        split = bar.add_task(title, total=total)
        yield lambda done: bar.update(split, completed=done)


def _refuse_broken(name: str, found: dict[str, Any]) -> None:
    """Raise a `TinyLoraError` where a split cannot be graded."""
    broken = [split for split, checked in found.items() if not checked.is_gradable]
    splits = " and ".join(broken)
    if broken and all(found[split].has_no_answers for split in broken):
        raise TinyLoraError(
            f"Task {name} lacks reference answers for its {splits} problems, so the grader could "
            "not be tested on a right one. Use data that has accepted answers."
        )
    if broken:
        raise TinyLoraError(
            f"The {splits} problems of task {name} cannot be graded as they are: see the table. "
            "Fix the gold answers, or the grader, before you train on them."
        )


def _sentence(split: str, finding: Any) -> str:
    score = "not judged" if finding.score is None else f"{finding.score:g}"
    tried = f' "{_short(finding.tried)}"' if finding.tried else ""
    return (
        f"{split} {finding.index}: the answer that is {finding.answer}{tried}: {score}, "
        f"{finding.reason} (gold: {_short(finding.gold)})"
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def table(name: str, found: dict[str, Any]) -> Any:
    """A row for each split."""
    from rich.table import Table

    shown = Table(
        "split", "problems", "valid", "invalid", "not judged", "no right answer", "gradable",
        title=name, title_justify="left",
    )  # fmt: skip
    for part, checked in found.items():
        kinds = (checked.kinds[kind] for kind in ("valid", "invalid", "not judged"))
        counts = (checked.num_problems, *kinds, checked.num_without_answer)
        shown.add_row(part, *map(str, counts), "yes" if checked.is_gradable else "no")
    return shown
