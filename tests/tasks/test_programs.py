"""Competition problems: formats of rows, which tests stay, what is left out, programs found."""

import base64
import gzip
import json
import pickle
import re
import shutil
import warnings
import zlib
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
from tinylora.tasks.program_rows import LeftOut, Statement, parse_tests
from tinylora.tasks.programs import choose_tests
from tinylora.tasks.statements import (
    accepts_any,
    how_judged,
    is_interactive,
    limits_in,
    names_files,
)

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
    assert not accepts_any(statement)


SEVERAL = [
    "If there are multiple ways to do it, any of them will be accepted.",
    "If there are many answers, you can print any of them.",
    "If there are several solutions, you may output any one.",
    "If there are multiple correct answers, output any.",
    "If multiple solutions exist, any one will be accepted.",
    "If there is more than one solution, any of them is acceptable.",
    "If there are multiple answers, print one of them.",
    "If there are multiple such sequences, any of them is considered correct.",
    "Any valid answer will be accepted.",
    "Multiple answers are accepted.",
    "If the answer is not unique, output any of them.",
    "The numbers can be printed in any order.",
    "If there are several solutions, you can choose any.",
    "If there exist several such permutations, you should output any of them.",
    "Print an arbitrary one.",
    "If more than one answer is possible, any will do.",
    "All of them will be accepted.",
    "If several answers exist, output arbitrary one.",
    "If there are multiple pairs, you may provide any of them.",
]


@pytest.mark.parametrize("statement", SEVERAL)
def test_sentences_that_allow_several_answers(statement: str) -> None:
    assert accepts_any(f"Find a path. {statement} Then stop.")


@pytest.mark.parametrize(
    "statement",
    [
        "Do not print any extra spaces. Don't output any text.",
        "If there are multiple edges between any pair of vertices, count them once.",
        "If there are several identical minima, Yelisei can choose any of them. Print the sum.",
        "He can give one of them to Alice. If there are several maxima, it can be any one of them.",
        "He can submit any problem. Print the most points.",
    ],
)
def test_who_else_may_choose_any_is_no_matter(statement: str) -> None:
    assert not accepts_any(statement)


def test_a_game_of_cards_with_a_flush_is_not_interactive() -> None:
    assert not is_interactive("A royal flush beats a straight flush.")
    assert is_interactive("After each query flush the output.")
    assert is_interactive("Use fflush(stdout) in C++.")


@pytest.mark.parametrize(
    ("statement", "tolerance"),
    [
        ("Your answer is correct if its absolute or relative error does not exceed 10^{-4}.", 1e-4),
        ("with an error of at most 10\u207b\u2076", 1e-6),
        ("The relative error must be less than 1e-9.", 1e-9),
        ("The answer must not differ from the jury's by more than 0.00001.", 1e-5),
        ("Print it with an absolute or relative error that is small.", 1e-6),
        ("The absolute difference of two weights is at most 10^9.", None),
        ("Print the sum of absolute differences.", None),
        ("Print the number of typing errors.", None),
    ],
)
def test_the_tolerance_is_the_statements(statement: str, tolerance: float | None) -> None:
    assert how_judged(statement).tolerance == tolerance


@pytest.mark.parametrize(
    ("statement", "any_case"),
    [
        ("You can output each letter in any case (upper or lower).", True),
        ("You can print each letter in any register.", True),
        ("In any case, print the sum.", False),
        ("Print the word as it is in the input.", False),
    ],
)
def test_the_case_is_free_where_the_statement_says_so(statement: str, any_case: bool) -> None:
    assert how_judged(statement).any_case is any_case


@pytest.mark.parametrize("unit", ["absolute ", "a 10^-", "error ", "if several ", "print ", "1 "])
def test_the_patterns_take_a_huge_statement(unit: str) -> None:
    """In time in proportion to it: a quadratic one would take hours."""
    text = unit * ((1 << 18) // len(unit))
    how_judged(text), accepts_any(text), is_interactive(text), names_files(text), limits_in(text)


def test_answers_are_compared_as_the_statement_says(tmp_path: Path, sandbox: None) -> None:
    """A rounded decimal, and Alice in capitals."""
    decimal = {"input": ["1"], "output": ["0.3333333333"]}
    named = {"input": ["1"], "output": ["Alice"]}
    none: dict[str, list[str]] = {"input": [], "output": []}
    rows = [
        hub_row("a", description="Absolute or relative error of 10^-4.", public_tests=decimal,
                private_tests=none, generated_tests=none),
        hub_row("b", description="Print each letter in any case.", public_tests=named,
                private_tests=none, generated_tests=none),
    ]  # fmt: skip
    task = contests(tmp_path, rows)
    assert task.grade_many is not None
    says = [f'#include <cstdio>\nint main() {{ puts("{w}"); }}' for w in ("0.33334", "ALICE")]
    verdicts = task.grade_many(task.train, [tasks.fenced(program) for program in says])
    assert [verdict.reason for verdict in verdicts] == ["AC", "AC"]
    strict = contests(tmp_path, rows, output_compare="tokens")
    assert strict.grade_many is not None
    verdicts = strict.grade_many(strict.train, [tasks.fenced(program) for program in says])
    assert [verdict.reason for verdict in verdicts] == ["WA", "WA"]


FIFTY = [Test(f"{i:03}", "1") for i in range(50)]
MANY = Statement("s", {"public": [Test("p", "1")], "private": FIFTY})


def chosen(**settings: Any) -> list[Any]:
    return [test.input for test in choose_tests(MANY, TaskConfig(**settings))]


def test_the_choice_of_tests_is_the_seeds_and_within_the_caps() -> None:
    few = chosen(max_tests=5)
    assert few[0] == "p"
    assert len(few) == 5
    assert few == chosen(max_tests=5) == chosen(max_tests=9)[:5]
    assert few != chosen(max_tests=5, tests_seed=1)
    assert len(chosen(max_test_bytes=18)) == 1 + 4  # of 2 and 4 bytes
    assert len(chosen(max_tests=100)) == 51
    assert chosen(test_sources=("public",)) == ["p"]
    with pytest.raises(LeftOut, match="without a test within the caps"):
        chosen(test_sources=("generated",))


def test_evaluation_can_have_more_tests_than_training(tmp_path: Path, sandbox: None) -> None:
    rows = [hub_row(name) for name in ("a", "b", "c")]
    one = contests(tmp_path, rows, max_tests=2, max_eval_tests=3)
    assert [len(p.columns["tests"]) for p in one.train] == [2] * len(one.train)
    assert [len(p.columns["tests"]) for p in one.test] == [3] * len(one.test)
    assert one.train[0].gold == "passes 2 tests"
    assert (one.train[0].columns["tests"], len(one.test) > 0) == (
        contests(tmp_path, rows, max_tests=2).train[0].columns["tests"],
        True,
    )


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
        ("time limit per test: 4 seconds\nAdd.", Limits(cpu_s=4, memory_mb=256)),
        ("Time Limit: 4.0 seconds\nmemory limit per test 512 megabytes", Limits(4.0, None, 512)),
        ("Time Limit: 2 sec / Memory Limit: 1024 MB", Limits(2.0, None, 1024)),
    ],
)
def test_limits_stand_at_the_end_of_a_statement(statement: str, limits: Limits) -> None:
    assert limits_in(statement) == limits


WEAK = tuple(
    "2 of the 2 problems of deepcoder that remain have at most 2 tests, which a program with "
    f"hard-coded outputs can pass. Leave them out with --min-tests {n}."
    for n in (3, 3)
)


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
        *WEAK,
    )
    only = load_task("deepcoder", TaskConfig(data=str(tmp_path), sources=("taco", "lcbv5")))
    assert (len(only.train), len(only.test)) == (1, 1)


def test_rows_of_another_format_are_named(tmp_path: Path, unproved: None) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "q", "answer": "a"}\n')
    with pytest.raises(
        RequestError, match=r"rows.jsonl, line 1 is not a row of task code_contests"
    ):
        load_task("code_contests", TaskConfig(data=str(path)))


ODD: list[dict[str, Any]] = [
    {"public_tests": {"input": ["1", "2"], "output": ["1"]}},  # more inputs than outputs
    {"generated_tests": "{"},
    {"public_tests": "[1]"},
    {"public_tests": 7},
    {"public_tests": {"input": ["1"], "output": [True]}},
    {"description": 5},
    {"description": ""},
    {"description": None},
]


@pytest.mark.parametrize("changed", ODD)
def test_an_odd_row_is_left_out_and_counted_and_the_others_stay(
    tmp_path: Path, unproved: None, changed: dict[str, Any]
) -> None:
    path = tmp_path / "train.jsonl"
    rows = [hub_row("a"), {**hub_row("odd"), **changed}, hub_row("c")]
    path.write_text("\n".join(map(json.dumps, rows)))
    task = load_task("code_contests", TaskConfig(data=str(tmp_path)))
    assert [re.findall(r"\((\w+)\)", p.prompt)[0] for p in task.train] == ["a", "c"]
    assert task.notes[0].startswith("1 of 3 problems of code_contests left out: 1 ")


def test_a_row_that_cannot_be_read_is_named_in_the_notes(tmp_path: Path, unproved: None) -> None:
    rows = [hub_row("a"), {**hub_row("odd"), "generated_tests": "{"}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = load_task("code_contests", TaskConfig(data=str(tmp_path)))
    assert re.search(
        r"1 whose rows cannot be read \(the first: .*train.jsonl, line 2", task.notes[0]
    )


@pytest.mark.parametrize(
    ("changed", "cpu_s", "memory_mb"),
    [
        ({"time_limit": {"seconds": 3}}, 3, 64),
        ({"time_limit": {"seconds": None, "nanos": 500_000_000}}, 0.5, 64),
        ({"time_limit": 2.5}, 2.5, 64),
        ({"time_limit": "4s"}, 4, 64),
        ({"time_limit": None}, 2, 64),
        ({"memory_limit_bytes": 256_000_000.0}, 1.5, 256),  # as pandas writes a column with gaps
        ({"memory_limit_bytes": 268_435_456}, 1.5, 256),
        ({"memory_limit_bytes": float("nan")}, 1.5, 256),
        ({"memory_limit_bytes": "unlimited"}, 1.5, 256),
    ],
)
def test_limits_are_read_however_a_table_holds_them(
    tmp_path: Path, unproved: None, changed: dict[str, Any], cpu_s: float, memory_mb: int
) -> None:
    row = {**hub_row("a"), **changed}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(hub_row("b")))
    columns = load_task("code_contests", TaskConfig(data=str(tmp_path))).train[0].columns
    assert (columns["cpu_s"], columns["memory_mb"]) == (cpu_s, memory_mb)
    assert isinstance(columns["memory_mb"], int)


@pytest.mark.parametrize(
    ("changed", "source", "difficulty"),
    [
        ({"source": "codeforces", "difficulty": "a"}, "CODEFORCES", "A"),
        ({"difficulty": 29}, "CODEFORCES", "UNKNOWN_DIFFICULTY"),
        ({"difficulty": None, "source": 2.0}, "CODEFORCES", "UNKNOWN_DIFFICULTY"),
    ],
)
def test_labels_are_read_in_any_case_and_unknown_ones_are_unknown(
    tmp_path: Path, unproved: None, changed: dict[str, Any], source: str, difficulty: str
) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps({**hub_row("a"), **changed}))
    columns = load_task("code_contests", TaskConfig(data=str(tmp_path))).train[0].columns
    assert (columns["source"], columns["difficulty"]) == (source, difficulty)


def packed(text: str) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(text))).decode()


LCB_TESTS = json.dumps([{"testtype": "stdin", "input": "1\n2", "output": "3"}])
OTHERS: dict[str, dict[str, Any]] = {
    "rLLM": {"question": "Add.", "ground_truth": LCB_TESTS},
    "the adapted project": {
        "description": "Add.", "input_output": json.dumps({"inputs": ["1\n2"], "outputs": ["3"]}),
    },
    "LiveCodeBench": {
        "question_content": "Add.", "starter_code": "", "public_test_cases": "[]",
        "private_test_cases": packed(LCB_TESTS),
    },
    "open-r1": {
        "title": "A", "description": "Add.", "input_format": "Two numbers.",
        "output_format": "One.",
        "time_limit": 1.0, "memory_limit": 512.0, "input_mode": "stdio", "generated_checker": None,
        "examples": [{"input": "1\n2", "output": "3"}], "official_tests": [],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("task", ["deepcoder", "code_contests"])
def test_rows_of_other_projects_are_read(
    tmp_path: Path, unproved: None, name: str, task: str
) -> None:
    path = tmp_path / f"{task}_test.jsonl"
    path.write_text(json.dumps(OTHERS[name]))
    held = load_task(task, TaskConfig(data=str(path)))
    (problem,) = (*held.train, *held.test)
    assert problem.columns["tests"] == [["1\n2", "3"]]
    assert problem.prompt.startswith("Add.")


def test_the_parts_and_limits_of_open_r1_rows_are_read(tmp_path: Path, unproved: None) -> None:
    path = tmp_path / "deepcoder_test.jsonl"
    with_checker = {**OTHERS["open-r1"], "generated_checker": "import sys"}
    rows = [OTHERS["open-r1"], with_checker, {**OTHERS["open-r1"], "input_mode": "file"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    task = load_task("deepcoder", TaskConfig(data=str(path)))
    (problem,) = (*task.train, *task.test)
    assert "Input\nTwo numbers.\n\nOutput\nOne.\n\nExample\n1\n2\n3" in problem.prompt
    assert (problem.columns["cpu_s"], problem.columns["memory_mb"]) == (1, 512)


def test_packed_tests_cannot_call_functions() -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (print, ("called",))

    text = base64.b64encode(zlib.compress(pickle.dumps(Evil()))).decode()
    with pytest.raises(ValueError, match="neither JSON nor Python"):
        parse_tests(text)


def test_files_of_the_adapted_project_are_found(tmp_path: Path, unproved: None) -> None:
    row = {**OTHERS["the adapted project"], "description": "Print n."}
    for split in ("train", "test"):
        (tmp_path / f"deepcoder_lcbv5_{split}.jsonl").write_text(json.dumps(row))
    task = load_task("deepcoder", TaskConfig(data=str(tmp_path)))
    assert (len(task.train), len(task.test)) == (1, 1)


def test_weak_tests_are_noted_and_left_out_on_demand(tmp_path: Path, unproved: None) -> None:
    none: dict[str, list[str]] = {"input": [], "output": []}
    weak = hub_row("weak", private_tests=none, generated_tests=none)
    task = contests(tmp_path, [hub_row("a"), weak])
    assert len(task.train) == 2
    assert "1 of the 2 problems of code_contests that remain have at most 2 tests" in task.notes[0]
    strict = contests(tmp_path, [hub_row("a"), weak], min_tests=3)
    assert len(strict.train) == 1
    assert "1 with fewer than 3 tests within the caps" in strict.notes[0]


def test_a_problem_whose_tests_want_no_output_is_left_out(tmp_path: Path, unproved: None) -> None:
    empty = {"input": ["1", "2"], "output": ["", "\n"]}
    rows = [
        hub_row("a"),
        hub_row("b", public_tests=empty, private_tests=empty, generated_tests=empty),
    ]
    task = contests(tmp_path, rows)
    assert len(task.train) == 1
    assert "1 whose tests want no output" in task.notes[0]


def test_a_row_with_a_lone_surrogate_is_left_out(tmp_path: Path, unproved: None) -> None:
    rows = [hub_row("a"), hub_row("b", description="Print \ud800 n.")]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = load_task("code_contests", TaskConfig(data=str(tmp_path)))
    assert len(task.train) == 1
    assert any("half of a character" in note and "line 2" in note for note in task.notes)


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
        ({"factors": ("CODEFORCES:A=2", "CODEFORCES:B=3")}, [2.0, 1.0, 1.25, 0.0, 0.0]),
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


@pytest.mark.parametrize("factor", ["EASY", "EASY=-1", "EASY=0", "=1", "A:B:C=1", "A:=1"])
def test_a_factor_that_is_none_is_refused(factor: str) -> None:
    with pytest.raises(RequestError, match=f'factors = "{factor}", but a factor is NAME=NUMBER'):
        TaskConfig(factors=(factor,))


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_the_setting_without_a_sandbox_reaches_the_judge_and_every_verdict(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        task = contests(tmp_path, [hub_row("a")], unsafe_no_sandbox=True)
        assert task.grade_many is not None
        answers = [tasks.fenced(ECHO), tasks.fenced("int main( {}"), "no idea"]
        verdicts = task.grade_many([task.train[0]] * 3, answers)
    assert [verdict.reason for verdict in verdicts] == ["AC", "CE", "no program"]
    assert [verdict.details["sandbox"] for verdict in verdicts] == ["none"] * 3


@needs_data
@pytest.mark.parametrize(
    ("name", "file", "kept", "several", "interactive", "weak"),
    [
        ("code_contests", "code_contests_test165", 126, 36, 3, 53),
        ("deepcoder", "codeforces_408", 352, 40, 16, 333),
    ],
)
def test_the_real_files_keep_what_can_be_judged(
    unproved: None, name: str, file: str, kept: int, several: int, interactive: int, weak: int
) -> None:
    path = DATA / "code" / f"{file}.json.gz"
    with gzip.open(path, "rt", encoding="utf-8") as held:
        total = len(json.load(held))
    task = load_task(name, TaskConfig(data=str(path)))
    assert (len(task.train), len(task.test)) == (0, kept)
    assert task.notes == (
        f"{total - kept} of {total} problems of {name} left out: {several} with several right "
        f"answers and no checker, {interactive} interactive.",
        f"{weak} of the {kept} problems of {name} that remain have at most 2 tests, which a "
        "program with hard-coded outputs can pass. Leave them out with --min-tests 3.",
    )
    assert max(len(problem.columns["tests"]) for problem in task.test) <= 20
