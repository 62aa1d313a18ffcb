"""A task from a file of rows: JSON lines, a JSON list or Parquet, fields `prompt` and `answer`.

A completion is right if it is the answer, apart from spaces around it; or, with an `answer_format`,
if the mathematics in it equals the answer's. The prompt is asked as it is: it has to say in which
form the answer is wanted. It may be the turns of a chat. A tenth of the rows is held out as the
test split.
"""

from pathlib import Path
from typing import Any

from tinylora.errors import RequestError
from tinylora.rewards.verdict import Verdict
from tinylora.settings.tasks import RowSettings
from tinylora.tasks.data import DataRow, halves_note, read_rows, split, stem_of
from tinylora.tasks.task import Problem, Task, written_number
from tinylora.tasks.theirs import shown


def load_rows(path: Path, settings: RowSettings) -> Task:
    """The task that a file of rows holds.

    Raises:
        RequestError: the file is missing, a row is malformed, or there are fewer than two prompts.
    """
    path = path.expanduser()
    if not path.is_file():
        raise RequestError(
            f"The task file {path} does not exist. Pass the path of a JSONL file whose rows have "
            "the fields prompt and answer."
        )
    name = stem_of(path.name) or path.stem
    left_out: list[str] = []
    problems = [_problem(row, place) for place, row in read_rows(path, left_out)]
    train, test = split(problems, _asked) if problems else ([], [])
    if not train or not test:
        raise RequestError(
            f"{path} has {len({*map(_asked, problems)})} different prompts, but training and test "
            "need one each. Add rows."
        )
    notes = tuple(halves_note(left_out))
    if settings.answer_format == "exact":
        _refuse_lenient(settings)
        return Task(
            name,
            train,
            test,
            grade,
            right_answer=lambda problem: problem.gold,
            answer_of=str.strip,
            notes=notes,
        )
    from tinylora.tasks.mathematics import graders

    return Task(name, train, test, **graders(settings.answer_format, settings), notes=notes)


def grade(gold: str, completion: str) -> Verdict:
    """1 if the completion is the answer, apart from spaces around them; else 0."""
    return Verdict(float(completion.strip() == gold.strip()))


def _asked(problem: Problem) -> str:
    return "\n".join([*(turn["content"] for turn in problem.turns), problem.prompt])


def _refuse_lenient(settings: RowSettings) -> None:
    if settings.reward_format != "strict":
        raise RequestError(
            f"reward_format = {settings.reward_format}, but rows that are matched exactly have "
            "only one form. Set answer_format as well: any, boxed or hash."
        )


def _problem(row: DataRow, place: str) -> Problem:
    columns = dict(row)
    asked: Any = columns.pop("prompt", None)
    is_chat = bool(asked) and isinstance(asked, list)
    prompt = asked if is_chat else _text(asked, "prompt", place)
    answer = _text(columns.pop("answer", None), "answer", place)
    system, solution = columns.pop("system", None), columns.pop("solution", None)
    try:
        return Problem(
            prompt,
            answer,
            None if solution is None else _text(solution, "solution", place),
            columns,
            None if system is None else _text(system, "system", place),
            place=place,
        )
    except RequestError as error:
        raise RequestError(f"{place}: {error}") from None


def _text(value: Any, field: str, place: str) -> str:
    """Texts as they are, numbers as they are written; nothing else is a prompt or an answer."""
    if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
        return value if isinstance(value, str) else written_number(value)
    is_empty = value is None or value == ""
    what = "is missing or empty" if is_empty else f"is {shown(value)}, not a text"
    raise RequestError(f"{place}: the field {field} {what}. Write {_EXAMPLE}.")


_EXAMPLE = '{"prompt": "2+2=", "answer": "4"}'
