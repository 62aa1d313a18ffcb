"""Problems that are there twice, or on both sides of the split: counted and said, never removed."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from tinylora.tasks.task import Problem, Task


def with_twins(task: Task) -> Task:
    """The task with a note on each kind of twins that it has."""
    return replace(task, notes=(*task.notes, *twins(task)))


def twins(task: Task) -> list[str]:
    """A sentence on training problems that are in the test split, and on those that repeat.

    Not covered: problems that are made as they are asked for.
    """
    splits = {"training": task.train, "test": task.test}
    held = {name: ps for name, ps in splits.items() if isinstance(ps, list | tuple)}
    notes = [_repeats(name, problems) for name, problems in held.items()]
    if len(held) == 2:
        tested = {problem.identity for problem in task.test}
        known = sum(problem.identity in tested for problem in task.train)
        if known:
            notes.append(
                f"{known} of {len(task.train)} training problems are in the test split too, so "
                "its accuracy also counts what was memorised. Remove them from one of the two."
            )
    return [note for note in notes if note]


def _repeats(name: str, problems: Sequence[Problem]) -> str:
    golds = defaultdict(set)
    for problem in problems:
        golds[problem.identity].add(problem.gold)
    repeated, torn = len(problems) - len(golds), sum(len(found) > 1 for found in golds.values())
    if not repeated:
        return ""
    said = f"; the answers to {torn} of the questions differ" if torn else ""
    return f"{repeated} of {len(problems)} {name} problems repeat another one{said}."
