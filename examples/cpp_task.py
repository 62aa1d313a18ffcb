"""A task whose answers are C++ programs: three problems, each with its tests.

    tinylora check-rewards examples/cpp_task.py:make       # the judge, proved on right programs
    tinylora train --task examples/cpp_task.py:make --model Qwen/Qwen2.5-Coder-3B-Instruct

The first command needs g++ and bubblewrap, no model, and a few seconds. Expect: 3 problems valid (2
to train on, 1 to test on), 0 invalid. The second is for a model that can write C++, which the
embedded one cannot. Three problems are an example and not a training set; give the same function a
few hundred.

Programs run in a sandbox (docs/concepts/sandbox.md says what it does not cover). The reward is
graded: 0 does not compile, 0.5 compiles, 0.5 + 0.5 k/n with k of n tests passed, 1 all.
"""

from collections.abc import Sequence

from tinylora import Problem, Task, Verdict
from tinylora.rewards.code import Limits, Test, judge_many
from tinylora.rewards.code.judging import Submission
from tinylora.tasks.program_answers import program_in

INSTRUCTION = (
    "Write a C++17 program that reads from the standard input and writes to the standard output. "
    "Give the whole program in one block:\n```cpp\n// your program\n```"
)
START = "#include <bits/stdc++.h>\nusing namespace std;\n"
SUM = START + "int main() { long long a, b; cin >> a >> b; cout << a + b; }"
LARGEST = START + (
    "int main() { int n; cin >> n; vector<int> x(n); for (int& y : x) cin >> y;\n"
    "  cout << *max_element(x.begin(), x.end()); }"
)
MIRROR = START + (
    "int main() { string s; cin >> s; string t(s.rbegin(), s.rend());\n"
    '  cout << (s == t ? "YES" : "NO"); }'
)


def problem(statement: str, tests: Sequence[tuple[str, str]], accepted: str) -> Problem:
    """A statement with its tests; the accepted program is what check-rewards tries."""
    return Problem(
        f"{statement}\n\n{INSTRUCTION}",
        f"passes {len(tests)} tests",
        solution=f"```cpp\n{accepted}\n```",
        columns={"tests": [list(test) for test in tests]},
    )


def make() -> Task:
    """Two problems to train on, one to test on."""
    train = [
        problem(
            "Print the sum of two whole numbers, each at most 10^18 in size.",
            [("1 2", "3"), ("-5 5", "0"), ("1000000000000000000 1", "1000000000000000001")],
            SUM,
        ),
        problem(
            "The first line holds n (at most 1000), the second n whole numbers. Print the largest.",
            [("3\n1 7 2", "7"), ("1\n-4", "-4"), ("4\n-3 -9 -1 -1", "-1")],
            LARGEST,
        ),
    ]
    test = [
        problem(
            "Print YES if the given word reads the same backwards, else NO.",
            [("level", "YES"), ("ab", "NO"), ("x", "YES")],
            MIRROR,
        )
    ]
    return Task(
        "three programs",
        train,
        test,
        None,
        max_new_tokens=512,
        grade_many=grade_many,
        right_answer=lambda problem: problem.solution,
        wrong_answer=lambda problem: "```cpp\nint main() { return 1; }\n```",
        answer_of=program_in,
    )


def grade_many(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
    """Judge the program in each completion; one without a program is wrong."""
    programs = [program_in(text) for text in completions]
    submissions = [
        Submission(
            source,
            tuple(Test(given, wanted) for given, wanted in problem.columns["tests"]),
            Limits(cpu_s=2, memory_mb=256),
            scheme="graded",
        )
        for problem, source in zip(problems, programs, strict=True)
        if source is not None
    ]
    judged = iter(judge_many(submissions))
    return [Verdict(0.0, "no program") if s is None else next(judged) for s in programs]
