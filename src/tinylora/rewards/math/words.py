r"""What words around an answer do: change it, deny it, say more of it, or nothing.

Words that do nothing to an answer are taken off it: `18 \text{ (9 eggs at \$2)}`, `f(x) = 1
\text{ for all } x`, `\text{The area is } 18`. A word of `_CHANGES` is never taken off: 12 hundreds
are not 12, and "12 or 13" is no answer.
"""

import re

from tinylora.rewards.math.latex import MONEY, TEXT, split_top
from tinylora.rewards.math.units import unit

_NUMBERS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
    "tens hundred hundreds thousand thousands million millions billion billions trillion trillions "
    "quadrillion quintillion dozen dozens score gross lakh lakhs crore crores grand mil mill mln "
    "bn half halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths "
    "sevenths eighth eighths ninths tenth tenths hundredth hundredths thousandth thousandths "
    "percent percentage pct"
)
_OPERATIONS = (
    "plus minus times over mod modulo divided multiplied added subtracted squared cubed square "
    "squareroot root roots sqrt cube power factorial double doubled twice triple tripled thrice "
    "remainder base reciprocal inverse negative"
)
_DENIALS = (
    "not no non nor never neither none isn't isnt aren't wrong incorrect false untrue impossible "
    "except without instead rather doubt unless but invalid mistake error"
)
_ALTERNATIVES = (
    "or either maybe perhaps possibly probably and than least most between up down to from "
    "through else otherwise unsure guess might could may if"
)
_APPROXIMATE = "about approximately approx around roughly nearly almost circa ish"
_STRONG = frozenset(f"{_NUMBERS} {_OPERATIONS} {_DENIALS} {_ALTERNATIVES}".split())
_CHANGES = _STRONG | frozenset(_APPROXIMATE.split())
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")

# Words of two or three letters that people put after numbers; others of that length are products.
_SHORT_WORDS = (
    "day days egg eggs men man way ways car cars box cup cups pen pens bag bags boy boys pie pies "
    "row rows toy toys fox ice old big red new per each cow cows dog dogs cat cats hat hats map "
    "job jobs tie ties ton tons bus key can jar kid kids ant ants bee bees fan fans cap caps pig "
    "pigs owl hen hens lap laps mpg bpm rpm net set sets sum all the for in of a an at is this that"
)
_CONNECTING_WORDS = "per each the for in of a an at is this that all"
_SHORT = frozenset(_SHORT_WORDS.split())
_CONNECTIVES = frozenset(_CONNECTING_WORDS.split())
MAX_WORDS = 10

_QUANTIFIED = re.compile(
    r"[\s,]*[(]?(?:for|where|with)\s(?:(?:all|any|every|each|some)\b)?[\w\s,\\{}()]*?"
    r"(?:(?<=\s)[A-Za-z]|\\in\s*\\mathbb\s*\{?[A-Z]\}?|integers?|reals?|numbers?|constants?|arbitrary)"
    r"[)]?$"
)
_MEMBERSHIP = re.compile(r"\s*[,;(]\s*[A-Za-z]\s*\\in\s*\\mathbb\s*\{?[A-Z]\}?(?:\^?[+*])?[)]?$")
_BRACKETED = re.compile(r"\s*(?<![_^A-Za-z])[(\[]\s*([^()\[\]]*)[)\]]$")
_HAS_FORMULA = re.compile(r"[\d\\]|\b[a-z]\b")
_NO_FORMULA = re.compile(rf"[\w\s.,'%{MONEY}-]*")
_IS_WHOLE = re.compile(r"[\w)}\]!%']\s*$(?<!\\cos)(?<!\\sin)(?<!\\tan)(?<!\\log)")
_AFTERTHOUGHT = re.compile(r"\s(?:-|:)\s+(?P<a>[^\W\d][^\d=]*)$|\s*[;,]\s*(?P<b>[^\W\d][^\d=]*)$")
_SENTENCE = re.compile(
    r"^[^\d=<>]*?(?<![A-Za-z\\])(?:is|are|equals|be|was|answer:|answer|result:)(?![A-Za-z])\s*"
    r"(?:equal to\s+|=)?(?P<said>.+)$", re.IGNORECASE | re.DOTALL,
)  # fmt: skip

_SEPARATE = r"(?:\)[.:]?|[.:](?=\s|\Z))\s*"
_CHOICE = re.compile(
    rf"\(?(?P<letter>[A-J])(?:{_SEPARATE}(?P<text>.+)?|\s+(?P<words>[A-Za-z][a-z]+.*))?",
    re.DOTALL,
)
_CHOICE_NAME = re.compile(
    r"^(?:the )?(?:correct |right |final )?(?:option|choice|answer)\s*(?:is|:)?\s*(?=\(?[A-J]\b)",
    re.IGNORECASE,
)
_OTHER_CHOICE = re.compile(r"(?<![\w\\^_])[A-J](?![\w'(\\^_])")


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def change(text: str, *, approximations: bool = True) -> bool:
    """Whether a word of the text changes or denies the number before it."""
    harmful = _CHANGES if approximations else _STRONG
    return any(word in harmful for word in words(text))


def is_label(text: str, *, set_as_text: bool) -> bool:
    r"""Whether words behind a number say what was counted.

    Outside `\text`, letters are variables unless they are a word that a reader knows: `6 apples`
    counts apples, `6abc` is a product.
    """
    found = words(text)
    if not found or len(found) > MAX_WORDS or change(text):
        return False
    if set_as_text:
        return any(len(word) > 1 or not word.isascii() for word in found)
    return all(map(_is_word, found)) and not all(word in _CONNECTIVES for word in found)


def _is_word(word: str) -> bool:
    if not word.isascii():
        return True
    if len(word) < 4:
        return word in _SHORT
    codes = sorted(map(ord, word))
    in_a_row = codes == [*range(codes[0], codes[0] + len(codes))]  # abcd, wxyz
    return not in_a_row and any(letter in "aeiouy" for letter in word)


def without_remark(text: str) -> str:
    """The text without one remark at its end or introduction at its start; itself without any."""
    for pattern in (_MEMBERSHIP, _QUANTIFIED):
        match = pattern.search(text)
        if match and match.start() and not change(match[0].replace("for some", "")):
            return text[: match.start()].strip()
    bracketed = _BRACKETED.search(text)
    if bracketed and _is_remark(bracketed[1]) and _IS_WHOLE.search(text[: bracketed.start()]):
        return text[: bracketed.start()].strip()
    after = _AFTERTHOUGHT.search(text)
    if (
        after
        and _HAS_FORMULA.search(text[: after.start()])
        and _is_prose(after["a"] or after["b"] or "")
    ):
        return text[: after.start()].strip()
    said = _SENTENCE.match(text)
    if said and _is_prose(text[: said.start("said")]):
        return said["said"].strip()
    return text


def _is_remark(inside: str) -> bool:
    """In brackets: a unit or words, perhaps with numbers, without another answer or a denial."""
    if change(inside, approximations=False) or not _NO_FORMULA.fullmatch(inside):
        return False
    measured = unit(inside)
    if measured and (TEXT in inside or not measured.is_lettered):
        return True
    return any(len(word) > 2 and _is_word(word) for word in words(inside))


def _is_prose(text: str) -> bool:
    """Plain words, of which none changes an answer."""
    found = words(text)
    return "\\" not in text and max(map(len, found), default=0) >= 3 and not change(text)


def choice(text: str) -> tuple[str, str] | None:
    r"""(letter, what is written behind it) of `(B)`, `B. 30`, `(B) \sqrt{3}`, `Option B`."""
    match = _CHOICE.fullmatch(_CHOICE_NAME.sub("", text.strip()))
    if not match or (match[0][0] == "(" and ")" not in match[0]):
        return None
    rest = (match["text"] or match["words"] or "").strip()
    is_other = _OTHER_CHOICE.search(rest) or set(words(rest)) & set(_DENIALS.split())
    if is_other or words(rest)[:1] in (["or"], ["and"]) or len(split_top(rest, (",",))) > 3:
        return None
    return match["letter"], "" if rest.startswith("is ") else rest
