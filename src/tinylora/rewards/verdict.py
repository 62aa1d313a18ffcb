"""What a grader says about one completion: right, wrong, or could not judge."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """A grader's judgement of one completion.

    Args:
        score: 0 (wrong) to 1 (right), of any kind of number (it becomes a float); None where the
            grader could not judge. 0 is only ever the model's fault. (A user's reward function may
            leave 0..1; right is then 1 or more.)
        reason: a word or a short sentence for people.
        details: whatever else the grader wants to keep.

    Raises:
        ValueError: the score is not a finite number.
    """

    score: float | None
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given: Any = self.score
        if given is None or (type(given) is float and math.isfinite(given)):
            return
        try:
            score = math.nan if isinstance(given, str | bytes) else float(given)
        except (TypeError, ValueError, OverflowError):
            score = math.nan
        if not math.isfinite(score):
            raise ValueError(
                f"Verdict.score = {given!r}, but a score is a finite number, or None where "
                "the grader could not judge."
            )
        object.__setattr__(self, "score", score)  # frozen

    @property
    def cause(self) -> str:
        """The reason, and what the grader noted as its `message`: "IE" alone says nothing."""
        said = (self.reason, str(self.details.get("message") or ""))
        return ": ".join(filter(None, said)) or "no reason given"

    @property
    def is_right(self) -> bool:
        """Wholly right, whatever factor its reward has; partly right and unjudged are not."""
        return self.score is not None and self.score >= self.details.get("factor", 1.0)
