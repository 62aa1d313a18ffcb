"""What users write: rewards and graders of every kind, tasks that fail, chats, twins."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from jinja2 import TemplateError

from tinylora.errors import RequestError, TinyLoraError
from tinylora.prompts import encode_problem
from tinylora.rewards.verdict import Verdict
from tinylora.tasks import Problem, Task, load_task
from tinylora.tasks.controls import controlled
from tinylora.tasks.functions import as_grade, chat_of, rewarded, try_grader
from tinylora.tasks.task import grader_of

PROBLEMS = [Problem("p1", "a"), Problem("p2", "b")]


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def task(grade: Any, **changes: Any) -> Task:
    return Task("mine", PROBLEMS, PROBLEMS, grade, **changes)


def scores(made: Task, texts: list[str]) -> list[float | None]:
    return [verdict.score for verdict in grader_of(made)(PROBLEMS, texts)]


@pytest.mark.parametrize("kind", [int, bool, float, numpy.float32, numpy.bool_, Verdict])
def test_a_grader_may_return_any_kind_of_number(kind: Any) -> None:
    found = scores(task(lambda gold, text: kind(gold == text)), ["a", "x"])
    assert found == [1.0, 0.0]
    assert [type(score) for score in found] == [float, float]


@pytest.mark.parametrize("score", [True, 1, numpy.float32(1), numpy.int64(1)])
def test_the_score_of_a_verdict_becomes_a_float(score: Any) -> None:
    assert (Verdict(score).score, type(Verdict(score).score)) == (1.0, float)
    json.dumps(Verdict(score).score)


@pytest.mark.parametrize("score", ["1", [1], float("inf"), object()])
def test_what_is_not_a_number_is_not_a_score(score: Any) -> None:
    with pytest.raises(ValueError, match=r"Verdict.score = .*, but a score is a finite number"):
        Verdict(score)


def test_graders_may_be_async_and_say_that_they_cannot_judge() -> None:
    async def grade(gold: str, text: str) -> float | None:
        await asyncio.sleep(0)
        return None if text == "?" else float(gold == text)

    assert scores(task(grade), ["a", "?"]) == [1.0, None]


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        ("right", r"grader of task mine returned 'right' for a completion"),
        ({}, r"grader of task mine returned {} for a completion"),
        (1e30, r"returned 1e\+30 for a completion. It must return a number between -1e\+15"),
    ],
)
def test_what_a_grader_returns_is_refused_before_anything_is_measured(
    returned: Any, sentence: str
) -> None:
    with pytest.raises(RequestError, match=sentence):
        try_grader(task(lambda gold, text: returned))


def test_a_grader_that_raises_is_named_with_its_file_and_line() -> None:
    def grade(gold: str, text: str) -> float:
        raise KeyError(gold)

    with pytest.raises(RequestError, match=r"mine raised KeyError: 'a' \(.*py, line \d+\)"):
        try_grader(task(grade))


def test_a_reward_replaces_the_grader_and_everything_else_stays() -> None:
    def reward(completions: list[str]) -> list[int]:
        return [len(text) for text in completions]

    made = rewarded(task(lambda gold, text: 0.0, max_new_tokens=7), reward, letters)
    assert (made.max_new_tokens, made.train) == (7, PROBLEMS)
    assert scores(made, ["xx", "x"]) == [2.0, 1.0]


def test_a_reward_for_chats_gets_chats() -> None:
    seen: list[Any] = []

    def reward(prompts: list[Any], completions: list[Any]) -> list[float]:
        seen.append(prompts[0])
        return [float(chat[0]["content"] == "a") for chat in completions]

    made = rewarded(task(lambda gold, text: 0.0), reward, letters)
    assert scores(made, ["a", "b"]) == [1.0, 0.0]
    assert seen[-1] == [{"role": "user", "content": "p1"}]


def test_async_rewards_are_awaited_also_inside_a_running_loop() -> None:
    async def reward(completions: list[str], **columns: Any) -> list[float]:
        await asyncio.sleep(0)
        return [float(text == "a") for text in completions]

    grade = as_grade(reward, letters)
    assert [v.score for v in grade(PROBLEMS, ["a", "b"])] == [1.0, 0.0]

    async def notebook() -> list[float | None]:
        return [v.score for v in grade(PROBLEMS, ["a", "b"])]

    assert asyncio.run(notebook()) == [1.0, 0.0]


def test_several_rewards_are_added_with_their_weights() -> None:
    def right(completions: list[str], answer: list[str]) -> list[bool | None]:
        return [None if t == "?" else t == a for t, a in zip(completions, answer, strict=True)]

    def short(completions: list[str]) -> list[float]:
        return [-len(text) for text in completions]

    verdicts = as_grade([right, (short, 0.1)], letters)(PROBLEMS, ["a", "?"])
    assert [v.score for v in verdicts] == [0.9, -0.1]
    assert dict(verdicts[0].details) == {"right (1)": 1.0, "short (2)": -1.0}


@pytest.mark.parametrize("reward", [5, [], [5], "f", [(len, "x")], [(len, 1, 2)]])
def test_what_is_not_a_reward_function_is_refused(reward: Any) -> None:
    with pytest.raises(RequestError, match=r"reward = .*, but it must be a function of TRL's"):
        as_grade(reward, letters)


@pytest.mark.parametrize(
    ("returned", "what"),
    [({0: 1.0, 1: 0.0}, "a dict"), ({0.5, 1.0}, "a set"), ("ab", "a str")],
)
def test_scores_without_an_order_are_refused(returned: Any, what: str) -> None:
    def mine(completions: list[str]) -> Any:
        return returned

    with pytest.raises(TinyLoraError, match=f"mine returned {what} for 2 completions"):
        as_grade(mine, letters)(PROBLEMS, ["x", "y"])


def test_a_column_that_is_not_there_is_named() -> None:
    def mine(completions: list[str], trainer_state: Any) -> list[float]:
        return [0.0 for _ in completions]

    with pytest.raises(
        RequestError, match=r"mine asks for trainer_state, but it can only be given prompts"
    ):
        rewarded(task(lambda gold, text: 0.0), mine, letters)


def test_a_reward_that_fails_on_texts_and_on_chats_is_named_with_its_line() -> None:
    def mine(completions: list[str]) -> list[float]:
        return [float(len(text.split()[5])) for text in completions]

    with pytest.raises(RequestError, match=r"mine raised IndexError: .*users_code.py, line \d+"):
        rewarded(task(lambda gold, text: 0.0), mine, letters)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("def make(:", r"my_task.py raised SyntaxError: .*my_task.py, line 1\)"),
        ("\nimport no_such_module", r"ModuleNotFoundError: No module .*my_task.py, line 2\)"),
        ("\n\n1 / 0", r"ZeroDivisionError: division by zero \(.*my_task.py, line 3\)"),
        ("def make():\n    {}['x']", r"my_task.py:make raised KeyError: 'x' \(.*line 2\)"),
        ("import sys\nsys.exit(0)", r"my_task.py:make ended the program \(SystemExit: 0; .*line 2"),
    ],
)
def test_a_task_file_that_fails_is_named_with_its_line(
    tmp_path: Path, code: str, sentence: str
) -> None:
    path = tmp_path / "my_task.py"
    path.write_text(code, encoding="utf-8")
    with pytest.raises(RequestError, match=sentence):
        load_task(f"{path}:make")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            "[{'prompt': 'a'}], [], g",
            r"Task.train of .*make contains a dict at place 0. Make each",
        ),
        ("(p for p in []), [], g", r"Task.train of .*make is a generator, but problems are drawn"),
        ("[P], [P], g, None", r"Task.max_new_tokens of .*make is None, but it must be a whole"),
        ("[P], [P], g, 0", r"Task.max_new_tokens of .*make is 0, but it must be a whole number"),
        ("[P], [P], None", r"task mine needs a grader"),
        ("[P], [P], 3", r"Task.grade of .*make is a int, but it must be a function"),
        ("[Problem(7, 'a')], [P], g", r"Problem.prompt is 7, but it must be a text"),
        ("[Problem('\\ud800', 'a')], [P], g", r"Problem.prompt holds .ud800 at character 0, half"),
    ],
)
def test_a_task_with_a_wrong_part_is_refused(tmp_path: Path, arguments: str, sentence: str) -> None:
    path = tmp_path / "my_task.py"
    path.write_text(
        "from tinylora import Problem, Task\nP = Problem('p', 'a')\ng = lambda gold, text: 1.0\n"
        f"def make():\n    return Task('mine', {arguments})\n"
    )
    with pytest.raises(RequestError, match=sentence):
        load_task(f"{path}:make")


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": [{"type": "text", "text": "4"}]},
    {"role": "user", "content": "And 1 more?"},
]


def test_the_turns_of_a_chat_are_turns(tmp_path: Path) -> None:
    problem = Problem(CHAT, "5")  # type: ignore[arg-type]
    assert (problem.system, problem.prompt) == ("Be brief.", "And 1 more?")
    assert chat_of(problem) == [*CHAT[:2], {"role": "assistant", "content": "4"}, CHAT[3]]
    path = tmp_path / "chats.jsonl"
    rows = [{"prompt": CHAT, "answer": 5}, {"prompt": "1+1?", "answer": 2.0}]
    path.write_text("\n".join(map(json.dumps, rows)))
    made = load_task(str(path))
    problems = {p.prompt: p for p in [*made.train, *made.test]}
    assert problems["And 1 more?"] == problem
    assert problems["1+1?"].gold == "2"  # pandas makes 2.0 of 2 where a column has a gap


class Template:
    """A tokenizer whose template shows the roles; it may know no system turn."""

    def __init__(self, chat_template: str | None, knows_system: bool = True) -> None:
        self.chat_template, self.knows_system = chat_template, knows_system

    def apply_chat_template(self, turns: list[dict[str, str]], **told: Any) -> str:
        if turns[0]["role"] == "system" and not self.knows_system:
            raise TemplateError("no system turn")
        return "|".join(f"{turn['role'][0]}:{turn['content']}" for turn in turns)

    def __call__(self, text: str, **options: Any) -> dict[str, str]:
        return {"input_ids": text}


@pytest.mark.parametrize(
    ("tokenizer", "read"),
    [
        (Template("t"), "s:Be brief.|u:2+2?|a:4|u:And 1 more?"),
        (Template("t", knows_system=False), "u:Be brief.\n\n2+2?|a:4|u:And 1 more?"),
        (Template(None), "Be brief.\n\n2+2?\n\n4\n\nAnd 1 more?"),
    ],
)
def test_the_model_reads_every_turn(tokenizer: Any, read: str) -> None:
    problem = Problem(CHAT, "5")  # type: ignore[arg-type]
    assert "".join(map(str, encode_problem(tokenizer, problem))) == read


@pytest.mark.parametrize(
    ("chat", "sentence"),
    [
        (CHAT[:1], r"line 1: The turns of a prompt have the roles none"),
        (CHAT[:3], r"line 1: The turns of a prompt have the roles user, assistant, but"),
        (["hello"], r"line 1: Turn 0 of a prompt is 'hello', but a turn is"),
    ],
)
def test_what_is_not_a_chat_is_refused(tmp_path: Path, chat: Any, sentence: str) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"prompt": chat, "answer": "5"}))
    with pytest.raises(RequestError, match=sentence):
        load_task(str(path))


def test_twins_are_counted_and_said(tmp_path: Path) -> None:
    path = tmp_path / "my_task.py"
    path.write_text(
        "from tinylora import Problem, Task\n"
        "def make():\n"
        "    train = [Problem('a', '1'), Problem(' a', '2'), Problem('b', '1'), Problem('c', '')]\n"
        "    return Task('mine', train, train[2:], lambda gold, text: 1.0)\n"
    )
    assert load_task(f"{path}:make").notes == (
        "1 of 4 training problems repeat another one; the answers to 1 of the questions differ.",
        "2 of 4 training problems are in the test split too, so its accuracy also counts what was "
        "memorised. Remove them from one of the two.",
    )


def test_a_controlled_reward_of_ones_own_keeps_the_true_score() -> None:
    made = controlled(task(lambda gold, text: gold == text), "random", 0)
    assert [v.details["true_score"] for v in grader_of(made)(PROBLEMS, ["a", "x"])] == [1.0, 0.0]
