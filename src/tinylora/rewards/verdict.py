"""What a grader says about one completion: right, wrong, or could not judge."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """A grader's judgement of one completion.

    Args:
        score: 0 (wrong) to 1 (right); None where the grader could not judge. 0 is only ever the
            model's fault.
        reason: a word or a short sentence for people.
        details: whatever else the grader wants to keep.

    Raises:
        ValueError: the score lies outside 0..1, or is not a number.
    """

    score: float | None
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.score is not None and not 0.0 <= self.score <= 1.0:
            raise ValueError(
                f"Verdict.score = {self.score}, but a score lies in 0..1, or is None where the "
                "grader could not judge."
            )
