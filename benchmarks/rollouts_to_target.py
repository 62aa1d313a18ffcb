"""Rollouts and seconds until sampled accuracy is reached: npg against Adam, on pocket.

    python benchmarks/rollouts_to_target.py --points 13 --seeds 0 1 2 3 4

Nothing of npg is tuned, by seed or by point. Adam (GRPO) has the learning rate of `RATES` at each
point: pocket's default, until a sweep of the point gives a better one. After every `--every` steps
the test problems are answered, which counts neither as rollouts nor as seconds. A run that never
gets there counts as `inf`.
"""

import argparse
import math
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch

from tinylora.algorithms import make_step
from tinylora.algorithms.loop import Run
from tinylora.methods import METHODS
from tinylora.models import evaluation_mode
from tinylora.rollout.transformers import TransformersEngine
from tinylora.run.prepare import prepare
from tinylora.settings import TrainConfig

POINTS: dict[str, dict[str, Any]] = {
    "4": {"rank": 1, "layers": "2-3", "num_groups": 4},
    "13": {"rank": 1, "layers": "2-3", "num_groups": 13},
    "13 of rank 2": {"rank": 2, "num_groups": 13},
    "13 tied": {"rank": 2, "num_groups": 1, "u": 13},
    "112": {"rank": 2, "num_groups": 28, "u": 4},
}
RATES = {"4": 5e-2, "13": 5e-2, "13 of rank 2": 5e-2, "13 tied": 5e-2, "112": 5e-2}
TARGETS = (0.5, 0.6)
T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # Student's t at 97.5 %, by number of seeds


@dataclass
class Course:
    """Where one run was after how many rollouts and seconds."""

    at: list[tuple[int, float, float]]  # rollouts, seconds, sampled accuracy
    greedy: float

    def reaching(self, target: float) -> tuple[float, float]:
        """Rollouts and seconds at which sampled accuracy was first that high."""
        return next(((r, s) for r, s, a in self.at if a >= target), (math.inf, math.inf))


def run(point: str, algorithm: str, seed: int, every: int, settings: dict[str, Any]) -> Course:
    """One run, measured every so many steps and at its end."""
    config = TrainConfig(algorithm=algorithm, seed=seed, **POINTS[point], **settings)
    prepared = prepare(config)
    with evaluation_mode(prepared.base.model):
        policy = METHODS["tinylora"].attach(prepared.base.model, config.adapter)
        engine = TransformersEngine(policy)
        work = Run(
            policy, engine, prepared.task, prepared.text, prepared.sampling, seed, config.steps
        )
        step = make_step(work, config.learning)
        rollouts, seconds, at = 0, 0.0, []
        for number in range(config.steps):
            start = time.perf_counter()
            metrics, _ = step(number)
            seconds += time.perf_counter() - start
            rollouts += int(metrics["rollouts"])
            if (number + 1) % every == 0 or number + 1 == config.steps:
                at.append((rollouts, seconds, prepared.exam.sampled(engine).accuracy))
        greedy = prepared.exam.greedy(engine).accuracy
        policy.detach()
    return Course(at, greedy)


def interval(values: list[float]) -> str:
    """Mean and the half of its 95 % interval over seeds."""
    mean = statistics.fmean(values)
    if len(values) not in T_95 or not math.isfinite(mean):
        return f"{mean:.1f}"
    return f"{mean:.1f} ± {T_95[len(values)] * statistics.stdev(values) / len(values) ** 0.5:.1f}"


def report(point: str, algorithm: str, courses: list[Course]) -> None:
    """A line for each target, and one for the end."""
    for target in TARGETS:
        rollouts, seconds = zip(*(course.reaching(target) for course in courses), strict=True)
        print(
            f"{point:14} {algorithm:5} {target:4.0%} sampled: "
            f"{interval(list(rollouts))} rollouts, {interval(list(seconds))} s"
        )
    greedy = interval([100 * course.greedy for course in courses])
    sampled = interval([100 * course.at[-1][2] for course in courses])
    ends = f"{courses[0].at[-1][0]} rollouts, {interval([c.at[-1][1] for c in courses])} s"
    print(f"{point:14} {algorithm:5} at the end ({ends}): greedy {greedy} %, sampled {sampled} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", nargs="+", default=["4", "13", "112"], choices=POINTS)
    parser.add_argument("--algorithms", nargs="+", default=["npg", "grpo"])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--every", type=int, default=1, help="steps between two measurements")
    parser.add_argument("--npg-steps", type=int, default=10)
    parser.add_argument("--eval-problems", type=int, default=256)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for point in options.points:
        for algorithm in options.algorithms:
            settings: dict[str, Any] = {"eval_problems": options.eval_problems, "eval_samples": 2}
            if algorithm == "npg":
                settings["steps"] = options.npg_steps
            else:
                settings |= {"steps": 60, "learning_rate": RATES[point]}
            courses = []
            for seed in options.seeds:
                courses.append(run(point, algorithm, seed, options.every, settings))
                path = " ".join(f"{100 * accuracy:.1f}" for _, _, accuracy in courses[-1].at)
                end = f"greedy {100 * courses[-1].greedy:.1f}, {courses[-1].at[-1][1]:.0f} s"
                print(f"  {point} {algorithm} seed {seed}: sampled {path}; {end}", flush=True)
            report(point, algorithm, courses)


if __name__ == "__main__":
    main()
