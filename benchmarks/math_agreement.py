"""Agreement of the mathematical grader with labelled judgements.

    python benchmarks/math_agreement.py                    # data in ../shared/data
    python benchmarks/math_agreement.py --data DIR --sets gsm8k_labelled_solutions,hostile_answers

Every row is graded under its own answer format, `any` where it names none; it agrees
where "accepted" equals the label. What could not be judged counts as not accepted and is shown
beside. Disagreements are in `grading_disagreements.jsonl` with their reasons, by id, because the
rows themselves are not ours to copy.
The exit status is 1 if a set agrees on less than 99 %, a row tagged `neg:` is accepted, or a
disagreement is not in that file.
"""

import argparse
import gzip
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from tinylora.rewards.math import grade_many
from tinylora.rewards.math.extract import AnswerFormat
from tinylora.rewards.verdict import Verdict

ROOT = Path(__file__).resolve().parents[1]
KNOWN = Path(__file__).with_name("grading_disagreements.jsonl")
SETS = ("grader_cases", "gsm8k_labelled_solutions", "hostile_answers", "cases_2")
AIM = 0.99


@dataclass(frozen=True)
class Case:
    """One labelled judgement."""

    id: str
    kind: str
    gold: str
    completion: str
    expected: bool
    never: bool = False
    answer_format: AnswerFormat = "any"


def main() -> int:
    options = _options()
    known = {row["id"]: row for row in map(json.loads, KNOWN.read_text().splitlines())}
    return max(report(name, list(cases(options.data, name)), known) for name in options.sets)


def report(name: str, rows: list[Case], known: dict[str, dict[str, object]]) -> int:
    """Print what agrees in one set; 1 if it falls short or something is new."""
    verdicts = _graded(rows)
    accepted = [verdict.score == 1 for verdict in verdicts]
    wrong = [row for row, a in zip(rows, accepted, strict=True) if a != row.expected]
    unjudged = sum(verdict.score is None for verdict in verdicts)
    share = 1 - len(wrong) / len(rows)
    print(f"{name}: {share:.2%} of {len(rows)} agree; {unjudged} could not be judged", flush=True)
    for kind in sorted({row.kind for row in rows}):
        total = sum(row.kind == kind for row in rows)
        print(f"  {kind}: {total - sum(row.kind == kind for row in wrong)} of {total}")
    forbidden = [row.id for row, a in zip(rows, accepted, strict=True) if a and row.never]
    new = [row.id for row in wrong if row.id not in known]
    if forbidden or new:
        print(f"  never to be accepted, but was: {forbidden}; not in {KNOWN.name}: {new}")
    return int(share < AIM or bool(forbidden) or bool(new))


def _graded(rows: list[Case]) -> list[Verdict]:
    """Verdicts in the order of the rows, whatever their formats."""
    verdicts: dict[int, Verdict] = {}
    for answer_format in get_args(AnswerFormat):
        asked = [i for i, row in enumerate(rows) if row.answer_format == answer_format]
        pairs = [(rows[i].gold, rows[i].completion) for i in asked]
        verdicts.update(zip(asked, grade_many(pairs, answer_format), strict=True))
    return [verdicts[i] for i in range(len(rows))]


def cases(data: Path, name: str) -> Iterator[Case]:
    """The rows of one set."""
    with gzip.open(data / "graders" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            yield from _READERS[name](json.loads(line), number)


def _grader_case(row: dict[str, object], number: int) -> Iterator[Case]:
    never = any(str(tag).startswith("neg:") for tag in [row["category"], *row["tags"]])
    half = "A" if int(hashlib.sha256(row["id"].encode()).hexdigest(), 16) % 2 == 0 else "B"
    kind = f"half {half}, {row['tier']}"
    yield Case(row["id"], kind, row["gold"], row["prediction"], row["expected"], never)


def _gsm8k_solutions(row: dict[str, object], number: int) -> Iterator[Case]:
    for model, answer in row.items():
        if isinstance(answer, dict):
            name = f"gsm8k-{number}-{model}"
            yield Case(name, model, row["ground_truth"], answer["solution"], answer["is_correct"])


def _hostile(row: dict[str, object], number: int) -> Iterator[Case]:
    yield Case(f"hostile-{number}", "hostile", row["gold"], row["prediction"], row["expected"])


def _second_set(row: dict[str, object], number: int) -> Iterator[Case]:
    kind = f"{row['source'] if row['kind'] == 'hack' else 'report'}, expected {row['expected']}"
    texts = row["gold"], row["completion"], row["expected"] == 1
    yield Case(row["id"], kind, *texts, answer_format=row["answer_format"])


_READERS = {
    "cases_2": _second_set,
    "grader_cases": _grader_case,
    "gsm8k_labelled_solutions": _gsm8k_solutions,
    "hostile_answers": _hostile,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--sets", type=lambda text: text.split(","), default=SETS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
