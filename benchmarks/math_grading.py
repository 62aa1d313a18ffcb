"""Numeric answers graded per second, beside plain math-verify on the same answers.

    python benchmarks/math_grading.py                      # 4,000 answers, two processes
    python benchmarks/math_grading.py --answers 500 --processes 1

The answers are made here: integers, decimals, fractions, money, powers of ten, a quarter of them
wrong, in boxes at the end of a few sentences, none of them twice, so that no cache helps. Both
sides get the same texts in as many processes; math-verify's own time-outs are on, as its users run
it. Aim: 500 answers per second on two cores.
"""

import argparse
import importlib.metadata
import logging
import os
import platform
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from tinylora.rewards.math import grade_many

Pair = tuple[str, str]


def main() -> None:
    options = _options()
    pairs = list(make_pairs(options.answers))
    print(
        f"math-verify {importlib.metadata.version('math-verify')}, Python "
        f"{platform.python_version()}, {os.cpu_count()} cores, {options.processes} processes, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    rates = []
    for name, judge in (("tinylora", by_tinylora), ("math-verify", by_math_verify)):
        rate, right = measure(judge, pairs, options.processes)
        rates.append(rate)
        print(f"{name}: {rate:,.0f} answers/s, {right} of {len(pairs)} judged right", flush=True)
    print(f"ratio {rates[0] / rates[1]:.1f}")


def measure(
    judge: Callable[[list[Pair]], list[bool]], pairs: list[Pair], processes: int
) -> tuple[float, int]:
    """Answers per second, once imports are paid for, and how many of them were judged right."""
    chunks = [pairs[i : i + 50] for i in range(0, len(pairs), 50)]
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(judge, [pairs[:2]] * 2 * processes))
        start = time.perf_counter()
        accepted = [each for chunk in pool.map(judge, chunks) for each in chunk]
        seconds = time.perf_counter() - start
    return len(pairs) / seconds, sum(a == (i % 4 > 0) for i, a in enumerate(accepted))


def by_tinylora(pairs: list[Pair]) -> list[bool]:
    return [verdict.score == 1 for verdict in grade_many(pairs, "boxed")]


def by_math_verify(pairs: list[Pair]) -> list[bool]:
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    return [verify(parse(f"${gold}$"), parse(text)) for gold, text in pairs]


def make_pairs(count: int) -> list[Pair]:
    """(gold, completion), every fourth one wrong."""
    random_numbers = random.Random(0)
    pairs = []
    for i in range(count):
        number = random_numbers.randrange(10**4, 10**8)
        gold, same = _SPELLINGS[i % len(_SPELLINGS)](number)
        answer = same if i % 4 else _SPELLINGS[i % len(_SPELLINGS)](number + 1)[1]
        steps = " ".join(f"Step {k}: we add {k} and get ${number - k}$." for k in range(8))
        pairs.append((gold, rf"{steps} The answer is \boxed{{{answer}}}."))
    return pairs


_SPELLINGS: tuple[Callable[[int], Pair], ...] = (
    lambda n: (str(n), str(n)),
    lambda n: (str(n), f"{n:,}"),
    lambda n: (f"{n / 1000}", rf"\frac{{{n}}}{{1000}}"),
    lambda n: (rf"\frac{{{n}}}{{7}}", rf"\dfrac{{{2 * n}}}{{14}}"),
    lambda n: (str(n), rf"\$ {n}.00"),
    lambda n: (str(n * 10**6), rf"{n} \times 10^{{6}}"),
    lambda n: (str(-n), f"x = -{n}"),
)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=int, default=4000)
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
