"""A task's grader as a reward function: what TRL passes, and what `tinylora.train` passes."""

from collections.abc import Sequence
from typing import Any

import pytest

from tinylora.errors import TinyLoraError
from tinylora.rewards.verdict import Verdict
from tinylora.tasks import Problem, Task, as_reward, as_row
from tinylora.tasks.functions import as_grade

PROBLEM = Problem("2+2=", "4", "add", {"level": 3}, system="Be brief.")


def task(**changes: Any) -> Task:
    def grade(gold: str, completion: str) -> Verdict:
        return Verdict(None if gold == "?" else float(gold == completion))

    return Task("sums", [PROBLEM], [PROBLEM], grade, **changes)


def turns(*contents: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": content} for content in contents]


def test_texts_and_chats_get_the_same_scores() -> None:
    reward, gold = as_reward(task()), ["4", "4", "?"]
    assert reward(completions=["4", "5", "4"], answer=gold) == [1.0, 0.0, None]
    chats = [turns("4"), turns("5"), turns("4")]
    assert reward(completions=chats, answer=gold) == [1.0, 0.0, None]


@pytest.mark.parametrize(
    ("chat", "score"),
    [
        (turns("let me see", "4"), 1.0),  # the last turn is the answer
        (turns([{"type": "text", "text": "4"}]), 1.0),
        (turns(None), 0.0),
        ([], 0.0),
    ],
)
def test_what_a_chat_answers(chat: Any, score: float) -> None:
    assert as_reward(task())(completions=[chat], answer=["4"]) == [score]


def test_a_grader_of_many_gets_the_problems_back() -> None:
    """From the columns of `as_row`; what TRL passes beside columns is no part of a problem."""
    seen: list[Problem] = []

    def grade_many(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        seen.extend(problems)
        return [Verdict(1.0) for _ in completions]

    row = as_row(PROBLEM)
    columns = {name: [value] for name, value in row.items() if name != "prompt"}
    trl = {"prompts": [row["prompt"]], "completion_ids": [[5]], "trainer_state": object()}
    as_reward(task(grade_many=grade_many))(completions=["4"], **columns, **trl)
    assert (seen[0].prompt, seen[0].gold, seen[0].solution) == ("2+2=", "4", "add")
    assert seen[0].columns["level"] == 3


def test_rows_have_turns_or_text() -> None:
    assert as_row(PROBLEM) == {
        "prompt": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "2+2="},
        ],
        "answer": "4",
        "solution": "add",
        "level": 3,
    }
    assert as_row(PROBLEM, chat=False)["prompt"] == "Be brief.\n\n2+2="
    assert as_row(Problem("2+2=", "4", plain="Q: 2+2="), chat=False)["prompt"] == "Q: 2+2="


def test_the_same_function_rewards_a_run_of_ours() -> None:
    grade = as_grade(as_reward(task()), tokenize=lambda text: [len(text)])
    verdicts = grade([PROBLEM, PROBLEM], ["4", "5"])
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0]


def test_data_without_answers_is_refused() -> None:
    with pytest.raises(TinyLoraError, match=r"sums needs the column answer.*tasks.as_row"):
        as_reward(task())(completions=["4"], prompts=["2+2="])


def test_logs_call_it_by_the_tasks_name() -> None:
    assert as_reward(task()).__name__ == "sums"
