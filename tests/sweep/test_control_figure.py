"""The figure of control rewards: which curve is which, and what the ends are."""

from typing import Any

import pytest

from tinylora.sweep.control_figure import FOLLOWED, TRUE, WATCHED, draw_controls
from tinylora.sweep.drawing import SPECIAL


def result(control: str | None, seed: int, final: float, **curves: list[float]) -> dict[str, Any]:
    return {
        "figure": "controls",
        "reward_control": control,
        "settings": {"seed": seed},
        "base_accuracy": 0.1,
        "base_accuracy_sampled": 0.2,
        "final_accuracy": final,
        "final_accuracy_sampled": final / 2,
        "curves": curves,
    }


def test_true_and_false_rewards_are_told_apart() -> None:
    figure, rows = SPECIAL["controls"](
        [
            result(None, 0, 0.9, reward=[0.2, 0.6]),
            result(None, 1, 0.7, reward=[0.4]),  # a run that stopped earlier
            result("random", 0, 0.1, reward=[0.5, 0.5], true_reward=[0.2, 0.1]),
        ]
    )
    assert SPECIAL["controls"] is draw_controls
    assert curve(rows, FOLLOWED, TRUE) == curve(rows, WATCHED, TRUE) == pytest.approx([0.3, 0.6])
    assert curve(rows, FOLLOWED, "random") == [0.5, 0.5]
    assert curve(rows, WATCHED, "random") == [0.2, 0.1]
    ends = [(row["series"], row["seed"], row["y"]) for row in rows if row["measure"][:5] == "final"]
    assert ends[:3] == [(TRUE, 0, 0.9), (TRUE, 1, pytest.approx(0.7)), ("random", 0, 0.1)]
    ticks = [tick.get_text() for tick in figure.axes[2].get_yticklabels()]
    assert ticks == [TRUE, "random"]


def curve(rows: list[dict[str, Any]], measure: str, series: str) -> list[float]:
    return [row["y"] for row in rows if (row["measure"], row["series"]) == (measure, series)]
