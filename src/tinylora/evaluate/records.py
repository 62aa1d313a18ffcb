"""The answers to a task's problems, what the grader said, and the figures that they add up to.

Accuracy is the share of wholly right answers (score 1 or more) among those that could be judged:
of greedy answers the paper's pass@1, of k samples mean@k. Answers that could not be judged are
counted apart. `estimators.py` has the arithmetic.

What a grader notes in `details` becomes a figure: `strict` and `lenient` (right in the format that
was asked for, or in any), `compiled`, and `answer`, the text that was scored and votes in
majority@k (None: there was none in the format that counts).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from tinylora.evaluate.estimators import (
    Figure,
    majority,
    mean,
    pass_at_k,
    powers_of_two,
    share,
)
from tinylora.rewards.verdict import Verdict

NOTED = ("strict", "lenient", "compiled")  # details that are 0 or 1, with a share of their own


@dataclass(frozen=True)
class Record:
    """One answer and what was said about it."""

    completion: str
    verdict: Verdict
    num_tokens: int
    truncated: bool
    label: str | None

    def as_json(self) -> dict[str, Any]:
        """The record, flat."""
        return {
            "completion": self.completion,
            "score": self.verdict.score,
            "reason": self.verdict.reason,
            "details": dict(self.verdict.details),
            "num_tokens": self.num_tokens,
            "truncated": self.truncated,
            "label": self.label,
        }


@dataclass(frozen=True)
class Evaluation:
    """The answers to P problems, G to each, and what they add up to."""

    records_P_G: list[list[Record]]

    @cached_property
    def records(self) -> list[Record]:
        return [record for row in self.records_P_G for record in row]

    @cached_property
    def judged_P_G(self) -> list[list[Record]]:
        """The judged answers to each problem that has any."""
        rows = ([r for r in row if r.verdict.score is not None] for row in self.records_P_G)
        return [row for row in rows if row]

    @property
    def judged(self) -> list[Record]:
        return [record for row in self.judged_P_G for record in row]

    @property
    def num_samples(self) -> int:
        return len(self.records_P_G[0])

    @property
    def num_unjudged(self) -> int:
        return len(self.records) - len(self.judged)

    @property
    def accuracy(self) -> float:
        return self.figures["accuracy"].value

    @property
    def right_share_P(self) -> list[float | None]:
        """For each problem the share of right answers; None where none could be judged."""
        judged = ([r for r in row if r.verdict.score is not None] for row in self.records_P_G)
        return [_share_right(row) if row else None for row in judged]

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """By name: accuracy, then what these answers allow; judged answers alone count."""
        figures = {"accuracy": share(self._each(lambda r: r.verdict.is_right))}
        if self.num_samples > 1:
            figures |= self._pass_at_k()
            figures |= self._majority()
        for name in NOTED:
            if any(noted := self._noted(name)):
                figures[name] = share(noted)
        if "compiled" in figures or not all(r.verdict.score in (0, 1) for r in self.judged):
            scores_P = [sum(row) / len(row) for row in self._each(_score)]
            figures["mean_score"] = mean(scores_P)
        lengths_P = [sum(r.num_tokens for r in row) / len(row) for row in self.records_P_G]
        figures["mean_length"] = mean(lengths_P)
        truncated_P_G = [[float(r.truncated) for r in row] for row in self.records_P_G]
        return {**figures, "truncated_share": share(truncated_P_G)}

    @property
    def by_label(self) -> dict[str, dict[str, float]]:
        """Share and accuracy of each kind among the judged answers; empty without kinds."""
        kinds: dict[str, list[Record]] = defaultdict(list)
        for record in self.judged:
            if record.label is not None:
                kinds[record.label].append(record)
        return {
            kind: {
                "share": len(records) / len(self.judged),
                "accuracy": _share_right(records),
            }
            for kind, records in sorted(kinds.items(), key=lambda item: -len(item[1]))
        }

    def summary(self) -> dict[str, Any]:
        """The figures, as JSON holds them."""
        accuracy = self.figures["accuracy"]
        return {
            "accuracy": accuracy.value,
            "interval": [accuracy.low, accuracy.high],
            "num_problems": len(self.records_P_G),
            "num_samples": self.num_samples,
            "num_unjudged": self.num_unjudged,
            "figures": {name: asdict(figure) for name, figure in self.figures.items()},
            "by_label": self.by_label,
        }

    def _each(self, number: Callable[[Record], float]) -> list[list[float]]:
        return [[float(number(record)) for record in row] for row in self.judged_P_G]

    def _noted(self, name: str) -> list[list[float]]:
        """What the details say under this name, where they say it and could be judged."""
        found = ([r.verdict.details.get(name) for r in row] for row in self.judged_P_G)
        return [[float(value) for value in row if value is not None] for row in found]

    def _pass_at_k(self) -> dict[str, Figure]:
        """For k = 2, 4, 8, ...: over the problems with at least k judged answers."""
        counts = [(len(row), sum(r.verdict.is_right for r in row)) for row in self.judged_P_G]
        figures = {}
        for k in powers_of_two(max(n for n, _ in counts)):
            values_P_1 = [[pass_at_k(n, c, k)] for n, c in counts if n >= k]
            num_answers = sum(n for n, _ in counts if n >= k)
            figures[f"pass@{k}"] = share(values_P_1, num_answers)
        return figures

    def _majority(self) -> dict[str, Figure]:
        """The vote of all answers, where the grader says what was answered."""
        if not any("answer" in r.verdict.details for r in self.judged):
            return {}
        values_P_1 = [
            [majority([_answer(r) for r in row], [r.verdict.is_right for r in row])]
            for row in self.judged_P_G
        ]
        return {f"majority@{self.num_samples}": share(values_P_1)}


def num_different(first: Evaluation, second: Evaluation) -> int:
    """How many answers of two policies are not the same text."""
    pairs = zip(first.records, second.records, strict=True)
    return sum(a.completion != b.completion for a, b in pairs)


def _share_right(records: Sequence[Record]) -> float:
    return sum(record.verdict.is_right for record in records) / len(records)


def _score(record: Record) -> float:
    assert record.verdict.score is not None
    return record.verdict.score


def _answer(record: Record) -> str | None:
    answer = record.verdict.details.get("answer")
    return None if answer is None else str(answer)
