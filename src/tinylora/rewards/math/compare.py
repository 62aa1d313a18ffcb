r"""Whether two answers are equal: strings, numbers, lists, intervals and words here, algebra last.

`equivalent` is used twice. Without `symbolic` it decides what can be decided by reading, which is
nearly everything, and returns None for the rest; a worker process calls it again with math-verify
as `symbolic`. An equation only ever counts by what it says: `6 = 5` is not an answer, `x = 5` is.
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import chain

from tinylora.rewards.math import quantities, sets, words
from tinylora.rewards.math.latex import MONEY, ROW, TEXT, key, split_top, tidy, unwrap
from tinylora.rewards.math.quantities import Quantity
from tinylora.rewards.math.sets import LIST_WORD, real_set
from tinylora.rewards.math.values import TooLarge, rounds_to

Symbolic = Callable[[str, str], bool | None]
Equal = Callable[[str, str], bool | None]

MAX_DEPTH = 6
MAX_ITEMS = 64
MAX_SPELLED_BITS = 10_000  # Python refuses to write out an integer that is much larger
_RELATIONS = ("=", r"\approx", r"\equiv", r"\in")
_SYNONYMS = {
    "(-\\infty,\\infty)": r"all(?: the)? reals?(?: numbers)?|real numbers"
    r"|the set of all real numbers|\\mathbb\{R\}",
    "\\emptyset": r"(?:there (?:is|are|exists?) )?no (?:real |integer |such )?(?:solutions?|roots?)"
    r"(?: exists?)?|(?:the )?empty set|\\\{\\\}",
    "dne": r"(?:it )?does not exist|undefined|dne",
}
_CANONICAL = tuple(
    (re.compile(pattern, re.IGNORECASE), name) for name, pattern in _SYNONYMS.items()
)
_PHRASE = re.compile(r"[A-Za-z][A-Za-z' -]*[A-Za-z]'?|[A-Za-z]")
_CLOCK = re.compile(r"(\d{1,2})(?::(\d\d))?\s*([aApP])\.?\s*[mM]\.?")
_CLOCK_OF_24 = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?:\s*h)?")
_BASED = re.compile(r"([0-9A-F]+)(?:_\{?(\d+|[a-z]+)\}?)?")
_BASES = (
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
_THOUSANDS = re.compile(rf"-?{MONEY}?\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?")
_LETTER = re.compile(r"\\[A-Za-z]+|[A-Za-z]")
_NOT_VARIABLES = {"e", "i", "d"}
_INTEGERS = {"k", "l", "m", "n"}
_CLAIMS = re.compile(r"\\(?:approx|sim|simeq|ne|not|neg|to|text|ldots)(?![A-Za-z])|\?|%|'")
_NAME = re.compile(
    r"(?![+-])(?:\\.|[A-Za-z '|(),^_{}+:;=/-]|(?<=_)\d++|(?<=_\{)\d++|(?<=\^\{)-\d"
    r"|(?<=[(,])\d++(?=[),]))++",
    re.DOTALL,
)
_FUNCTION = re.compile(r"([A-Za-z](?:_\w)?)\(([A-Za-z])\)")
_ASSIGNED = re.compile(r"\s*([A-Za-z](?:_\{?\w+\}?)?)\s*=(?!=)(.+)")


def equivalent(gold: str, answer: str, symbolic: Symbolic | None = None) -> bool | None:
    """Whether the answer is the gold answer; None where only algebra could tell.

    Args:
        gold, answer: as people or a model wrote them, delimiters included or not.
        symbolic: decides tidied expressions; None from it says that it cannot read the gold one.
    """
    return _equal(tidy(gold), tidy(answer), symbolic, 0)


def _equal(gold: str, answer: str, symbolic: Symbolic | None, depth: int) -> bool | None:
    """The first reading that decides; each of them returns None where it has no say."""
    if not answer or not gold or depth > MAX_DEPTH:
        return False
    gold, answer = _canonical(gold), _canonical(answer)
    if key(gold) == key(answer):
        return True

    def parts_equal(one: str, other: str) -> bool | None:
        return _equal(one, other, symbolic, depth + 1)

    for decide in _WHOLE_READINGS:
        decided = decide(gold, answer)
        if decided is not None:
            return decided
    for decide_by_parts in _READINGS_BY_PARTS:
        decided = decide_by_parts(gold, answer, parts_equal)
        if decided is not None:
            return decided
    return _by_algebra(gold, answer, symbolic)


def _by_algebra(gold: str, answer: str, symbolic: Symbolic | None) -> bool | None:
    """What reading left open; a gold answer that reading understands is never "unreadable"."""
    answer = _in_letters_of(gold, answer)
    if key(gold) == key(answer):
        return True
    understood = _quantity(gold) is not None or real_set(gold) is not None
    if understood and claims_more(gold, answer):
        return False
    decided = symbolic(_spelled_out(gold), _without_marks(answer)) if symbolic else None
    return False if symbolic and decided is None and understood else decided


def _spelled_out(gold: str) -> str:
    """A rational number as algebra writes it, without commas, units and signs."""
    meant = _quantity(gold)
    if meant is None or not isinstance(meant.value, Fraction):
        return _without_marks(meant.text if meant else gold)
    top, bottom = meant.value.numerator, meant.value.denominator
    if max(top.bit_length(), bottom.bit_length()) > MAX_SPELLED_BITS:
        return _without_marks(meant.text)
    return str(top) if bottom == 1 else rf"\frac{{{top}}}{{{bottom}}}"


def _without_marks(text: str) -> str:
    return text.replace(TEXT, " ").replace(MONEY, "")


def claims_more(gold: str, answer: str) -> bool:
    """The answer has letters, relations or words of its own, which nothing equates."""
    return not _letters(answer) <= _letters(gold) or bool(
        set(_CLAIMS.findall(answer)) - set(_CLAIMS.findall(gold))
    )


def _in_letters_of(gold: str, answer: str) -> str:
    r"""The answer with p for P where the gold answer has p alone, and with n\pi for k\pi."""
    known, own = _letters(gold), _letters(answer) - _letters(gold)
    free = known - _letters(answer)
    renamed = {letter: letter.swapcase() for letter in own if letter.swapcase() in free}
    integers, theirs = own & _INTEGERS, free & _INTEGERS
    if r"\pi" in gold and len(integers) == len(theirs) == 1:
        renamed[integers.pop()] = theirs.pop()  # every integer is meant, by whatever letter
    return _LETTER.sub(lambda m: renamed.get(m[0], m[0]), answer)


def _letters(text: str) -> set[str]:
    return {token for token in _LETTER.findall(text) if len(token) == 1} - _NOT_VARIABLES


def _canonical(text: str) -> str:
    plain = " ".join(text.split())
    return next((name for pattern, name in _CANONICAL if pattern.fullmatch(plain)), text)


def _as_words(gold: str, answer: str) -> bool | None:
    """Times of day, and phrases, which are compared apart from case and brackets."""
    if _CLOCK.fullmatch(gold) or (_CLOCK_OF_24.fullmatch(gold) and _CLOCK.fullmatch(answer)):
        return _minutes(gold) == _minutes(answer)
    if is_phrase(gold) and _plain_words(gold) == _plain_words(answer):
        return True
    if words.choice(gold) or words.choice(answer):
        return None
    if is_phrase(gold):
        return False if words.without_remark(answer) == answer else None
    return False if is_phrase(answer) and words.without_remark(answer) == answer else None


def _plain_words(text: str) -> str:
    return " ".join(text.lower().strip("() ").split())


def _minutes(text: str) -> int | None:
    """`4:30 p.m.` or `16:30` as minutes of the day."""
    match = _CLOCK.fullmatch(text)
    if match:
        hour, minute, half = int(match[1]), int(match[2] or 0), match[3].lower()
        return (hour % 12 + (12 if half == "p" else 0)) * 60 + minute
    match = _CLOCK_OF_24.fullmatch(text)
    is_clear = match and (int(match[1]) >= 13 or match[1].startswith("0"))
    return int(match[1]) * 60 + int(match[2]) if match and is_clear else None


def is_phrase(text: str) -> bool:
    """Words alone: one of four letters or more, or several; not a product of variables."""
    text = " ".join(text.strip("() ").split())
    if not _PHRASE.fullmatch(text):
        return False
    lengths = [len(word) for word in text.replace("-", " ").split()]
    return (
        max(lengths) >= 4
        or (len(lengths) > 1 and max(lengths) >= 3)
        or (text.lower() in ("yes", "no", "odd", "even", "dne"))
    )


def _as_based(gold: str, answer: str) -> bool | None:
    """`1011_2`: the digits and the base, which an answer may leave out: the task has it."""
    meant, said = _BASED.fullmatch(key(gold)), _BASED.fullmatch(key(answer))
    if meant is None or said is None or not (meant[2] or said[2]):
        return None
    return meant[1] == said[1] and _base(said[2]) in (None, _base(meant[2]))


def _base(text: str | None) -> int | str | None:
    if text is None:
        return None
    return _BASES.index(text) + 2 if text in _BASES else int(text) if text.isdigit() else text


def _as_numbers(gold: str, answer: str) -> bool | None:
    """Both are quantities."""
    try:
        expected = quantities.quantity(gold)
    except TooLarge:
        return None if _quantity(answer) is None else False
    try:
        given = quantities.quantity(answer)
    except TooLarge:
        return None if expected is None else False
    expected = expected or _in_unit_of(given, gold)
    given = given or _in_unit_of(expected, answer)
    if expected is None or given is None:
        return None
    return quantities.equal(expected, given)


def _in_unit_of(other: Quantity | None, text: str) -> Quantity | None:
    """`12 h` as hours beside "12 hours": alone, a letter is a variable."""
    if other is None or other.unit is None:
        return None
    found = _quantity(text, lettered=True)
    is_same = found and found.unit and found.unit.dimensions == other.unit.dimensions
    return found if is_same else None


def _quantity(text: str, lettered: bool = False) -> Quantity | None:
    try:
        return quantities.quantity(text, lettered)
    except TooLarge:
        return None


def _as_choices(gold: str, answer: str, equal: Equal) -> bool | None:
    """`(B) 30` against B, 30 or `(B) 30`, both ways."""
    meant, chosen = words.choice(gold), words.choice(answer)
    if meant and chosen:
        if meant[0] != chosen[0]:
            return False
        return equal(meant[1], chosen[1]) if meant[1] and chosen[1] else True
    if meant and meant[1]:
        return equal(meant[1], answer) or None
    if chosen and chosen[1] and equal(gold, chosen[1]):
        return True
    return None


def _as_remarked(gold: str, answer: str, equal: Equal) -> bool | None:
    """What is left of either without remarks that change nothing."""
    bare_gold, bare_answer = words.without_remark(gold), words.without_remark(answer)
    if (bare_gold, bare_answer) == (gold, answer):
        return None
    return equal(tidy(bare_gold) or gold, tidy(bare_answer) or answer)


def _as_relations(gold: str, answer: str, equal: Equal) -> bool | None:
    """`x = 5` against 5 or against `x = 5`; equations against equations are algebra."""
    gold_sides, answer_sides = _sides(gold), _sides(answer)
    glossed = _glossed(answer) if len(answer_sides) > 1 else ()
    if glossed:
        either = [equal(gold, reading) for reading in glossed]
        return True if True in either else None if None in either else False
    if len(gold_sides) == len(answer_sides) == 1:
        return None
    if len(gold_sides) == 1:
        said = _said(answer_sides)
        return False if said is None else equal(gold, said)
    meant = _said(gold_sides)
    if meant is None:
        return None
    if len(answer_sides) == 1:
        return equal(meant, answer) if len(_items(answer)) == 1 or unwrap(meant)[0] else None
    said = _under_the_name(gold_sides[0], answer_sides)
    if said is None:
        return None
    return False if not said else equal(meant, said)


def _sides(text: str) -> list[str]:
    """The sides of a relation; the text alone where it is a list of several."""
    return split_top(text, _RELATIONS) if len(_items(text)) == 1 else [text]


def _under_the_name(name: str, answer_sides: Sequence[str]) -> str | None:
    """What the answer says of the gold name: "" if nothing, None if it speaks of another one.

    `f(t) = t^2` is `f(x) = x^2`, and `y = x^2` is, too.
    """
    own, said = answer_sides[0], _said(answer_sides)
    if key(name) == key(own):
        return said or ""
    function, other = _FUNCTION.fullmatch(key(name)), _FUNCTION.fullmatch(key(own))
    if said and function and other and function[1] == other[1]:
        if function[2] in _letters(said):
            return None
        return _LETTER.sub(lambda m: function[2] if m[0] == other[2] else m[0], said)
    is_graph = (function and key(own) == "y") or (other and key(name) == "y")
    return said if is_graph else None


def _glossed(text: str) -> tuple[str, ...]:
    r"""`\sqrt{3} \approx 1.73` in two, where the decimal rounds what is before it."""
    exact, _, decimal = (part.strip() for part in text.rpartition(r"\approx"))
    meant = _quantity(split_top(exact, _RELATIONS)[-1])
    return (exact, decimal) if meant is not None and rounds_to(meant.value, decimal) else ()


def _said(sides: Sequence[str]) -> str | None:
    """What a chain `name = a = b` says, None where it says nothing or contradicts itself.

    A chain says its last side. The first side may be a name, which equals anything; all others
    have to be worth what the last one is, as far as they can be read: `x = 5 = 6` says nothing.
    Behind a name, a middle side with variables (`S = a + b = 5`) is passed over.
    """
    is_named = _NAME.fullmatch(sides[0]) and _quantity(sides[0]) is None
    *before, last = sides[1:] if is_named else sides
    result = _quantity(last)
    for side in before:
        value = _quantity(side)
        if value is not None and result is not None:
            if quantities.equal(value, result) is not True:
                return None
        elif not is_named or _is_closed(side):
            return None
    return last


def _is_closed(side: str) -> bool:
    """Without variables, even where it is too large to evaluate."""
    try:
        return quantities.quantity(side) is not None
    except TooLarge:
        return True


def _as_sets(gold: str, answer: str, equal: Equal) -> bool | None:
    """Intervals, conditions and their unions, where one of the two can be nothing else."""
    if not (sets.MAY_BE_SET.search(gold) or sets.MAY_BE_SET.search(answer)):
        return None
    meant, said = real_set(gold), real_set(answer)
    if meant is None or said is None:
        return None
    if not (sets.says_more_than_a_pair(gold) or sets.says_more_than_a_pair(answer)):
        return None
    return sets.equal(meant, said, equal)


def _as_lists(gold: str, answer: str, equal: Equal) -> bool | None:
    """Tuples and intervals in order and with their brackets; sets and bare lists in any order."""
    gold_open, gold_items, gold_close = _listed(gold)
    answer_open, answer_items, answer_close = _listed(answer, like=gold_items)
    if len(gold_items) == len(answer_items) == 1:
        if not gold_open and not answer_open:
            return None
        if gold_open != answer_open and "[" in (gold_open, answer_open):
            return None
        return equal(gold_items[0], answer_items[0])
    if len(answer_items) > len(gold_items) > 1:
        answer_items = list({key(item): item for item in answer_items}.values())
    if len(gold_items) != len(answer_items) or len(gold_items) > MAX_ITEMS:
        return False
    brackets = {gold_open, answer_open} - {"", "{"}
    if not {"(", "["} & brackets:
        return _unordered(gold_items, answer_items, equal)
    bare = gold_open in ("", "{") or answer_open in ("", "{")
    if not bare and (gold_open, gold_close) != (answer_open, answer_close):
        return False
    return _ordered(_by_name(gold_items), _by_name(answer_items), equal)


def _by_name(items: list[str]) -> list[str]:
    """`y = 2, x = 1` as the coordinates 1, 2: in the order of the names."""
    assigned = [_ASSIGNED.fullmatch(item) for item in items]
    values = {match[1]: match[2].strip() for match in assigned if match}
    return [values[name] for name in sorted(values)] if len(values) == len(items) else items


def _listed(text: str, like: Sequence[str] = ()) -> tuple[str, list[str], str]:
    r"""Brackets and items; `a \pm b` is two items.

    1,234 is a number, unless it is in brackets or stands beside a list (`like`).
    """
    opening, inside, closing = unwrap(text)
    if opening == "(" and "," in inside and inside.count(r"\pm") == 1:
        return "", _plus_and_minus(text), ""
    whole = not opening and len(like) < 2 and _THOUSANDS.fullmatch(inside)
    items = [inside] if whole else _items(inside)
    return opening, [both for item in items for both in _plus_and_minus(item)], closing


def _items(text: str) -> list[str]:
    """What commas, semicolons, "and" and "or" separate; semicolons separate groups of commas."""
    groups = split_top(text, (";",))
    if len(groups) > 1 and any(len(split_top(group, (",",))) > 1 for group in groups):
        return [f"({group})" for group in groups]
    parts = [piece for part in split_top(text, (",", ";")) for piece in _split_words(part)]
    return [part for part in parts if part] or [text]


def _split_words(text: str) -> list[str]:
    """At `and` and `or` outside brackets."""
    return [text] if unwrap(text)[0] else LIST_WORD.split(text)


def _plus_and_minus(item: str) -> list[str]:
    r"""Both values of an item with one \pm; `(\pm 1, 2)` is two points."""
    if item.count(r"\pm") != 1 or unwrap(item)[0] not in ("", "("):
        return [item]
    both = [re.sub(r"\\pm\s*", sign, item) for sign in "+-"]
    return [re.sub(r"(^|[(,=])\s*\+", r"\1", each).strip() for each in both]


def _ordered(gold: Sequence[str], answer: Sequence[str], equal: Equal) -> bool | None:
    decided = [equal(g, a) for g, a in zip(gold, answer, strict=True)]
    return False if False in decided else None if None in decided else True


def _unordered(gold: Sequence[str], answer: Sequence[str], equal: Equal) -> bool | None:
    """A matching: equality is transitive, so taking the first equal partner never errs."""
    left, unsure = list(answer), False
    for expected in gold:
        decided = [equal(expected, given) for given in left]
        if True in decided:
            del left[decided.index(True)]
        elif None in decided:
            unsure = True
        else:
            return False
    return None if unsure else True


def _as_matrices(gold: str, answer: str, equal: Equal) -> bool | None:
    rows, given = _matrix(gold), _matrix(answer)
    if rows is None or given is None:
        return None
    if [len(row) for row in rows] != [len(row) for row in given]:
        return False
    return _ordered([*chain(*rows)], [*chain(*given)], equal)


def _matrix(text: str) -> list[list[str]] | None:
    match = re.fullmatch(r"\\begin\{matrix\}(.*)\\end\{matrix\}", text, re.DOTALL)
    if not match or r"\begin" in match.group(1):
        return None
    rows = [row for row in match.group(1).split(ROW) if row.strip()]
    return [[cell.strip() for cell in row.split("&")] for row in rows]


_WHOLE_READINGS = (_as_words, _as_based, _as_numbers)
_READINGS_BY_PARTS = (
    _as_choices, _as_sets, _as_remarked, _as_relations, _as_lists, _as_matrices,
)  # fmt: skip
