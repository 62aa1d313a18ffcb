"""Competition problems: formats of rows, which tests stay, what is left out, programs found."""

import gzip
import json
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from helpers.real_data import DATA, needs_data
from tinylora.errors import RequestError
from tinylora.rewards.code import Limits, Test
from tinylora.rewards.code.selftest import mechanism_for
from tinylora.rewards.code.toolbox import SandboxUnavailable
from tinylora.settings import TaskConfig
from tinylora.tasks import Problem, Task, load_task
from tinylora.tasks import programs as tasks
from tinylora.tasks.programs import LeftOut, Statement, choose_tests, parse_tests, program_in

ECHO = "#include <iostream>\nint main() { int n; std::cin >> n; std::cout << n; }"
WRONG = "int main() {}"


@pytest.fixture
def unproved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading rows needs no sandbox."""
    monkeypatch.setattr(tasks, "mechanism_for", lambda unsafe: "bwrap")


def hub_row(name: str, **fields: Any) -> dict[str, Any]:
    """A row in the format of deepmind/code_contests."""
    tests = {"input": ["1\n", "2\n"], "output": ["1\n", "2\n"]}
    return {
        "name": name,
        "description": f"Print the number n ({name}).",
        "public_tests": tests,
        "private_tests": {"input": ["3"], "output": ["3"]},
        "generated_tests": {"input": ["4", "1\n"], "output": ["4", "1\n"]},
        "source": 2,
        "difficulty": 7,
        "solutions": {"language": [1, 2, 2], "solution": ["print(1)", ECHO, "other"]},
        "incorrect_solutions": {"language": [3, 2], "solution": ["no", WRONG]},
        "time_limit": {"seconds": 1, "nanos": 500_000_000},
        "memory_limit_bytes": 64_000_000,
        "input_file": "",
        "output_file": "",
        **fields,
    }


def contests(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> Task:
    parquet.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    parquet.write_table(pa.Table.from_pylist([hub_row("held out")]), folder / "test.parquet")
    return load_task("code_contests", TaskConfig(data=str(folder), **settings))


def inputs(problem: Problem) -> list[str]:
    return [given for given, _ in problem.columns["tests"]]


def test_a_row_of_the_hub_brings_tests_limits_and_programs(tmp_path: Path, unproved: None) -> None:
    (problem,) = contests(tmp_path, [hub_row("a")]).train
    columns = problem.columns
    assert (columns["source"], columns["difficulty"]) == ("CODEFORCES", "A")
    assert (columns["cpu_s"], columns["memory_mb"]) == (1.5, 64)
    assert problem.solution == f"```cpp\n{ECHO}\n```"
    assert columns["rejected"] == f"```cpp\n{WRONG}\n```"
    assert inputs(problem)[:2] == ["1\n", "2\n"]
    assert sorted(inputs(problem)) == ["1\n", "2\n", "3", "4"]  # the double is gone
    assert problem.prompt.startswith("Print the number n (a).\n\nWrite a C++17 program")
    assert (problem.plain or "").endswith("Solution in C++17:\n```cpp\n")


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, ["a", "b", "easy", "hard"]),
        ({"difficulties": ("A", "B", "EASY")}, ["a", "b", "easy"]),
        ({"sources": ("codeforces",)}, ["a", "hard"]),
        ({"sources": ("ATCODER",), "difficulties": ("b",)}, ["b"]),
    ],
)
def test_sources_and_difficulties_choose_problems(
    tmp_path: Path, unproved: None, settings: dict[str, Any], names: list[str]
) -> None:
    rows = [
        hub_row("a"),
        hub_row("b", source=5, difficulty=8),
        hub_row("easy", source=3, difficulty=1),
        hub_row("hard", difficulty=12),
    ]
    train = contests(tmp_path, rows, **settings).train if names else []
    assert [re.findall(r"\((\w+)\)", p.prompt)[0] for p in train] == names


def test_unknown_sources_are_refused(tmp_path: Path, unproved: None) -> None:
    with pytest.raises(RequestError, match=r"sources = TOPCODER, but CodeContests has UNKNOWN_S"):
        contests(tmp_path, [hub_row("a")], sources=("TOPCODER",))
    with pytest.raises(RequestError, match=r"sources = leetcode, but DeepCoder has primeintellect"):
        load_task("deepcoder", TaskConfig(data=str(tmp_path), sources=("leetcode",)))


LEFT_OUT = {
    "several": "Find a tree. If there are multiple answers, print any of them.",
    "any order": "Print the edges of the tree in any order.",
    "interactive": "This is an interactive problem. Guess the number.",
}


def test_what_cannot_be_judged_is_left_out_and_counted(tmp_path: Path, unproved: None) -> None:
    rows = [hub_row(name, description=text) for name, text in LEFT_OUT.items()]
    rows += [hub_row("file", input_file="in.txt"), hub_row("kept")]
    none: dict[str, list[str]] = {"input": [], "output": []}
    rows.append(hub_row("bare", public_tests=none, private_tests=none, generated_tests=none))
    task = contests(tmp_path, rows)
    assert [problem.prompt[:25] for problem in task.train] == ["Print the number n (kept)"]
    assert task.notes == (
        "5 of 6 problems of code_contests left out: 2 with several right answers and no checker, "
        "1 interactive, 1 that read or write files, 1 without a test within the caps.",
    )


@pytest.mark.parametrize(
    "statement",
    [
        "Print the number of ways. The operations can be done in any order.",
        "In one move you can pick any number and double it. Print the sum.",
        "If there are several such cells, choose the leftmost. Print its column.",
        "He can choose any of them. If you output any other number, it is wrong.",
    ],
)
def test_one_right_answer_is_one_however_it_is_told(statement: str) -> None:
    assert not tasks.accepts_any(statement)


FIFTY = [Test(f"{i:04}", "") for i in range(50)]
MANY = Statement("s", {"public": [Test("p", "")], "private": FIFTY})


def chosen(**settings: Any) -> list[Any]:
    return [test.input for test in choose_tests(MANY, TaskConfig(**settings))]


def test_the_choice_of_tests_is_the_seeds_and_within_the_caps() -> None:
    few = chosen(max_tests=5)
    assert few[0] == "p"
    assert len(few) == 5
    assert few == chosen(max_tests=5) == chosen(max_tests=9)[:5]
    assert few != chosen(max_tests=5, tests_seed=1)
    assert len(chosen(max_test_bytes=17)) == 1 + 4  # of 1 and 4 bytes
    assert len(chosen(max_tests=100)) == 51
    assert chosen(test_sources=("public",)) == ["p"]
    with pytest.raises(LeftOut, match="without a test within the caps"):
        chosen(test_sources=("generated",))


def test_the_order_of_the_rows_tests_does_not_matter() -> None:
    turned = Statement("s", {"private": FIFTY[::-1]})
    settings = TaskConfig(max_tests=7, test_sources=("private",))
    assert choose_tests(turned, settings) == choose_tests(MANY, settings)


PAIR = [Test("1\n2", "3")]


@pytest.mark.parametrize(
    "held",
    [
        {"inputs": ["1\n2"], "outputs": ["3"]},
        {"input": ["1\n2"], "output": ["3"]},
        [{"input": "1\n2", "output": "3"}],
        [{"type": "stdin_stdout", "input": "1\n2", "output": "3", "fn_name": None}],
        [{"testtype": "stdin", "input": "1\n2", "output": "3", "metadata": {"func_name": None}}],
        [{"input": {"stdin": "1\n2"}, "output": {"stdout": "3"}}],
        {"inputs": [["1", "2"]], "outputs": [["3"]]},
    ],
)
def test_tests_come_in_many_shapes(held: Any) -> None:
    assert parse_tests(held) == parse_tests(json.dumps(held)) == PAIR


@pytest.mark.parametrize(
    "held",
    [
        {"fn_name": "solve", "inputs": [[1]], "outputs": [2]},
        [{"type": "function_call", "fn_name": "solve", "input": [1], "output": 2}],
        [{"testtype": "functional", "input": "1", "output": "2"}],
    ],
)
def test_tests_of_a_function_are_none_of_a_program(held: Any) -> None:
    with pytest.raises(LeftOut, match="that want a function"):
        parse_tests(held)


@pytest.mark.parametrize(
    ("statement", "limits"),
    [
        ("Add.\n\nTime Limit: 1500 ms\nMemory Limit: 64 MB\n", Limits(cpu_s=1.5, memory_mb=64)),
        (
            "Add.\nTime Limit: {'seconds': 3, 'nanos': 500000000}\nMemory Limit: 512000000 Bytes\n",
            Limits(cpu_s=3.5, memory_mb=512),
        ),
        ("Add.", Limits(cpu_s=2, memory_mb=256)),
    ],
)
def test_limits_stand_at_the_end_of_a_statement(statement: str, limits: Limits) -> None:
    assert tasks.limits_in(statement) == limits


def test_deepcoder_reads_its_collections(tmp_path: Path, unproved: None) -> None:
    program = {"type": "stdin_stdout", "input": "1", "output": "2"}
    function = {"type": "x", "fn_name": "f", "input": [], "output": 1}
    rows: dict[str, list[dict[str, Any]]] = {
        "primeintellect/train.jsonl": [
            {"problem": "p1", "tests": json.dumps([program])},
            {"problem": "p2", "tests": json.dumps([function])},
        ],
        "taco/train-0-of-1.jsonl": [
            {"problem": "t", "tests": {"inputs": ["1"], "outputs": ["2"]}},
        ],
        "lcbv5/train.jsonl": [{"problem": "l", "starter_code": "class Solution", "tests": "[]"}],
        "lcbv5/test.jsonl": [
            {"problem": "l2", "tests": [{"testtype": "stdin", "input": "1", "output": "2"}]}
        ],
        "codeforces/test.jsonl": [{"problem": "c", "tests": [{"input": "1", "output": "2"}]}],
    }
    for name, held in rows.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in held))
    task = load_task("deepcoder", TaskConfig(data=str(tmp_path)))
    assert [p.prompt.split("\n")[0] for p in task.train] == ["p1", "t"]
    assert [p.prompt.split("\n")[0] for p in task.test] == ["c", "l2"]
    assert task.notes == (
        "2 of 4 problems of deepcoder left out: 2 that want a function, not a program.",
    )
    only = load_task("deepcoder", TaskConfig(data=str(tmp_path), sources=("taco", "lcbv5")))
    assert (len(only.train), len(only.test)) == (1, 1)


def test_a_row_of_another_format_is_named(tmp_path: Path, unproved: None) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "q", "answer": "a"}\n')
    with pytest.raises(RequestError, match=r"rows.jsonl, line 1 is no row of task code_contests "):
        load_task("code_contests", TaskConfig(data=str(path)))


@pytest.mark.parametrize(
    "changed", [{"difficulty": 99}, {"public_tests": "[1]"}, {"generated_tests": "{"}]
)
def test_a_row_that_breaks_off_from_its_format_is_named(
    tmp_path: Path, unproved: None, changed: dict[str, Any]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**hub_row("a"), **changed}))
    with pytest.raises(RequestError, match=r"rows.jsonl, line 1 is no row of task code_contests "):
        load_task("code_contests", TaskConfig(data=str(path)))


INSIDE = "#include <cstdio>\nint main() {}\n"


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("So:\n```cpp\nA\n```\nor\n```c++\nB\n```\n", "\nB\n"),
        ("```cpp\nA\n```\nrun it:\n```python\nB\n```", "\nA\n"),
        ("```cpp\nA\n```\nbetter:\n```cpp\nB", "\nA\n"),  # the budget ended the second
        ("only:\n```cpp\nB", "\nB"),
        ("```\nA\n```", "\nA\n"),
        (f"{INSIDE}```\nIt reads\n```\ninput\n```", INSIDE),  # from an open fence on
        (INSIDE, INSIDE),
        ("<think>\n```cpp\nA\n```\n</think>\n```cpp\nB\n```", "\nB\n"),
        ("I do not know.", None),
        ("```python\nprint(1)\n```", None),
        ("", None),
    ],
)
def test_the_last_fenced_block_of_cpp_is_the_program(answer: str, program: str | None) -> None:
    found = program_in(answer)
    assert found == program or (found or "").strip() == (program or "").strip() != ""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        cache = str(tmp_path_factory.getbasetemp().parent / "judge")
        patch.setenv("TINYLORA_CACHE", cache)
        try:
            mechanism_for(unsafe_no_sandbox=False)
        except SandboxUnavailable as reason:
            pytest.skip(f"PROGRAMS ARE NOT JUDGED HERE: {reason}")
        yield


@pytest.mark.parametrize(
    ("settings", "scores"),
    [
        ({}, [1.0, 0.5, 0.5 + 0.5 / 4, 0.0, 0.0]),
        ({"scheme": "binary"}, [1.0, 0.0, 0.0, 0.0, 0.0]),
        ({"factors": ("CODEFORCES=0.5", "A=0.5")}, [0.25, 0.125, 0.15625, 0.0, 0.0]),
    ],
)
def test_answers_are_compiled_run_and_scored(
    tmp_path: Path, sandbox: None, settings: dict[str, Any], scores: list[float]
) -> None:
    task = contests(tmp_path, [hub_row("a")], **settings)
    one = '#include <cstdio>\nint main() { puts("1"); }'
    answers = [tasks.fenced(code) for code in (ECHO, WRONG, one, "int main( {}")]
    assert task.grade_many is not None
    verdicts = task.grade_many([task.train[0]] * 5, [*answers, "no idea"])
    assert [verdict.score for verdict in verdicts] == scores
    assert [verdict.is_right for verdict in verdicts] == [True, False, False, False, False]
    assert [verdict.details["compiled"] for verdict in verdicts] == [True, True, True, False, False]


def test_accepted_programs_are_right_and_rejected_ones_are_not(
    tmp_path: Path, sandbox: None
) -> None:
    from tinylora.tasks.check import check

    task = contests(tmp_path, [hub_row("a"), hub_row("b", solutions=None)])
    found = check(task, task.train)
    assert (dict(found.kinds), found.num_without_answer) == ({"valid": 2}, 1)
    assert found.is_gradable


@pytest.mark.parametrize("factor", ["EASY", "EASY=2", "EASY=0", "=1"])
def test_a_factor_that_is_none_is_refused(factor: str) -> None:
    with pytest.raises(RequestError, match=f'factors = "{factor}", but a factor is NAME=NUMBER'):
        TaskConfig(factors=(factor,))


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_the_setting_without_a_wall_reaches_the_judge_and_every_verdict(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        task = contests(tmp_path, [hub_row("a")], unsafe_no_sandbox=True)
        assert task.grade_many is not None
        answers = [tasks.fenced(ECHO), tasks.fenced("int main( {}"), "no idea"]
        verdicts = task.grade_many([task.train[0]] * 3, answers)
    assert [verdict.reason for verdict in verdicts] == ["AC", "CE", "no program"]
    assert [verdict.details["sandbox"] for verdict in verdicts] == ["none"] * 3


@needs_data
@pytest.mark.parametrize(
    ("name", "file", "kept", "several", "interactive"),
    [
        ("code_contests", "code_contests_test165", 126, 36, 3),
        ("deepcoder", "codeforces_408", 352, 40, 16),
    ],
)
def test_the_real_files_keep_what_can_be_judged(
    unproved: None, name: str, file: str, kept: int, several: int, interactive: int
) -> None:
    path = DATA / "code" / f"{file}.json.gz"
    with gzip.open(path, "rt", encoding="utf-8") as held:
        total = len(json.load(held))
    task = load_task(name, TaskConfig(data=str(path)))
    assert (len(task.train), len(task.test)) == (0, kept)
    assert task.notes == (
        f"{total - kept} of {total} problems of {name} left out: {several} with several right "
        f"answers and no checker, {interactive} interactive.",
    )
    assert max(len(problem.columns["tests"]) for problem in task.test) <= 20
