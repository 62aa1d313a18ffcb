r"""The answer that a completion gives: in the format that was asked for, or in any recognised form.

Strict: the last balanced `\boxed{...}`, or the last line with `####`. Lenient: whichever of these
forms comes last: a box (or several joined by "and"), `####`, `<answer>...</answer>`, "the answer is
...", `A: ...`; else mathematics that ends the text; else the whole text if it is nothing but an
answer. The last number of a text is never taken: a policy would learn to end in numbers.

Only the model's final turn is read: what follows its reasoning (`</think>` and the like; nothing,
where a reasoning has not ended), up to the token that ends the turn.
"""

import re
from typing import Literal

from tinylora.rewards.math import words

AnswerFormat = Literal["any", "boxed", "hash"]

_BOX = re.compile(r"\\f?boxed\s*\{|\\fbox\s*\{")
_SHORT_BOX = re.compile(r"(\\f?boxed)\s*(\d+|[A-Za-z](?![A-Za-z])|\\[A-Za-z]+(?!\s*\{))")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_HASH = re.compile(r"####[ \t]*([^\n]*)")
_JOIN_NOISE = re.compile(r"\\q?quad|\\text\b|\b(?:and|or)\b|\\?[A-Za-z]+(?:_\{?\w+\}?)?\s*=")
_APPROXIMATELY = re.compile(r"\\approx|≈|\bapprox")
_JOIN_LIMIT = 60
_PERCENT = re.compile(r"[$\s)\]\\]*(?:\\?%|percent(?:age)?\b|pct\b)")
_STATED = re.compile(
    r"(?:\b(?:answers?|ans)(?:[ \t*]*(?::|=|\bis\b)|\**[ \t]*\n)|(?:^|\n)[ \t]*A[ \t]*:)[\s:*=]*",
    re.IGNORECASE,
)
_ELSEWHERE = (
    "respuesta", "résultat", "réponse", "resposta", "risposta", "antwort", "ответ", "答案", "答え",
    "答", "정답", "답",
)  # fmt: skip
_STATED_ELSEWHERE = re.compile(
    rf"(?:{'|'.join(_ELSEWHERE)})[ \t*]*"
    r"(?:\b(?:es|est|é|è|ist|lautet)\b|[:：=是为為は은는—])[\s:*=]*",  # noqa: RUF001
    re.IGNORECASE,
)
_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_COPULA = re.compile(r"(?<![A-Za-z])(?:is|are|equals|by|it's)\s+")
_CONCLUDES = re.compile(r"\b(?:therefore|thus|hence|so)\b", re.IGNORECASE)
_COUNTED = re.compile(
    r"\bthere (?:is|are|was|were|will be|would be|remain) (?:only |exactly )?([\d,]*\d)\b"
    r"(?!\s*(?:or|to|and|-|/|\.\d))"
)
_CALCULATED = re.compile(r"\d\s*=\s*(\$?-?[\d,.]*\d(?:[ %][^\d=]*)?)$")
_THINKING = "think|thinking|thought|reasoning|reason|seed:think|begin_of_thought"
_OPENED = re.compile(rf"<\|?(?:{_THINKING})\|?>|\[THINK\]|◁think▷", re.IGNORECASE)
_CLOSED = re.compile(
    rf"</(?:{_THINKING})>|<\|end_of_thought\|>|\[/THINK\]|◁/think▷"
    r"|<\|channel\|>\s*final\s*<\|message\|>", re.IGNORECASE,
)  # fmt: skip
_END_OF_TURN = re.compile(
    r"<\|(?:im_start|im_end|endoftext|end_of_text|eot_id|eom_id|end|eot|return|start_header_id|user"
    r"|assistant|end_of_turn|END_OF_TURN_TOKEN)\|>|</s>|<(?:end_of_turn|start_of_turn|eos|EOS|eod)>"
    r"|\[/?INST\]|<[|\uff5c](?:end|User)[\w▁]*[|\uff5c]>"
)
_SURE = re.compile(r"[\d$\\]|\(?[A-Z]\)?$")
_END_OF_SENTENCE = re.compile(
    r"\.(?=\s|$)|\n|<\||</answer|[!。]|,?\s+(?:but|because|since|as|which)\s"
)
_DENIED = re.compile(  # at most two words before the statement: "I doubt that the"
    r"\b(?:not|false|doubt|wrong|incorrect|isn't|cannot|can't|never)(?:[ \t]+\w+){0,2}[ \t]*$",
    re.IGNORECASE,
)
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
_EMPHASIS = re.compile(  # stars, but not the one of 4 * 8
    r"(?<![\w)] )(?<!\*)\*+|\*++(?! [\w(])|`+|(?<!\w)_{1,2}(?=\S)|(?<=\w)_{1,2}(?!\w)|</?answer>",
    re.IGNORECASE,
)
_LABELLED = re.compile(
    r"^[\s:=]*(?:(?:the|my|final|so|answer|ans|result|total|is|equals|[:=])[\s:=]*)*", re.IGNORECASE
)
_CALCULATOR = re.compile(r"<<[^<>]*>>")
_NUMBER_FIRST = re.compile(
    r"(?P<number>\\?[$£€]?\s*-?\\?\$?\d[\d,]*(?:\.\d+)?)\.?(?P<rest>(?:[\s,;(]|[-–]\s|/[A-Za-z]).*)$"  # noqa: RUF001
)


def strict(text: str, answer_format: AnswerFormat) -> str | None:
    """What is in the asked format; for "any", in a box or else after `####`."""
    text = final_turn(text)
    if answer_format == "hash":
        return _last_hash(text)
    box = _last_box(text)
    return box if box is not None or answer_format == "boxed" else _last_hash(text)


def lenient(text: str) -> str | None:
    """What is in any recognised form, the last of them in the text."""
    text = final_turn(text)
    marked, stated = max(_last_boxes(text), _last_line(text), _tagged(text)), _stated(text)
    if stated > marked and (_SURE.search(stated[1]) or not marked[1]):
        return stated[1]
    return marked[1] or _ending_math(text) or _concluded(text) or _whole(text)


def final_turn(text: str) -> str:
    """The text after its reasoning and before the end of the turn; "" while it still reasons."""
    position = 0
    for match in _CLOSED.finditer(text):
        position = match.end()
    text = text[position:]
    end = _END_OF_TURN.search(text)
    text = text[: end.start()] if end else text
    return "" if _OPENED.search(text) else text


def _last_hash(text: str) -> str | None:
    return _last_line(text)[1] or None


def _last_line(text: str) -> tuple[int, str]:
    start = text.rfind("####")
    match = _HASH.match(text, start) if start >= 0 else None
    return (start, _in_hash_line(match[1].strip())) if match else _NOTHING


def _in_hash_line(line: str) -> str:
    """The answer in what follows `####`, without emphasis, labels and calculator annotations.

    A number that begins the line is the answer, as OpenAI's own check has it; but a rest that
    changes it (`5 million`, `18!`) or holds another candidate (`5, 6`, `5 (maybe 6)`) is no remark.
    """
    if _BOX.search(line):
        return line
    line = _CALCULATOR.sub("", _EMPHASIS.sub("", line)).strip()
    line = _LABELLED.sub("", line, count=1) or line
    match = _NUMBER_FIRST.match(line)
    if not match:
        return line
    rest = match["rest"].strip()
    outside = re.sub(r"\([^()]*\)", " ", rest)
    is_remark = words.words(rest) and not words.change(rest) and not re.search(r"[\d=^*+]", outside)
    return match["number"].strip() if is_remark and not _keeps_its_unit(rest) else line


def _keeps_its_unit(rest: str) -> bool:
    """One word, or LaTeX: a unit, or what was counted, which the comparison knows better."""
    return "\\" in rest or len(rest.split()) <= 1


def _tagged(text: str) -> tuple[int, str]:
    """What is in the last `<answer>` tag, without a sentence around it."""
    found = list(_TAGGED.finditer(text))
    if not found:
        return _NOTHING
    inside = found[-1][1].strip()
    stated = _stated(inside)[1]
    return found[-1].start(), _last_boxes(inside)[1] or stated or _ending_math(inside) or inside


def _last_box(text: str) -> str | None:
    boxes = _boxes(_SHORT_BOX.sub(r"\1{\2}", text))
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
    text = _SHORT_BOX.sub(r"\1{\2}", text)
    boxes = _boxes(text)
    if not boxes:
        return _NOTHING
    first = len(boxes) - 1
    while first > 0 and _joined(text[boxes[first - 1][1] : boxes[first][0]]):
        first -= 1
    content = boxes[first][2]
    for before, box in zip(boxes[first:], boxes[first + 1 :], strict=False):
        about = _APPROXIMATELY.search(text[before[1] : box[0]])
        content += (r" \approx " if about else ", ") + box[2]
    percent = _PERCENT.match(text, boxes[-1][1])
    return boxes[-1][0], content + (r"\%" if percent else "")


def _joined(between: str) -> bool:
    """`and`, commas, `y =` and one word of what was counted join two boxes into one answer."""
    if len(between) > _JOIN_LIMIT:
        return False
    return len(re.findall(r"[A-Za-z]+|\d+", _JOIN_NOISE.sub(" ", between))) <= 1


def _stated(text: str) -> tuple[int, str]:
    """After the last "the answer is": mathematics, or a rest of the sentence that is an answer."""
    found = list(_STATED.finditer(text))
    lowered = text.lower()
    if any(word in lowered for word in _ELSEWHERE):
        found = sorted([*found, *_STATED_ELSEWHERE.finditer(text)], key=re.Match.start)
    for match in found[: -_STATED_LIMIT - 1 : -1]:
        rest = text[match.end() : match.end() + _WHOLE_LIMIT * 4]
        if match[0][0] != "\n" and _DENIED.search(text[: match.start()][-_JOIN_LIMIT:]):
            return _NOTHING
        math = _MATH.match(rest)
        if math:
            return match.start(), _content(math) + _percent_after(rest, math.end())
        said = _END_OF_SENTENCE.split(rest, maxsplit=1)[0].strip(" *")
        said = _COPULA.split(said)[-1].strip(" *_`")
        if said and _is_answer(said):
            return match.start(), said
    return _NOTHING


def _concluded(text: str) -> str | None:
    """A last line that concludes: "Therefore there are 12 ways", "So it increases by 5%."."""
    line = _HOPE.sub("", text.rstrip()[-_WHOLE_LIMIT:]).rpartition("\n")[2]
    clauses = _CONCLUDES.split(line)
    if len(clauses) == 1:
        calculated = _CALCULATED.search(line.rstrip(" .*!"))
        return calculated[1] if calculated and not words.change(calculated[1]) else None
    counted = _COUNTED.search(clauses[-1])
    if counted:
        return counted[1]
    clause = re.sub(r",\s*not\s.*$", "", clauses[-1])
    _, *said = _COPULA.split(clause)
    answer = said[-1].strip(" .*!") if said else ""
    is_one = not re.search(r"\b(?:either|or|not)\b", clause)
    return answer if answer and is_one and _is_answer(answer) else None


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
