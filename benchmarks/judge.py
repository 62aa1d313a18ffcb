"""Programs per second: the judge against the plain way, on the same programs in the same run.

    python benchmarks/judge.py
    python benchmarks/judge.py --rounds 1 --problems knapsack occurrences

The programs are six contest solutions (`programs/`), each right (in two spellings), wrong (in two
spellings) and with a syntax error, and half of them also endless on the largest of ten tests. The
plain way is that of the source project: g++ and then every test by `subprocess.run`, one after
another, with a wall clock limit of 2 s. Both give partial credit, so both run every test. The two
take each round in turn, so that a machine busy with other things disturbs both alike; CPU seconds
(of this process and all its children) disturb less than wall seconds. Verdicts are compared.

`twice` is a batch in which every program occurs twice, as in a group of RL samples. The sandbox's
own share is what is left of the judge's CPU seconds without those of g++ and of the programs.
Aims: at least twice the plain way's programs per second; sandbox at most 10 % of g++ and programs.
"""

import argparse
import os
import platform
import random
import resource
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tinylora.rewards.code import compile
from tinylora.rewards.code.judging import Limits, Submission, Test, judge, judge_many
from tinylora.rewards.code.slots import NUM_CORES
from tinylora.rewards.verdict import Verdict

FOLDER = Path(__file__).parent / "programs"
SIZES = (1, 2, 5, 10, 30, 100, 300, 1000, 1500, 4000)
ENDLESS = "if ({} > 2000) for (volatile long i = 0; i >= 0; i = i + 1) {{}}"
CPU_S = 2.0
PATIENCE_S = 60.0  # wall time, so that no program is run again because others took the machine


@dataclass(frozen=True)
class Problem:
    """A right program's file, a mistake to make in it, where it may hang, and its inputs."""

    name: str
    mistake: tuple[str, str]
    endless_after: str | None
    make_input: Callable[[random.Random, int], str]
    size: str = "n"


def _graph(rng: random.Random, n: int) -> str:
    edges = [(rng.randrange(n), rng.randrange(n), rng.randint(1, 1000)) for _ in range(2 * n)]
    return f"{n} {2 * n}\n" + "".join(f"{a} {b} {w}\n" for a, b, w in edges)


def _numbers(rng: random.Random, n: int) -> str:
    return f"{n}\n" + " ".join(str(rng.randint(1, n)) for _ in range(n)) + "\n"


def _queries(rng: random.Random, n: int) -> str:
    lines = [
        f"+ {rng.randrange(n)} {rng.randint(-9, 9)}"
        if rng.random() < 0.5
        else f"? {rng.randrange(n)} {n}"
        for _ in range(n)
    ]
    return f"{n} {n}\n" + "\n".join(lines) + "\n"


def _things(rng: random.Random, n: int) -> str:
    pairs = [f"{rng.randint(1, 50)} {rng.randint(1, 1000)}" for _ in range(n)]
    return f"{n} {5 * n}\n" + "\n".join(pairs) + "\n"


def _text(rng: random.Random, n: int) -> str:
    return "".join(rng.choice("ab") for _ in range(n)) + "\naba\n"


UPWARDS = ("int c = capacity; c >= weight; c--", "int c = weight; c <= capacity; c++")
PROBLEMS = (
    Problem("shortest_path", ("d + w <", "d + 2 * w <"), "cin >> n >> m;", _graph),
    Problem("increasing", ("lower_bound", "upper_bound"), None, _numbers),
    Problem("range_sums", ("sums.sum(a)", "sums.sum(a + 1)"), "cin >> n >> q;", _queries),
    Problem("spanning_tree", ("parts = n", "parts = 0"), None, _graph),
    Problem("knapsack", UPWARDS, None, _things),
    Problem(
        "occurrences", ("k = border[k - 1]", "k = 0"), "cin >> text >> word;", _text, "text.size()"
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    names = [problem.name for problem in PROBLEMS]
    parser.add_argument("--problems", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    submissions = [
        submission
        for one in PROBLEMS
        if one.name in options.problems
        for submission in _submissions(one)
    ]
    judge(
        submissions[0].source, submissions[0].tests
    )  # the trial of the sandbox and its tools, once a process
    said = subprocess.run(["g++", "--version"], capture_output=True, text=True).stdout
    print(
        f"{len(submissions)} programs, {len(SIZES)} tests each, {said.splitlines()[0]}, Python "
        f"{platform.python_version()}, {NUM_CORES} cores, load {os.getloadavg()[0]:.1f}"
    )
    figures = [_round(submissions) for _ in range(options.rounds)]
    print(f"verdicts, the same of both: {dict(figures[0].verdicts)}")
    _report(figures, len(submissions))


@dataclass(frozen=True)
class Round:
    """Wall and CPU seconds of each way, and the shares of the judge's."""

    plain: tuple[float, float]
    judged: tuple[float, float]
    twice: tuple[float, float]
    compiler_s: float
    programs_s: float
    verdicts: Counter[str]


def _round(submissions: Sequence[Submission]) -> Round:
    plain, scores = _timed(lambda: [plain_way(submission) for submission in submissions])
    judged, verdicts = _timed(lambda: _judged_anew(submissions))
    twice, _ = _timed(lambda: _judged_anew([*submissions, *submissions]))
    theirs = [verdict.score for verdict in verdicts]
    assert scores == theirs, f"the two ways disagree: {list(zip(scores, theirs, strict=True))}"
    return Round(
        plain, judged, twice,
        sum(verdict.details["compile_cpu_s"] for verdict in verdicts),
        sum(verdict.details["run_cpu_s"] for verdict in verdicts),
        Counter(verdict.reason for verdict in verdicts),
    )  # fmt: skip


def _report(rounds: Sequence[Round], num_programs: int) -> None:
    ways = (("plain", num_programs), ("judged", num_programs), ("twice", 2 * num_programs))
    for way, count in ways:
        wall, cpu = (median(getattr(one, way)[i] for one in rounds) for i in (0, 1))
        print(f"{way:7} {count / wall:5.2f} programs/s, {cpu / count:5.2f} CPU s a program")
    for way, count in ways[1:]:
        wall, cpu = (
            median(one.plain[i] / getattr(one, way)[i] for one in rounds) * count / num_programs
            for i in (0, 1)
        )
        print(f"{way} / plain: {wall:.2f} times the programs/s, 1/{cpu:.2f} of the CPU s")
    work = [one.compiler_s + one.programs_s for one in rounds]
    own = median(one.judged[1] / useful - 1 for one, useful in zip(rounds, work, strict=True))
    compiler = median(one.compiler_s / one.judged[1] for one in rounds)
    print(f"of the judge's CPU s: g++ {compiler:.1%}; sandbox {own:.1%} of g++ and programs")


def _submissions(problem: Problem) -> list[Submission]:
    """This problem's programs, with tests whose outputs are the right program's."""
    right = (FOLDER / f"{problem.name}.cpp").read_text(encoding="utf-8")
    assert problem.mistake[0] in right
    wrong = right.replace(*problem.mistake)
    sources = [right, f"// again\n{right}", wrong, f"// again\n{wrong}", right.replace(";", "", 1)]
    if problem.endless_after:
        assert problem.endless_after in right
        hang = f"{problem.endless_after} {ENDLESS.format(problem.size)}"
        sources.append(right.replace(problem.endless_after, hang))
    rng = random.Random(problem.name)
    inputs = [problem.make_input(rng, size) for size in SIZES]
    tests = tuple(map(Test, inputs, _outputs(right, inputs)))
    limits = Limits(cpu_s=CPU_S, wall_s=PATIENCE_S)
    return [Submission(source, tests, limits, scheme="graded") for source in sources]


def _outputs(source: str, inputs: Sequence[str]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        program = _compiled(source, folder)
        assert program
        return [_output(program, given) or "" for given in inputs]


def plain_way(submission: Submission) -> float:
    """The score by g++ and subprocess.run."""
    with tempfile.TemporaryDirectory() as folder:
        program = _compiled(str(submission.source), folder)
        if program is None:
            return 0.0
        num_passed = 0
        for test in submission.tests:
            output = _output(program, str(test.input))
            num_passed += output is not None and output.split() == str(test.output).split()
        return 0.5 + 0.5 * num_passed / len(submission.tests)


def _compiled(source: str, folder: str) -> str | None:
    path, program = Path(folder, "main.cpp"), str(Path(folder, "a.out"))
    path.write_text(source, encoding="utf-8")
    command = ["g++", "-O2", "-std=gnu++17", "-w", str(path), "-o", program]
    return None if subprocess.run(command, capture_output=True).returncode else program


def _output(program: str, given: str) -> str | None:
    try:
        done = subprocess.run(
            [program], input=given, capture_output=True, text=True, timeout=CPU_S, check=True
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return None
    return done.stdout


def _judged_anew(submissions: Sequence[Submission]) -> list[Verdict]:
    """As in a new process: no program is remembered from the round before."""
    compile._kept = compile._Kept()
    return judge_many(submissions)


def _timed(run: Callable[[], list[Any]]) -> tuple[tuple[float, float], list[Any]]:
    wall, cpu = time.perf_counter(), _cpu_s()
    result = run()
    return (time.perf_counter() - wall, _cpu_s() - cpu), result


def _cpu_s() -> float:
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)


if __name__ == "__main__":
    main()
