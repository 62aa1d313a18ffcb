"""What the playground shows of the embedded model, and what it costs.

    python benchmarks/playground.py [--threads 1]      (2 minutes on one CPU core)

Greedy answers to 64 test problems under the run of 13 numbers that comes with the embedded model:
how many are right and how many broken as its strength changes, under random directions of the same
norm, and with prompts in place of v. Times are processor seconds of this process.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from tinylora.evaluate.exam import random_values
from tinylora.play.opening import Playground, open_model
from tinylora.play.steering import Question
from tinylora.settings.evaluate import EvalConfig

STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, -1.0)
NUM_RANDOM, NUM_LINE = 6, 17


def row(playground: Playground, name: str, values: Tensor) -> None:
    """One candidate: right and broken answers, and the nats a token that the base gives them."""
    judged = playground.steering.judged(values[None], playground.problems)
    letters = [one.letter for one in judged]
    nats = -sum(one.base_logprob for one in judged) / len(judged)
    print(f"| {name} | {letters.count('r')} | {letters.count('b')} | {nats:.2f} |")


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    config = EvalConfig(model="pocket", task="pocket", device="cpu")
    start = time.process_time()
    playground = open_model("pocket", None, config, num_problems=64)
    print(f"opening: {time.process_time() - start:.2f} s")
    steering, problems, v = playground.steering, playground.problems, playground.contents.v
    print("| v | right of 64 | broken | nats a token |", "|---|---|---|---|", sep="\n")
    for strength in STRENGTHS:
        row(playground, f"trained x {strength:g}", strength * v)
    for place, values in enumerate(random_values(v, seed=0, count=NUM_RANDOM)):
        row(playground, f"random {place}", values)
    print("| prompt, on 32 training problems | accuracy |", "|---|---|", sep="\n")
    for tried in playground.prompts:
        print(f"| {tried.instruction.name} | {tried.accuracy:.0%} |")
    line = torch.stack([x * v for x in torch.linspace(-1, 3, NUM_LINE)])
    question = Question(problems[0], problems[0])
    print(f"two answers, coloured: {seconds(lambda: list(steering.answers(question, v))):.2f} s")
    print(f"gauge, 64 problems: {seconds(lambda: steering.measure(v[None], problems)):.2f} s")
    print(f"line, 17 x 64 problems: {seconds(lambda: steering.measure(line, problems)):.2f} s")


if __name__ == "__main__":
    main()
