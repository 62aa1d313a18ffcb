"""A reward of one's own: right answers, and short ones.

    python examples/own_reward.py      # two CPU cores: ten steps of the embedded model in a minute

Expect, from the table at the end, 99.6 % greedy accuracy by the task's own grader (13 %
before) and 79 % sampled (33 % before) with seed 0; other seeds end lower, as in `make demo`.

A reward is any function with TRL's signature: completions, and the columns of the problems by name.
It returns a number for each completion, or None where it cannot judge. Here a right answer is worth
1 less 0.01 for each word, and a wrong one nothing: a penalty on wrong answers too would pay for
giving up early. While it trains, `accuracy` counts the rewards that are exactly 1, which this one
never gives; so the end of this program measures the adapter again, with the task's grader.
"""

import argparse
from pathlib import Path
from typing import Any

import tinylora
from tinylora.cli import main as command_line


def right_and_short(completions: list[str], answer: list[str], **columns: Any) -> list[float]:
    """1 - 0.01 a word for a completion that ends in `#### answer`, else 0."""
    scores = []
    for text, gold in zip(completions, answer, strict=True):
        _, mark, said = text.rpartition("####")
        is_right = bool(mark) and said.strip() == gold
        scores.append(max(0.0, 1 - 0.01 * len(text.split())) if is_right else 0.0)
    return scores


def main(argv: list[str] | None = None) -> int:
    """Train, measure with the task's own grader, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=32, help="problems in a step")
    parser.add_argument("--problems", type=int, default=512, help="test problems")
    parser.add_argument("--output", type=Path, default=Path("runs/own-reward"))
    args = parser.parse_args(argv)
    config = tinylora.TrainConfig(
        algorithm="npg",
        rank=1,
        layers="2-3",
        steps=args.steps,
        prompts_per_step=args.prompts,
        eval_problems=1,  # by this reward; the task's grader follows
        eval_samples=1,
        output=str(args.output),
    )
    tinylora.train(config, task="pocket", reward=right_and_short)
    measure = ["--problems", str(args.problems), "--samples=2", f"--json={args.output}/eval.json"]
    return command_line(["eval", "--adapter", str(args.output), *measure])


if __name__ == "__main__":
    raise SystemExit(main())
