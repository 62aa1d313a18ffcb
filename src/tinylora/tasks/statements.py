"""What a statement says about how its answers are judged: limits, tolerance, several right answers.

Patterns of the words that contests use. They run over whole statements, so each takes time in
proportion to the text.
"""

import re
from dataclasses import dataclass

from tinylora.rewards.code import Limits

DEFAULT = Limits()
_SHOW = r"(?:print|output|find|report|display|construct|return)"
_ONE = (
    r"any(?= of (?:them|these|those)\b| ones?\b| such\b| valid\b| correct\b| possible\b| optimal\b"
    r"| suitable\b| solutions?\b| answers?\b| (?:is|are|will|would|can|may)\b| ?[.,;)!]|$)"
)
_GOOD = (
    r"(?:be |also |considered |regarded |as |judged )*"
    r"(?:accepted|acceptable|correct|allowed|fine|ok|okay|valid|right|do)\b"
)
_MANY = r"(?:multiple|several|many|more than one|more than 1|two or more|various|different)"
_SEVERAL = re.compile(
    "|".join(
        (
            # "print any of them", but not "do not print any extra spaces"
            rf"(?<!not )(?<!n't )\b{_SHOW} any\b"
            r"(?! (?:other|extra|additional|more|unnecessary|text))",
            r"\b(?:pick|choose|select) any of them\b(?= (?:to|and) (?:print|output))"
            r"|\bpick any of them\b",
            rf"\b{_SHOW} (?:just |only )?(?:any |an arbitrary |some |whichever )?one of them\b",
            rf"\b{_SHOW} (?:an? |the )?(?:arbitrary|whichever)\b",
            r"\bany (?:valid|correct|suitable|possible|acceptable) (?:answer|solution|output|one)",
            # "any of them will be accepted"
            rf"\bany (?:of (?:them|these|those|the)|ones?|such|solutions?|answers?)\b[\w ]{{0,30}}?"
            rf" (?:will|would|is|are|shall|can|may) {_GOOD}",
            rf"\ball of them (?:will|would|are) {_GOOD}",
            # "if there are multiple solutions, ... any"; who else may choose any is no matter
            rf"\bif (?:there (?:are|is|exist|exists)|you (?:have|find))?[^.]{{0,20}}\b{_MANY}\b"
            r"[^.]{0,100}\b(?:you (?:can|may|should|must|are)|print|output|write|report|provide"
            rf"|submit)\b[^.]{{0,40}}\b{_ONE}",
            rf"\bif [^.]{{0,30}}\b{_MANY} (?:\w+ ){{0,2}}(?:answers?|solutions?|outputs?)\b"
            rf"[^.]{{0,60}}\b{_ONE}",
            rf"\b{_MANY} (?:possible |correct |valid |optimal |right )*"
            r"(?:answers?|solutions?|outputs?)[^.]{0,60}\b(?:accepted|acceptable|allowed)\b",
            r"\b(?:answer|solution|output) (?:is|may|might|need) not (?:be )?unique\b[^.]{0,80}"
            r"\bany\b",
            r"\bwe (?:will )?accept any\b|\byou (?:are|will be) (?:allowed|free) to "
            rf"{_SHOW} any\b|\bspecial (?:judge|checker)\b",
            r"\b(?:print|output) (?:the |these |them|those |all )?[\w ]{0,30}"
            r"in (?:any|arbitrary) order",
            r"\b(?:can|may) be (?:printed|output|given|listed|written) in (?:any|arbitrary) order",
        )
    ),
    re.IGNORECASE,
)
_MAY_ALLOW = re.compile(
    r"any|arbitrary|one of them|whichever|accepted|acceptable|special", re.IGNORECASE
)
_INTERACTIVE = re.compile(
    r"\binteractive (?:problem|task)\b|\b(?:problem|task) is interactive\b|\bfflush\b"
    r"|\bflush(?:ing)? (?:the |your )?(?:standard )?(?:output|stdout|buffer|stream)"
    r"|\bflush (?:after|it)\b|\bto flush\b[^.]{0,40}\b(?:output|stdout|buffer)",
    re.IGNORECASE,
)
_FILES = re.compile(r"\b(?:input|output)\.txt\b", re.IGNORECASE)
_ANY_CASE = re.compile(
    r"\b(?:letters?|characters?|answers?|print|output|strings?|words?|verdict)\b[^.]{0,60}"
    r"\bin any (?:case|register)\b"
    r"|\b(?:print|output|answers?|checker|judge|verdict)\b[^.]{0,60}\bcase[- ]insensitive"
    r"|\b(?:upper|lower)[- ]?case (?:or|and) (?:upper|lower)[- ]?case\b[^.]{0,40}\baccepted"
    r"|\bcase of (?:the )?(?:letters?|characters?|output)\b[^.]{0,30}\b(?:not|n't) matter",
    re.IGNORECASE,
)
_ERROR = re.compile(
    r"\b(?:absolute|relative)[,/ ]{1,3}(?:(?:or|and)[/ a-z]{0,12}(?:absolute|relative) )?"
    r"(?:error|precision|tolerance|accuracy)"
    r"|\berrors?\b|\bprecision\b|\baccuracy\b|\btolerance\b|\bdiffer(?:s|ences?)?\b",
    re.IGNORECASE,
)
_SMALL = re.compile(
    r"10 ?\^? ?[{(]? ?[-\u2212\u2013\u2010] ?(\d{1,2})\b|\b1(?:\.0)?[eE][-\u2212](\d{1,2})\b"
    r"|\b0\.(0{0,11})1\b|10([\u207b][\u2070-\u2079\u00b9\u00b2\u00b3])"
)
_SUPERSCRIPTS = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
_NEAR = 120  # characters after the word that may stand between it and its number
_USUAL_TOLERANCE = 1e-6
_LOOSEST, _STRICTEST = 2, 15  # as 10^-n; what is said of other numbers is not about answers

_TIME = re.compile(
    r"^[ \t]*time[ _]?limit(?: per test)?[ \t]{0,9}[:=]?[ \t]{0,9}"
    r"(?:\{'seconds': (\d{1,6}), 'nanos': (\d{1,9})\}"
    r"|(\d{1,6}(?:\.\d{1,6})?)[ \t]{0,9}(ms|milliseconds?|s|secs?|seconds?)\b)",
    re.MULTILINE | re.IGNORECASE,
)
_MEMORY = re.compile(
    r"\bmemory[ _]?limit(?: per test)?[ \t]{0,9}[:=]?[ \t]{0,9}"
    r"(\d{1,15}(?:\.\d{1,6})?)[ \t]{0,9}"
    r"(bytes|kb|kib|kilobytes?|mb|mib|megabytes?|gb|gib|gigabytes?)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ComparisonRule:
    """How answers to a statement are compared.

    Args:
        tolerance: for decimal answers; None: the statement asks for none.
        any_case: letters in any case are right.
    """

    tolerance: float | None
    any_case: bool


def how_judged(statement: str) -> ComparisonRule:
    """The tolerance and the case that the statement promises."""
    text = " ".join(statement.split())
    return ComparisonRule(tolerance_in(text), bool(_ANY_CASE.search(text)))


def tolerance_in(text: str) -> float | None:
    """The largest error that a statement allows; 1e-6 where it names none but speaks of one."""
    is_allowed = False
    for word in _ERROR.finditer(text):
        about = word[0].lower()
        number = _SMALL.search(text, word.end(), word.end() + _NEAR)
        if number:
            digits = _digits(number)
            if _LOOSEST <= digits <= _STRICTEST:
                return float(f"1e-{digits}")
        is_allowed = is_allowed or about.startswith(("absolute", "relative"))
    return _USUAL_TOLERANCE if is_allowed else None


def _digits(number: re.Match[str]) -> int:
    if number[4]:
        return _SUPERSCRIPTS.index(number[4][1])
    return int(number[1] or number[2]) if number[3] is None else len(number[3]) + 1


def accepts_any(statement: str) -> bool:
    """Whether the statement takes any of several answers: then a comparison cannot judge."""
    sentences = " ".join(statement.split()).split(".")
    return any(_SEVERAL.search(one) for one in sentences if _MAY_ALLOW.search(one))


def is_interactive(statement: str) -> bool:
    """Whether a program talks with the judge."""
    return bool(_INTERACTIVE.search(" ".join(statement.split())))


def names_files(statement: str) -> bool:
    """Whether a program reads input.txt or writes output.txt."""
    return bool(_FILES.search(statement))


def limits_in(statement: str) -> Limits:
    """The limits that a statement names; 2 s and 256 MB where it names none."""
    time, memory = _TIME.search(statement), _MEMORY.search(statement)
    seconds = megabytes = None
    if time and time[1]:
        seconds = int(time[1]) + int(time[2]) / 1e9
    elif time:
        seconds = float(time[3]) / (1e3 if time[4].lower().startswith("m") else 1)
    if memory:
        megabytes = _megabytes(float(memory[1]), memory[2].lower()[0])
    return limits(seconds, megabytes)


def _megabytes(amount: float, unit: str) -> int:
    if unit == "b":
        return bytes_to_mb(int(amount))
    return int(amount * {"k": 1 / 1024, "m": 1, "g": 1024}[unit])


def bytes_to_mb(size: int) -> int:
    """Contests mean 10^6 or 2^20 by a megabyte; both are read as the number that they write."""
    return size >> 20 if size % (1 << 20) == 0 else size // 1_000_000


def limits(seconds: float | None, megabytes: int | None) -> Limits:
    """The problem's own, where it has some."""
    return Limits(cpu_s=seconds or DEFAULT.cpu_s, memory_mb=megabytes or DEFAULT.memory_mb)
