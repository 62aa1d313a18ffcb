"""Generators of reasoning-gym as tasks: the same problems everywhere, a verifier behind a wall."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinylora.errors import RequestError
from tinylora.rewards.verdict import Verdict
from tinylora.settings import TaskConfig
from tinylora.tasks import Problem, Task, load_task
from tinylora.tasks.gym import Referee
from tinylora.tasks.gym_referee import judged

pytest.importorskip("reasoning_gym")


def verdicts(task: Task, problem: Problem, *answers: str) -> list[Verdict]:
    assert task.grade_many is not None
    return list(task.grade_many([problem] * len(answers), answers))


def scores(task: Task, problem: Problem, *answers: str) -> list[float | None]:
    return [verdict.score for verdict in verdicts(task, problem, *answers)]


@pytest.fixture(scope="module")
def countdown() -> Task:
    return load_task("rg:countdown")


@pytest.fixture(scope="module")
def insertion() -> Task:
    return load_task("rg:string_insertion")


def test_a_generator_is_a_task_with_two_splits_of_disjoint_seeds(countdown: Task) -> None:
    assert (countdown.name, len(countdown.train), len(countdown.test)) == (
        "rg:countdown",
        20000,
        1000,
    )
    train, test = countdown.train[3], countdown.test[3]
    assert "<answer>" in (train.system or "")
    assert train.prompt != test.prompt
    seeds = {p.columns["seed"] + p.columns["index"] for p in (*countdown.train[-1:], test)}
    assert seeds == {19_999, 1_000_003}


def test_its_own_verifier_judges_and_partial_scores_stay(countdown: Task) -> None:
    problem = countdown.train[0]
    assert problem.solution is not None
    answers = [f"so <answer>{problem.gold}</answer>", "<answer>1 + 1</answer>", problem.gold, ""]
    assert scores(countdown, problem, *answers) == [1.0, 0.05, 0.0, 0.0]


def test_the_last_answer_counts(countdown: Task) -> None:
    problem = countdown.train[0]
    first = f"<answer>{problem.gold}</answer> or <answer>7</answer>"
    last = f"<answer>7</answer> or <answer>{problem.gold}</answer>"
    assert scores(countdown, problem, first, last) == [0.05, 1.0]


def test_an_answer_is_never_run(countdown: Task, insertion: Task, tmp_path: Path) -> None:
    """`parse_expr` is `eval`; so is what these verifiers call."""
    trace = tmp_path / "trace"
    attack = f"<answer>__import__('os').system('touch {trace}')</answer>"
    by_attribute = "<answer>(1).__class__.__base__.__subclasses__()</answer>"
    assert scores(countdown, countdown.train[0], attack, by_attribute) == [0.01, 0.01]
    assert scores(insertion, insertion.train[0], attack) == [0.0]
    assert not trace.exists()


def test_a_literal_is_read_as_one(insertion: Task) -> None:
    problem = insertion.train[0]
    listed = f"<answer>{list(problem.gold)!r}</answer>"
    assert scores(insertion, problem, problem.solution or "", listed) == [1.0, 0.1]


def test_an_answer_that_its_verifier_does_not_read_is_wrong() -> None:
    """This verifier raises on what is no number, and takes the gold answer."""
    task = load_task("rg:prime_factorization")
    problem = task.train[0]
    unread, right = verdicts(task, problem, "<answer>two</answer>", problem.solution or "")
    assert (unread.score, unread.reason) == (0.0, "not in a form that the verifier reads")
    assert right.score == 1.0


def test_an_answer_too_much_for_the_verifier_is_wrong_and_the_next_is_judged(
    countdown: Task,
) -> None:
    problem = countdown.train[0]
    answers = ["<answer>9**9**9</answer>", f"<answer>{problem.gold}</answer>"]
    bombed, right = Referee("countdown", cpu_s=1).grade([problem] * 2, answers)
    assert (bombed.score, bombed.reason) == (0.0, "too much for the verifier")
    assert right.score == 1.0


def test_a_process_that_others_end_is_no_verdict_and_the_next_is_judged(countdown: Task) -> None:
    problem, referee = countdown.train[0], Referee("countdown")
    right = f"<answer>{problem.gold}</answer>"
    assert referee.grade([problem], [right])[0].score == 1.0
    assert referee.process is not None
    referee.process.kill()
    referee.process.wait()
    failed, again = referee.grade([problem] * 2, [right] * 2)
    assert (failed.score, failed.reason) == (
        None,
        "the verifier's process failed: it ended with status -9",
    )
    assert again.score == 1.0


def test_a_process_that_is_stuck_is_no_verdict(
    countdown: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, referee = countdown.train[0], Referee("countdown")
    monkeypatch.setattr("tinylora.tasks.gym.WALL_S", 0)
    (verdict,) = referee.grade([problem], [problem.solution or ""])
    assert (verdict.score, "it said nothing within 0 s" in verdict.reason) == (None, True)


@pytest.mark.parametrize("error", [MemoryError, RecursionError, ValueError])
def test_what_the_answer_exhausts_is_its_fault_and_what_breaks_is_not(
    error: type[Exception],
) -> None:
    class DataSet:
        def score_answer(self, answer: str, entry: object) -> float:
            raise error("here")

    said = judged(DataSet(), "7", {})
    if error is ValueError:
        assert said == {"failure": "the verifier failed (ValueError: here)"}
    else:
        assert said == {"score": 0.0, "reason": "too much for the verifier"}


def test_problems_are_the_same_in_every_process() -> None:
    """This generator orders sets: another hash seed would make another problem."""
    code = (
        "from tinylora.tasks import load_task; import sys; "
        "sys.stdout.write(load_task('rg:polynomial_multiplication').train[0].gold)"
    )
    env = {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    other = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert other == load_task("rg:polynomial_multiplication").train[0].gold


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("rg:countdwn", r"no generator countdwn that works by itself. Did you mean countdown\?"),
        ("rg:composite", r"no generator composite that works by itself"),
    ],
)
def test_an_unknown_generator_has_the_nearest_spelling(name: str, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        load_task(name)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinylora.tasks.gym.find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"not installed. Install it: pip "):
        load_task("rg:countdown")


def test_a_generator_reads_no_data() -> None:
    with pytest.raises(RequestError, match="data = x, but task rg:countdown does not read it"):
        load_task("rg:countdown", TaskConfig(data="x"))
