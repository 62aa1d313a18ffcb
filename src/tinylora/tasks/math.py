r"""MATH, to train on: competition problems of levels 1 to 5, tested on MATH-500.

`level` picks a part of MATH's training split (DigitalLearningGmbH/MATH-lighteval): `3-5`, `5`, or
`hardest`, which is 5. `simplerl` is SimpleRL's own set, the paper's: 8,523 problems of levels 3 to
5 (hkust-nlp/SimpleRL-Zoo-Data), cut from the split of MATH that holds out MATH-500 alone, so that a
third of it is among MATH's 5,000 test problems.
"""

import re
from collections.abc import Callable
from dataclasses import replace

from tinylora.errors import RequestError
from tinylora.rewards.math.extract import strict
from tinylora.settings import TaskConfig
from tinylora.tasks import math500
from tinylora.tasks.data import Row, Source
from tinylora.tasks.mathematics import Benchmark, Question, load, text_field
from tinylora.tasks.prompts import BOX
from tinylora.tasks.task import Task

CONTAMINATION = (
    "A third of SimpleRL's set (2,936 problems) is among MATH's 5,000 test problems, and none of "
    "it in MATH-500: evaluate on math500 alone."
)
TRAIN = Source(
    "DigitalLearningGmbH/MATH-lighteval", "train", ("math_train*", "/train*", "/data/train*")
)
SIMPLERL = Source(
    "hkust-nlp/SimpleRL-Zoo-Data",
    "train",
    ("simplerl_math*", "simplelr_qwen_level3to5/train*", "/train*"),
    hub_file="simplelr_qwen_level3to5/train.parquet",
)
_TURN = re.compile(r"<\|im_start\|>user\n(.*?)(?:<\|im_end\|>|$)", re.DOTALL)


def read(row: Row) -> Question:
    """MATH's rows (the gold answer may stand in the solution's last box), and SimpleRL's."""
    if "reward_model" in row:
        return Question(_asked(row), str(row["reward_model"]["ground_truth"] or "").strip())
    solution = text_field(row, "solution") if "solution" in row else None
    boxed = strict(solution, "boxed") if solution else None
    gold = text_field(row, "answer") if "answer" in row else boxed or ""
    columns = {"level": level_of(row), "subject": row.get("type", row.get("subject"))}
    return Question(text_field(row, "problem", "question"), gold, solution, columns)


def level_of(row: Row) -> int | None:
    """`Level 5`, 5 and 5.0 are 5; `Level ?` is 0; None where the row names none."""
    named = row.get("level", row.get("difficulty"))
    digit = re.search(r"\d", str(named))
    return None if named is None else int(digit[0]) if digit else 0


def make(settings: TaskConfig) -> Task:
    """The task, with the training problems of the levels that the settings name."""
    is_simplerl = settings.level == "simplerl"
    keep = None if is_simplerl or settings.level is None else _of_levels(settings.level)
    train = SIMPLERL if is_simplerl else TRAIN
    task = load(Benchmark("math", read, math500.SOURCE, train, keep=keep), settings)
    if not is_simplerl:
        return task
    return replace(task, notes=(*task.notes, CONTAMINATION))


def _of_levels(named: str) -> Callable[[Question], bool]:
    low, _, high = named.replace("hardest", "5").partition("-")

    def keep(question: Question) -> bool:
        level = question.columns.get("level")
        if level is None:
            raise RequestError(
                f"level = {named}, but the rows have no levels: "
                f'"{question.text[:60]}...". Leave level out, or give files that name them.'
            )
        return int(low) <= int(level) <= int(high or low)

    return keep


def _asked(row: Row) -> str:
    """The question without SimpleRL's template around it."""
    said = str(row.get("question") or row["prompt"][-1]["content"])
    turn = _TURN.search(said)
    return (turn[1] if turn else said).removesuffix(f"\n{BOX}").strip()
