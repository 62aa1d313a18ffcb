"""Verdicts on honest programs, and what makes them: schemes, limits, caches, batches."""

import gzip
import json

import pytest

from helpers.judging import HONEST, LIMITS, SHARED, SUM
from tinylora.errors import RequestError
from tinylora.rewards.code import compile
from tinylora.rewards.code import judging as code
from tinylora.rewards.code.judging import (
    Comparison,
    Limits,
    Submission,
    Test,
    judge,
    judge_many,
    weighted,
)
from tinylora.rewards.verdict import Verdict

DATA = SHARED / "data" / "judge"
ADDS_UP_TO_TEN = """
#include <cstdio>
#include <cstdlib>
int main() {
    long a, b;
    scanf("%ld%ld", &a, &b);
    if (a > 100) abort();
    printf("%ld\\n", a + b > 10 ? 10 : a + b);
}
"""
FOUR = (Test("1 2", "3"), Test("4 5", "9"), Test("10 10", "20"), Test("200 1", "201"))


def test_a_right_program(box):
    verdict = judge(HONEST, SUM)
    assert (verdict.score, verdict.reason) == (1.0, "AC")
    details = dict(verdict.details)
    assert 0 < details.pop("cpu_s") < 2
    assert 0 < details.pop("memory_mb") < 256
    assert details.pop("run_cpu_s") > 0
    assert details.pop("compile_cpu_s") > 0
    assert details == {
        "compiled": True, "num_passed": 1, "num_tests": 1, "failed_test": None, "message": "",
        "sandbox": "bwrap",
    }  # fmt: skip


def test_binary_stops_at_the_first_failure(box):
    verdict = judge(ADDS_UP_TO_TEN, FOUR)
    assert (verdict.score, verdict.reason) == (0.0, "WA")
    details = verdict.details
    assert (details["num_passed"], details["num_tests"], details["failed_test"]) == (2, 4, 2)


def test_graded_runs_every_test_and_names_the_first_failure(box):
    verdict = judge(ADDS_UP_TO_TEN, (*FOUR, Test("0 1", "1")), scheme="graded")
    assert (verdict.score, verdict.reason) == (0.5 + 0.5 * 3 / 5, "WA")
    assert (verdict.details["num_passed"], verdict.details["failed_test"]) == (3, 2)
    assert not verdict.is_right


@pytest.mark.parametrize(
    ("source", "graded", "binary", "reason"),
    [
        (HONEST, 1.0, 1.0, "AC"),
        ("int main() {}", 0.5, 0.0, "WA"),
        ("int main() { return x; }", 0.0, 0.0, "CE"),
        ("", 0.0, 0.0, "CE"),
    ],
)
def test_the_ends_of_both_schemes(box, source, graded, binary, reason):
    for scheme, score in (("graded", graded), ("binary", binary)):
        verdict = judge(source, SUM, LIMITS, scheme=scheme)
        assert (verdict.score, verdict.reason) == (score, reason)


def test_what_the_compiler_says_is_kept_and_cut(box):
    assert "'x' was not declared" in judge("int main() { return x; }", SUM).details["message"]
    flood = "int main() {" + "undeclared++;" * 5000 + "}"
    assert len(judge(flood, SUM).details["message"]) <= 2000


def test_an_empty_output_is_noted(box):
    assert judge("int main() {}", SUM).details["message"] == "no output"


def test_a_problem_without_tests_cannot_be_judged(box):
    verdict = judge(HONEST, [])
    assert (verdict.score, verdict.reason) == (None, "IE")


def test_texts_and_bytes_are_alike(box):
    assert judge(HONEST.encode(), [Test(b"1 2", b"3")]).reason == "AC"
    assert judge("// \ud800 no text\n" + HONEST, SUM).reason == "AC"


def test_the_standard_is_a_setting(box):
    source = "#include <concepts>\nint main() { static_assert(std::integral<int>); }"
    assert judge(source, [Test("", "")], standard="gnu++17").reason == "CE"
    with pytest.raises(RequestError, match=r'standard = "c\+\+99", but'):
        judge(source, [Test("", "")], standard="c++99")


def test_memory_is_what_a_program_touches_and_not_what_it_declares(box):
    source = "char big[100 << 20]; int main() { for (int i = 0; i < %d; i++) big[i << 20] = 1; }"
    touching = "#include <cstring>\nchar big[200 << 20]; int main() { memset(big, 1, sizeof big); }"
    limits = Limits(memory_mb=150)
    assert judge(source % 50, [Test("", "")], limits).reason == "AC"
    assert judge(touching, [Test("", "")], limits).reason == "MLE"


def test_deep_recursion_has_the_whole_memory_for_its_stack(box):
    source = """
#include <cstdio>
long depth(long n) { volatile char frame[100] = {}; return n ? depth(n - 1) + 1 + frame[0] : 0; }
int main() { printf("%ld\\n", depth(1000000)); }
"""
    assert judge(source, [Test("", "1000000")], Limits(memory_mb=512)).reason == "AC"


def test_an_output_may_be_as_long_as_the_wanted_one(box):
    source = '#include <cstdio>\nint main() { for (int i = 0; i < 200000; i++) puts("word"); }'
    limits = Limits(output_mb=0.01)
    assert judge(source, [Test("", "word\n" * 200000)], limits).reason == "AC"
    assert judge(source, [Test("", "word\n")], limits).reason == "OLE"


def test_each_source_is_compiled_once(box, monkeypatch):
    sources = []
    real = compile._compile
    monkeypatch.setattr(
        compile, "_compile", lambda source, *rest, **more: (
            sources.append(source), real(source, *rest, **more))[1],
    )  # fmt: skip
    other = HONEST + "// once\n"
    jobs = [Submission(other, (Test(f"{n} 1", f"{n + 1}"),)) for n in range(6)]
    assert [verdict.reason for verdict in judge_many(jobs)] == ["AC"] * 6
    assert judge(other, SUM).reason == "AC"
    assert sources == [other.encode()]


def test_equal_jobs_are_run_once_and_order_is_kept(box, monkeypatch):
    ran = []
    real = code._judge
    monkeypatch.setattr(code, "_judge", lambda job, how: (ran.append(job), real(job, how))[1])
    right, wrong = Submission(HONEST, SUM), Submission(ADDS_UP_TO_TEN, FOUR)
    verdicts = judge_many([wrong, right, wrong, right, wrong])
    assert [verdict.reason for verdict in verdicts] == ["WA", "AC", "WA", "AC", "WA"]
    assert sorted(map(hash, ran)) == sorted(map(hash, (right, wrong)))


def test_a_factor_scales_the_score_and_leaves_the_unjudged_alone():
    assert weighted(Verdict(0.5, "WA"), 0.4).score == 0.2
    assert weighted(Verdict(0.5, "WA", {"compiled": True}), 0.4).details == {
        "compiled": True, "factor": 0.4,
    }  # fmt: skip
    assert weighted(Verdict(None, "IE"), 0.4).score is None
    assert weighted(Verdict(1.0, "AC"), 1.1).is_right
    assert not weighted(Verdict(0.95, "WA"), 1.1).is_right  # though its score is above 1


@pytest.mark.parametrize("factor", [0, -1, float("inf"), float("nan")])
def test_a_factor_that_would_make_wrong_right_is_refused(factor):
    with pytest.raises(RequestError, match=f"factor = {factor}, but it must be greater than 0"):
        weighted(Verdict(1.0, "AC"), factor)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"comparison": Comparison("sets")}, 'comparison = "sets"'),
        ({"scheme": "half"}, 'scheme = "half"'),
    ],
)
def test_unknown_words_are_refused(wrong, match):
    with pytest.raises(RequestError, match=match):
        Submission(HONEST, SUM, **wrong)


def test_a_limit_is_positive():
    with pytest.raises(RequestError, match=r"Limits\.cpu_s = 0"):
        Limits(cpu_s=0)


# ---- labelled submissions of real problems


def rows(name):
    path = DATA / f"{name}.jsonl.gz"
    if not path.exists():
        return []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def submission_jobs():
    problems = {row["problem_id"]: row for row in rows("problems")}
    for row in rows("submissions"):
        problem = problems[row["problem_id"]]
        tests = tuple(Test(test["input"], test["output"]) for test in problem["tests"])
        tolerance = problem["checker"]["float_tolerance"]
        memory_mb = int(problem["memory_limit_mib"] or 1024)
        yield row["case_id"], row["expected"], Submission(
            row["code"], tests, Limits(cpu_s=problem["time_limit_s"], memory_mb=memory_mb),
            Comparison("float", tolerance) if tolerance else Comparison("tokens"),
            standard=row.get("requires_std") or "gnu++17",
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason=f"there are no submissions in {DATA}")
def test_labelled_submissions_get_their_verdict(box):
    names, expected, jobs = zip(*submission_jobs(), strict=True)
    ours = {"RE": "RTE", "MLE": "RTE"}  # their judges know no MLE
    verdicts = judge_many(jobs)
    wrong = [
        (name, wanted, verdict)
        for name, wanted, verdict in zip(names, expected, verdicts, strict=True)
        if ours.get(verdict.reason, verdict.reason) not in wanted
    ]
    assert not wrong
    assert len(verdicts) == 61


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason=f"there are no programs in {DATA}")
def test_labelled_whole_programs_get_their_verdict(box):
    labelled = rows("humanevalpack_cpp")
    jobs = [Submission(row["code"], (Test("", ""),), Limits(memory_mb=1024)) for row in labelled]
    verdicts = judge_many(jobs)
    wrong = [
        (row["case_id"], verdict)
        for row, verdict in zip(labelled, verdicts, strict=True)
        if verdict.score is None or (verdict.reason == "AC") != ("AC" in row["expected"])
    ]
    assert not wrong
    assert len(verdicts) == 138
