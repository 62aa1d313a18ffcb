r"""The mathematical benchmarks: where their rows are, how a row is read, and a row of each kind.

The sample rows are made up, in the form of the data set's own. All but gsm8k and math are for
evaluation alone.
"""

import re
from dataclasses import replace
from typing import Any

from tinylora.rewards.math.extract import strict
from tinylora.settings.tasks import MathematicsSettings, QuestionSettings
from tinylora.tasks.data import DataRow, Source
from tinylora.tasks.levels import CONTAMINATION, SIMPLERL, level_of, of_levels, simplerl_question
from tinylora.tasks.mathematics import Benchmark, Question, load, text_field, whole_number
from tinylora.tasks.task import Task


def make(name: str, settings: QuestionSettings) -> Task:
    """The benchmark of this name as a task."""
    return load(name, BENCHMARKS[name], settings)


def make_math(name: str, settings: MathematicsSettings) -> Task:
    """MATH, with the training problems of the levels that the settings name."""
    benchmark, level = BENCHMARKS[name], settings.level
    if level == "simplerl":
        task = load(name, replace(benchmark, train=SIMPLERL), settings)
        return replace(task, notes=(*task.notes, CONTAMINATION))
    if level is not None:
        benchmark = replace(benchmark, keep=of_levels(level))
    return load(name, benchmark, settings)


def hashed(row: DataRow) -> Question:
    """GSM8K's: the number after `####` without its commas; the solution keeps its own form."""
    solution = str(row["answer"])
    _, _, gold = solution.rpartition("####")
    return Question(str(row["question"]), gold.strip().replace(",", ""), solution)


def named(row: DataRow) -> Question:
    """A question and its answer; `27.0` is 27, as some files hold whole numbers."""
    gold = whole_number(text_field(row, "answer"))
    return Question(text_field(row, "question", "problem"), gold)


def contest(row: DataRow) -> Question:
    """AIME's answers are whole numbers below 1000, without leading zeros or a sign for degrees."""
    gold = re.sub(r"\^\{?\\circ\}?$", "", text_field(row, "answer")).lstrip("0") or "0"
    return Question(text_field(row, "problem", "question"), gold, row.get("solution"))


def exercise(row: DataRow) -> Question:
    """CollegeMath's, whose answers are prose in about one row of twenty."""
    columns = {"topic": row.get("data_topic")}
    return Question(text_field(row, "question"), text_field(row, "answer"), columns=columns)


def lecture(row: DataRow) -> Question:
    """Minerva's: the gold answer is named, or is in the solution's last box."""
    question = text_field(row, "problem", "question")
    if "answer" in row:
        return Question(question, text_field(row, "answer"))
    solution = text_field(row, "solution")
    return Question(question, strict(solution, "boxed") or "", solution)


def olympiad(row: DataRow) -> Question:
    """Several answers are one gold answer with commas: all of them are asked for."""
    gold = ", ".join(str(answer) for answer in row["final_answer"])
    columns = {name: row.get(name) for name in ("subfield", "answer_type", "unit")}
    return Question(str(row["question"]), gold.strip(), columns=columns)


def held_out(row: DataRow) -> Question:
    """MATH-500's, with subject and level."""
    columns: dict[str, Any] = {name: row[name] for name in ("subject", "level") if name in row}
    solution = text_field(row, "solution") if "solution" in row else None
    return Question(text_field(row, "problem"), text_field(row, "answer"), solution, columns)


def levelled(row: DataRow) -> Question:
    """MATH's (the gold answer may be in the solution's last box), and SimpleRL's."""
    if "reward_model" in row:
        return simplerl_question(row)
    solution = text_field(row, "solution") if "solution" in row else None
    boxed = strict(solution, "boxed") if solution else None
    gold = text_field(row, "answer") if "answer" in row else boxed or ""
    columns = {"level": level_of(row), "subject": row.get("type", row.get("subject"))}
    return Question(text_field(row, "problem", "question"), gold, solution, columns)


_SUM: DataRow = {"question": "A pen costs 2 and a book 5. How much are both?", "answer": "7"}
_WORKED: DataRow = {**_SUM, "answer": "Both cost 2 + 5 = <<2+5=7>>7.\n#### 7"}
_PROBLEM: DataRow = {"problem": "What is $1 + 1$?", "answer": "2"}
_OLYMPIAD = "OE_TO_maths_en_COMP"
_GSM8K, _SYMBOLIC = "openai/gsm8k", "apple/GSM-Symbolic"
_MATH500 = Source(
    "HuggingFaceH4/MATH-500", "test", ("math500*", "MATH-500/test*", "MATH-500*", "/test*")
)


def _grade_school(test: Source, train: Source | None = None) -> Benchmark:
    return Benchmark(hashed, _WORKED, test, train, template="hash", max_new_tokens=1024)


def _symbolic(part: str, *files: str) -> Benchmark:
    """GSM8K's questions with other names and numbers; p1 and p2 with one and two clauses more."""
    return _grade_school(Source(_SYMBOLIC, "test", (*files, f"{part}/test*"), config=part))


BENCHMARKS = {
    "gsm8k": _grade_school(
        Source(_GSM8K, "test", ("gsm8k_test*", "main/test*", "/test*"), config="main"),
        Source(_GSM8K, "train", ("gsm8k_train*", "main/train*", "/train*"), config="main"),
    ),
    "gsm8k_platinum": _grade_school(  # GSM8K's test problems without the faulty ones
        Source(
            "madrylab/gsm8k-platinum",
            "test",
            ("gsm8k_platinum*", "gsm8k-platinum*", "gsm8k-platinum/*", "main/test*", "/test*"),
            config="main",
        )
    ),
    "gsm_symbolic": _symbolic("main", "gsm_symbolic_main*", "GSM_symbolic", "gsm_symbolic"),
    "gsm_symbolic_p1": _symbolic("p1", "gsm_symbolic_p1*", "GSM_p1*"),
    "gsm_symbolic_p2": _symbolic("p2", "gsm_symbolic_p2*", "GSM_p2*"),
    "math": Benchmark(
        levelled,
        {"problem": "What is $1 + 1$?", "level": "Level 1", "solution": r"It is $\boxed{2}$."},
        _MATH500,
        Source(
            "DigitalLearningGmbH/MATH-lighteval",
            "train",
            ("math_train*", "/train*", "/data/train*"),
        ),
    ),
    "math500": Benchmark(held_out, {**_PROBLEM, "subject": "Algebra", "level": 1}, _MATH500),
    "minerva": Benchmark(
        lecture,
        {"problem": "What is $1 + 1$?", "solution": r"It is \boxed{2}."},
        Source("math-ai/minervamath", "test", ("minerva*", "minervamath/test*", "/test*")),
    ),
    "olympiadbench": Benchmark(
        olympiad,
        {"question": "For which $x$ is $x^2 = 4$?", "final_answer": ["2", "-2"]},
        Source(
            "Hothan/OlympiadBench",
            "train",
            ("olympiadbench*", f"{_OLYMPIAD}/*", f"{_OLYMPIAD}*"),
            config=_OLYMPIAD,
        ),
    ),
    "aime24": Benchmark(
        contest,
        {**_PROBLEM, "answer": "002"},
        Source("HuggingFaceH4/aime_2024", "train", ("aime24*", "aime_2024/*", "/data/train*")),
    ),
    "aime25": Benchmark(
        contest,
        _PROBLEM,
        Source("math-ai/aime25", "test", ("aime25*", "aime25/test*", "aime2025*", "/test*")),
    ),
    "amc23": Benchmark(
        named,
        {**_SUM, "answer": "7.0"},
        Source("math-ai/amc23", "test", ("amc23*", "amc23/test*", "/test*", "/data/test*")),
    ),
    "gaokao": Benchmark(
        named,
        _SUM,
        Source(
            "MARIO-Math-Reasoning/Gaokao2023-Math-En",
            "train",
            ("gaokao2023*", "gaokao*", "Gaokao2023-Math-En/*", "/train*", "/data/train*"),
        ),
    ),
    "collegemath": Benchmark(
        exercise,
        {**_SUM, "data_topic": "arithmetic"},
        Source(
            "di-zhang-fdu/College_Math_Test",
            "test",
            ("college_math*", "collegemath*", "College_Math_Test/*", "/test*", "/data/test*"),
        ),
    ),
}
