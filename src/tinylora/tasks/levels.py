r"""MATH's levels 1 to 5, and SimpleRL's own set of its problems.

`level` picks a part of MATH's training split: `3-5`, `5`, or `hardest`, which is 5. `simplerl` is
the paper's: 8,523 problems of levels 3 to 5 (hkust-nlp/SimpleRL-Zoo-Data), cut from the split of
MATH that holds out MATH-500 alone, so that a third of it is among MATH's 5,000 test problems.
"""

import re
from collections.abc import Callable

from tinylora.errors import RequestError
from tinylora.tasks.data import DataRow, Source
from tinylora.tasks.mathematics import Question
from tinylora.tasks.templates import BOX

CONTAMINATION = (
    "A third of SimpleRL's set (2,936 problems) is among MATH's 5,000 test problems, but none of "
    "it is in MATH-500: evaluate only on math500."
)
SIMPLERL = Source(
    "hkust-nlp/SimpleRL-Zoo-Data",
    "train",
    ("simplerl_math*", "simplelr_qwen_level3to5/train*", "/train*"),
    hub_file="simplelr_qwen_level3to5/train.parquet",
)
_TURN = re.compile(r"<\|im_start\|>user\n(.*?)(?:<\|im_end\|>|$)", re.DOTALL)


def level_of(row: DataRow) -> int | None:
    """`Level 5`, 5 and 5.0 are 5; `Level ?` is 0; None where the row names none."""
    named = row.get("level", row.get("difficulty"))
    digit = re.search(r"\d", str(named))
    return None if named is None else int(digit[0]) if digit else 0


def band_of(level: str) -> tuple[int, int]:
    """The lowest and the highest level of `3`, `3-5` or `hardest`."""
    low, _, high = level.replace("hardest", "5").partition("-")
    return int(low), int(high or low)


def of_levels(named: str) -> Callable[[Question], bool]:
    """Whether a question is of one of these levels.

    Raises (when it is called):
        RequestError: the question names no level.
    """
    low, high = band_of(named)

    def keep(question: Question) -> bool:
        level = question.columns.get("level")
        if level is None:
            raise RequestError(
                f'level = {named}, but the rows do not state levels: "{question.text[:60]}...". '
                "Leave level out, or use files that have them."
            )
        return low <= int(level) <= high

    return keep


def simplerl_question(row: DataRow) -> Question:
    """The question without SimpleRL's template around it."""
    said = str(row.get("question") or row["prompt"][-1]["content"])
    turn = _TURN.search(said)
    asked = (turn[1] if turn else said).removesuffix(f"\n{BOX}").strip()
    return Question(asked, str(row["reward_model"]["ground_truth"] or "").strip())
