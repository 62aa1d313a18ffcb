"""The grader against labelled judgements and the gold answers of real data, where they lie beside.

Nothing of the data is in this repository; without it these tests are skipped.
"""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tinylora.rewards.math import grade_many

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")


def agreement(sets, timeout_s):
    """The benchmark's own verdict, so that the two cannot part."""
    command = [sys.executable, str(ROOT / "benchmarks" / "math_agreement.py"), "--sets", sets]
    return subprocess.run(
        [*command, "--data", str(DATA)], capture_output=True, text=True, timeout=timeout_s
    )


@needs_data
def test_labelled_solutions_and_hostile_answers_agree():
    done = agreement("gsm8k_labelled_solutions,hostile_answers", 250)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gsm8k_labelled_solutions: 100.00% of 2640 agree; 0 could" in done.stdout
    assert "hostile_answers: 100.00% of 40 agree; 0 could" in done.stdout


@needs_data
@pytest.mark.slow
def test_reported_faults_and_tricks_of_a_policy_agree():
    done = agreement("cases_2", 250)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_data
@pytest.mark.slow
def test_labelled_judgements_agree():
    done = agreement("grader_cases", 900)
    assert done.returncode == 0, done.stdout + done.stderr


GOLDS = {
    "gsm8k_test": (lambda row: row["answer"].rpartition("#### ")[2], 0),
    "math500_test": (lambda row: row["answer"], 0),
    "olympiadbench_test": (lambda row: ", ".join(row["final_answer"]), 0),
    "aime24_test": (lambda row: str(row["answer"]), 0),
    "amc23_test": (lambda row: str(row["answer"]), 0),
    "gaokao2023en_test": (lambda row: row["answer"], 2),  # two rows have no gold answer
    "college_math_test": (lambda row: row["answer"], 0),
}


@needs_data
@pytest.mark.parametrize("name", GOLDS)
def test_each_gold_answer_is_right_in_a_box_and_an_empty_one_cannot_be_judged(name):
    gold_of, num_empty = GOLDS[name]
    with gzip.open(DATA / "math" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        golds = [gold_of(json.loads(line)) for line in lines]
    scores = [v.score for v in grade_many([(g, rf"\boxed{{{g}}}") for g in golds], "boxed")]
    assert scores.count(None) == num_empty == golds.count("")
    assert scores.count(1.0) == len(golds) - num_empty
