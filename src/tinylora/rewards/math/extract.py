r"""The answer that a completion gives: in the format that was asked for, or in any recognised form.

Strict: the last balanced `\boxed{...}`, or the last line with `####`. Lenient: whichever of these
forms comes last: a box (or several joined by "and"), `####`, "the answer is ...", `A: ...`; else
mathematics that ends the text; else the whole text if it is nothing but an answer. The last number
of a text is never taken: a policy would learn to end in numbers.
"""

import re
from typing import Literal

AnswerFormat = Literal["any", "boxed", "hash"]

_BOX = re.compile(r"\\f?boxed\s*\{|\\fbox\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_HASH = re.compile(r"####[ \t]*([^\n]*)")
_JOIN_NOISE = re.compile(r"\\q?quad|\\text\b|\b(?:and|or)\b|\\?[A-Za-z]+(?:_\{?\w+\}?)?\s*=")
_JOIN_LIMIT = 60
_PERCENT = re.compile(r"[$\s)\]\\]*(?:\\?%|percent(?:age)?\b|pct\b)")
_STATED = re.compile(
    r"(?:\banswer[ \t*]*(?::|=|\bis\b)|(?:^|\n)[ \t]*A[ \t]*:)[\s:*]*",
    re.IGNORECASE,
)
_COPULA = re.compile(r"(?<![A-Za-z])(?:is|are|equals|by|it's)\s+")
_CONCLUDES = re.compile(r"\b(?:therefore|thus|hence|so)\b", re.IGNORECASE)
_COUNTED = re.compile(r"\bthere (?:is|are) ([\d,]*\d)\b")
_END_OF_TURN = re.compile(r"<\|(?:im_start|im_end|endoftext|eot_id)\|>|</s>")
_SURE = re.compile(r"[\d$\\]|\(?[A-Z]\)?$")
_END_OF_SENTENCE = re.compile(r"\.(?=\s|$)|\n|<\|")
_MATH = re.compile(
    r"\$\$(?P<a>[^$]+)\$\$|(?<![\\$])\$(?P<b>(?:\\\$|[^$\n])+)\$(?!\d)"
    r"|\\\[(?P<c>(?:[^\\]|\\(?![\[\]]))+)\\\]|\\\((?P<d>(?:[^\\\n]|\\(?![()]))+)\\\)"
)
_PROSE = re.compile(r"(?<!\\)\b[A-Za-z]{2,}")
_SENTENCE = re.compile(r"[^\w\\]*[A-Za-z]{2,}.*\d")
_STATED_LIMIT = 20
_WHOLE_LIMIT = 300
_NOTHING = (-1, "")
_HOPE = re.compile(r"\s*I hope (?:it|this) is correct\.?\s*$")
_CLOSING = re.compile(r"[\s.*!)]*")


def strict(text: str, answer_format: AnswerFormat) -> str | None:
    """What stands in the asked format; for "any", in a box or else after `####`."""
    text = _turn(text)
    if answer_format == "hash":
        return _last_hash(text)
    box = _last_box(text)
    return box if box is not None or answer_format == "boxed" else _last_hash(text)


def lenient(text: str) -> str | None:
    """What stands in any recognised form, the last of them in the text."""
    text = _turn(text)
    marked, stated = max(_last_boxes(text), _last_line(text)), _stated(text)
    if stated > marked and (_SURE.search(stated[1]) or not marked[1]):
        return stated[1]
    return marked[1] or _ending_math(text) or _concluded(text) or _whole(text)


def _turn(text: str) -> str:
    """The text up to where the model's turn ends."""
    end = _END_OF_TURN.search(text)
    return text[: end.start()] if end else text


def _last_hash(text: str) -> str | None:
    return _last_line(text)[1] or None


def _last_line(text: str) -> tuple[int, str]:
    start = text.rfind("####")
    match = _HASH.match(text, start) if start >= 0 else None
    return (start, match.group(1).strip()) if match else _NOTHING


def _last_box(text: str) -> str | None:
    boxes = _boxes(text)
    return boxes[-1][2] if boxes else None


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of the outermost balanced boxes, in one pass over the text."""
    starts = {match.end() - 1: match.start() for match in _BOX.finditer(text)}
    if not starts:
        return []
    boxes: list[tuple[int, int, str]] = []
    stack: list[int] = []
    for match in _BRACE.finditer(text, min(starts)):
        if match.group() == "{":
            stack.append(match.start())
        elif match.group() == "}" and stack:
            opened = stack.pop()
            if opened in starts:
                while boxes and boxes[-1][0] > opened:  # boxes inside this one
                    boxes.pop()
                boxes.append((starts[opened], match.end(), text[opened + 1 : match.start()]))
    return boxes


def _last_boxes(text: str) -> tuple[int, str]:
    """The last box, with those before it that only commas or "and" part from it."""
    boxes = _boxes(text)
    if not boxes:
        return _NOTHING
    first = len(boxes) - 1
    while first > 0 and _joined(text[boxes[first - 1][1] : boxes[first][0]]):
        first -= 1
    content = ", ".join(box[2] for box in boxes[first:])
    percent = _PERCENT.match(text, boxes[-1][1])
    return boxes[-1][0], content + (r"\%" if percent else "")


def _joined(between: str) -> bool:
    """`and`, commas, `y =` and one word of what was counted join two boxes into one answer."""
    if len(between) > _JOIN_LIMIT:
        return False
    return len(re.findall(r"[A-Za-z]+|\d+", _JOIN_NOISE.sub(" ", between))) <= 1


def _stated(text: str) -> tuple[int, str]:
    """After the last "the answer is": mathematics, or a rest of the sentence that is an answer."""
    for match in list(_STATED.finditer(text))[: -_STATED_LIMIT - 1 : -1]:
        rest = text[match.end() : match.end() + _WHOLE_LIMIT * 4]
        math = _MATH.match(rest)
        if math:
            return match.start(), _content(math) + _percent_after(rest, math.end())
        said = _END_OF_SENTENCE.split(rest, maxsplit=1)[0].strip(" *")
        said = _COPULA.split(said)[-1].strip()
        if said and _is_answer(said):
            return match.start(), said
    return _NOTHING


def _concluded(text: str) -> str | None:
    """A last line that concludes: "Therefore there are 12 ways", "So it increases by 5%."."""
    line = _HOPE.sub("", text.rstrip()[-_WHOLE_LIMIT:]).rpartition("\n")[2]
    clauses = _CONCLUDES.split(line)
    if len(clauses) == 1:
        return None
    counted = _COUNTED.search(clauses[-1])
    _, *said = _COPULA.split(clauses[-1])
    answer = counted.group(1) if counted else said[-1].strip(" .*!") if said else ""
    return answer if answer and _is_answer(answer) else None


def _content(match: re.Match[str]) -> str:
    return next(part for part in match.groups() if part is not None)


def _percent_after(text: str, position: int) -> str:
    return r"\%" if re.compile(r"\s*(?:\\?%|percent|pct)").match(text, position) else ""


def _is_answer(text: str) -> bool:
    """No sentence: a number, a formula, a choice, or a word or two."""
    return len(text) <= _WHOLE_LIMIT and len(_PROSE.findall(text)) <= 4


def _ending_math(text: str) -> str | None:
    """The mathematics in `$...$` or `\\(...\\)` that ends the last line with any in it."""
    tail = text.rstrip()[-_WHOLE_LIMIT * 4 :]
    found = list(_MATH.finditer(tail))
    if not found:
        return None
    last = found[-1]
    percent = _percent_after(tail, last.end())
    rest = _HOPE.sub("", tail[last.end() :])
    return _content(last) + percent if percent or _CLOSING.fullmatch(rest) else None


def _whole(text: str) -> str | None:
    """A text that is an answer and nothing else: no words before its first number."""
    text = text.strip()
    too_much = "\n" in text or len(text) > _WHOLE_LIMIT or len(_PROSE.findall(text)) > 3
    return None if not text or too_much or _SENTENCE.match(text) else text
