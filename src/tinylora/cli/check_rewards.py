"""`tinylora check-rewards`: does a task's grader know its own right answers? Without a model."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from tinylora.cli.options import Verb, split
from tinylora.errors import TinyLoraError
from tinylora.settings import CHAT_FIELDS, TASK_GROUPS, TASK_HELP, TaskConfig
from tinylora.settings.base import Settings

SHOWN = 10  # problems that are not valid


class Request(Settings):
    """What to check."""

    task: str = Field(title="TASK", description=TASK_HELP)
    problems: int = Field(
        default=10_000, ge=1, description="how many of each split, from the first"
    )


VERB = Verb(
    name="check-rewards",
    description="""\
Check a task's grader without a model: grade every reference answer (or
accepted program), an empty answer and a wrong one, and count the problems
that can be graded. Exit status 1 if the task cannot be graded.""",
    examples="""\
  tinylora check-rewards gsm8k
  tinylora check-rewards data.jsonl --answer-format any
  tinylora check-rewards my_task.py:make --problems 100""",
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
    from tinylora.tasks.check import check

    task, console = load_task(options.task, settings), Console()
    splits = {"train": task.train, "test": task.test}
    found = {
        name: check(task, split[: options.problems]) for name, split in splits.items() if len(split)
    }
    for note in task.notes:
        console.print(note, soft_wrap=True, highlight=False, markup=False)
    for name, checked in found.items():
        for finding in checked.findings[:SHOWN]:
            console.print(_sentence(name, finding), soft_wrap=True, highlight=False, markup=False)
    console.print(table(task.name, found))
    broken = [name for name, checked in found.items() if not checked.is_gradable]
    if broken and all(found[name].has_no_answers for name in broken):
        raise TinyLoraError(
            f"The {' and the '.join(broken)} problems of task {task.name} bring no right answer to "
            "try, so nothing shows that one would score 1. Check data that has accepted answers."
        )
    if broken:
        raise TinyLoraError(
            f"The {' and the '.join(broken)} problems of task {task.name} cannot be graded as they "
            "are: see the table. Mend the gold answers, or the grader, before you train on them."
        )


def _sentence(split: str, finding: Any) -> str:
    gold = finding.gold if len(finding.gold) <= 60 else finding.gold[:57] + "..."
    score = "not judged" if finding.score is None else f"{finding.score:g}"
    return (
        f"{split} {finding.index}: the {finding.answer} answer: {score}, {finding.reason} ({gold})"
    )


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
