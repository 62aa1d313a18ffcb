r"""Answers as people write them, brought into one spelling (`tidy`), and cut outside brackets.

`tidy` only respells (`\dfrac12` to `\frac{1}{2}`, `2,\!220` to `2,220`, `\text{Even}` to `Even`);
it never computes. Everything here runs in time linear in the text: the texts are a model's.
"""

import re
from functools import lru_cache

from tinylora.rewards.math.characters import as_latex

# Marks in a tidied text. They are private characters, so that no text brings them along.
ROW = "\ue000"  # ends a row of a matrix
MONEY = "\ue001"  # a dollar sign, which is no bracket of LaTeX
# White space as any other to patterns, but what follows it was set as text: `5\text{ m}` has a
# unit and `5 m` a variable.
TEXT = "\u00a0"

_UPRIGHT = re.compile(
    r"\\(?:text(?:bf|rm|it|normal|sf|tt|up|sc)?|mathrm|mbox|hbox|emph|operatorname\*?)"
    r"\s*\{([^{}]*)\}"
)
_STYLED = re.compile(
    r"\\(?:math(?:bf|it|sf|tt|normal)|boldsymbol|pmb|bm|f?boxed|fbox|underline|ensuremath"
    r"|(?:(?:text)?color|colorbox)\s*\{[^{}]*\}|fcolorbox\s*\{[^{}]*\}\s*\{[^{}]*\})\s*\{([^{}]*)\}"
)
_LOUD = re.compile(r"\s*(\*{1,3}|_{1,2}(?=[^_])|`+)([^*`]+)\1[.\s]*")
_EMPTY_DRESS = "|".join((
    "displaystyle", "textstyle", "scriptstyle", "limits", "nolimits", "left", "right",
    "[bB]igg?[lrm]?", "bf", "rm", "it", "tt", "sf", "em", "bfseries", "itshape", "boldmath",
    "[lL]arge", "LARGE", "[hH]uge", "small", "tiny", "normalsize", "footnotesize", "centering",
    "hfill", "strut", "mathstrut", "noindent", "therefore", "because", "blacksquare", "qed",
))  # fmt: skip
# (what is in each text that the pattern changes, pattern, replacement). The order matters: a longer
# spelling before its own beginning. The first column spares nearly all of the searches.
_RESPELLINGS = tuple(
    (trigger, re.compile(pattern, re.DOTALL), replacement)
    for trigger, pattern, replacement in (
        ("{", r"\\(?:begin|end)\{(?:align|equation|gather|aligned|split|gathered)\*?\}", " "),
        (r"\!", r",\s*\\!\s*", ","),
        ("{,}", r"\{,\}", ","),
        (r"\!", r"\\[!]", ""),
        ("$", r"\\\$(?=\s*[\d.-])|\A\s*\$(?=\s*[\d.-][^$]*\Z)", MONEY),
        ("$", r"\\\$|(?<!\\)\$", " "),
        ("\\", r"\\[()\[\]]", " "),
        ("{", r"\\(?:tag|label|phantom|hspace|vspace)\*?\s*\{[^{}]*\}", " "),
        (r"\color", r"\\color\s*\{[^{}]*\}", " "),
        ("\\", rf"\\(?:{_EMPTY_DRESS})(?![A-Za-z])\.?", " "),
        ("{", r"(?<![\\\w}])\{\s*\}|(?<=\d)\{\s*\}", ""),
        ("\\", r"\\[,;:>]|\\ |\\q?quad(?![A-Za-z])", " "),
        ("~", "~", " "),
        ("frac", r"\\(?:[dtc]|nice|s)frac(?![A-Za-z])", r"\\frac"),
        ("binom", r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        ("\\", r"\\(?:cdot|times|ast)(?![A-Za-z])", r"\\cdot "),
        ("*", r"\*(?!\*)(?<!\*\*)", r"\\cdot "),
        ("**", r"\*\*", "^"),
        (r"\div", r"\\div(?![A-Za-z])", "/"),
        (r"\leq", r"\\leq(?:slant)?(?![A-Za-z])", r"\\le "),
        ("<=", "<=", r"\\le "),
        (r"\geq", r"\\geq(?:slant)?(?![A-Za-z])", r"\\ge "),
        (">=", ">=", r"\\ge "),
        (r"\neq", r"\\neq(?![A-Za-z])", r"\\ne "),
        ("!=", "!=", r"\\ne "),
        (r"\lt", r"\\lt(?![A-Za-z])", "<"),
        (r"\gt", r"\\gt(?![A-Za-z])", ">"),
        (r"\ln", r"\\ln(?![A-Za-z])", r"\\log"),
        ("dots", r"\\(?:ldots|cdots|dots|dotsc)(?![A-Za-z])", r"\\ldots "),
        ("...", r"\.\.\.", r"\\ldots "),
        (r"\varnothing", r"\\varnothing(?![A-Za-z])", r"\\emptyset "),
        ("\\", r"\\(?:mid|vert|lvert|rvert)(?![A-Za-z])", "|"),
        ("\\", r"\\(?:setminus|smallsetminus|backslash)(?![A-Za-z])", r"\\setminus "),
        (r"\mathbb", r"\\mathbb\s*([A-Z])", r"\\mathbb{\1}"),
        (r"\colon", r"\\colon(?![A-Za-z])", ":"),
        (r"\lbrace", r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\rbrace", r"\\rbrace(?![A-Za-z])", r"\\}"),
        ("\\", r"\^\s*\{?\s*\\circ\s*\}?|\\degrees?(?![A-Za-z])", r"\\degree "),
        ("mod", r"\\bmod(?![A-Za-z])|\\pmod(?![A-Za-z])", r"\\mod "),
        (r"\langle", r"\\langle(?![A-Za-z])", "("),
        (r"\rangle", r"\\rangle(?![A-Za-z])", ")"),
        (r"\prime", r"\^\s*\{?\s*\\prime\s*\}?", "'"),
        ("{", r"\\begin\{array\}\s*\{[^{}]*\}|\\begin\{[bBp]matrix\}", r"\\begin{matrix}"),
        ("{", r"\\end\{(?:array|[bBp]matrix)\}", r"\\end{matrix}"),
        (
            "{matrix}",
            r"[\[(]\s*(\\begin\{matrix\}(?:(?!\\begin|\\end).)*+\\end\{matrix\})\s*[\])]",
            r"\1",
        ),
        ("olution", r"^\s*(?:[Tt]he )?[Ss]olutions? (?:is|are)\b:?", " "),
        ("", r"^\s*(?:\\approx(?![A-Za-z])|\\implies(?![A-Za-z])|=|:)", " "),
        ("sqrt", r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        ("pi", r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi "),
        ("inf", r"(?<![\\A-Za-z])(?:inf|infty|infinity)(?![A-Za-z])", r"\\infty "),
        # 1 234 567 is one number, as the SI writes it
        (
            " ",
            r"(?<![\d.,])\d{1,3}(?: +\d{3})+(?![\d ]*[\d/])",
            lambda m: re.sub(" ", "", m[0]),
        ),
        ("t", r"(?<=\d)\s*\^\s*\{\s*(?:st|th)\s*\}|(?<=\d)(?:st|th)(?![A-Za-z])", " "),
        ("d", r"(?<=\d)\s*\^\s*\{\s*(?:nd|rd)\s*\}|(?<=\d)(?:nd|rd)(?![A-Za-z])", " "),
    )
)  # fmt: skip
_FUNCTIONS = "arcsin|arccos|arctan|arccot|sinh|cosh|tanh|sin|cos|tan|cot|csc|log|ln|exp|gcd|lcm"
_FUNCTION_WORD = re.compile(rf"(?<![\\A-Za-z])({_FUNCTIONS})(?![A-Za-z])")
_MACRO_WITH_ARGUMENTS = re.compile(r"\\(frac|sqrt|binom)(?![A-Za-z])")
_MEANS_NOTHING = re.compile(
    r"(?<![A-Za-z0-9])\s+|\s+(?![A-Za-z0-9])|(?<=\d)\s+(?=[A-Za-z])|(?<=[A-Za-z])\s+(?=\d)"
)
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\s+|.", re.DOTALL)
_OPENERS = ("(", "[", "{", r"\{", r"\lfloor", r"\lceil")
_CLOSERS = (")", "]", "}", r"\}", r"\rfloor", r"\rceil")


@lru_cache(maxsize=4096)
def tidy(text: str) -> str:
    """The text in the one spelling that the comparisons read."""
    text = _row_ends(as_latex(text.replace(TEXT, " ")))
    loud = _LOUD.fullmatch(text)
    text = loud[2] if loud else text
    for _ in range(
        3 if "\\" in text else 0
    ):  # \text inside \textbf inside \mathrm is as deep as people go
        text, num_upright = _UPRIGHT.subn(_set_as_text, text)
        text, num_styled = _STYLED.subn(r" \1 ", text)
        if not num_upright + num_styled:
            break
    for trigger, pattern, replacement in _RESPELLINGS:
        if trigger in text:
            text = pattern.sub(replacement, text)
    text = _FUNCTION_WORD.sub(lambda m: r"\log " if m[1] == "ln" else rf"\{m[1]} ", text)
    text = _brace_arguments(text)
    text = re.sub(r"([\^_])\s*\{\s*([A-Za-z0-9])\s*\}", r"\1\2", text)
    text = re.sub(r"\+\s*\\infty", r"\\infty", text)
    return _strip_ends(re.sub(r"\s+", lambda m: TEXT if TEXT in m[0] else " ", text))


def _set_as_text(match: re.Match[str]) -> str:
    r"""The words of `\text{ cm}` behind the mark that tells them from variables."""
    words = match[1].strip(" ~")
    starts_a_word = words.lstrip("([")[:1].isalpha()
    return f"{TEXT}{words} " if starts_a_word else f" {match[1]} "


@lru_cache(maxsize=4096)
def key(text: str) -> str:
    """A tidied text without the marks and spaces that mean nothing; equal keys are equal answers.

    A space between two digits stays: 3 1/2 is not 31/2.
    """
    text = text.replace(TEXT, " ").replace(MONEY, "")
    return _MEANS_NOTHING.sub("", text)


def tokens(text: str) -> list[str]:
    """Macros whole, everything else by character."""
    return _TOKEN.findall(text)


def split_top(text: str, separators: tuple[str, ...]) -> list[str]:
    """Cut at separators (tokens) that stand outside all brackets."""
    parts, depth = [""], 0
    for token in tokens(text):
        depth += (token in _OPENERS) - (token in _CLOSERS)
        if depth <= 0 and token in separators:
            parts.append("")
        else:
            parts[-1] += token
    return [part.strip() for part in parts]


def unwrap(text: str) -> tuple[str, str, str]:
    r"""(opening, inside, closing) where one pair of brackets holds everything, else ("", text, "").

    `(` and `[` close each other, as half-open intervals want it.
    """
    parts = tokens(text)
    if len(parts) < 2 or parts[0] not in _OPENERS[:4] or parts[-1] not in _CLOSERS:
        return "", text, ""
    depth = 0
    for i, token in enumerate(parts):
        depth += (token in _OPENERS) - (token in _CLOSERS)
        if depth == 0 and i < len(parts) - 1:
            return "", text, ""
    if depth != 0 or (parts[0] in "([") != (parts[-1] in ")]"):
        return "", text, ""
    return parts[0], "".join(parts[1:-1]).strip(), parts[-1]


def _row_ends(text: str) -> str:
    r"""`\\\\` ends a row in a matrix; elsewhere it is a line break, or a macro escaped twice."""
    if r"\begin{" in text:
        return text.replace("\\\\", ROW)
    return re.sub(r"\\\\(?=[A-Za-z])", r"\\", text).replace("\\\\", " ")


def _brace_arguments(text: str) -> str:
    r"""`\frac12`, `\frac 1 {2}`, `\sqrt3` with braces around each argument."""
    pieces, position = [], 0
    for match in _MACRO_WITH_ARGUMENTS.finditer(text):
        if match.start() < position:
            continue
        pieces.append(text[position : match.start()])
        taken, position = _arguments(text, match)
        pieces.append(taken)
    return "".join(pieces) + text[position:]


def _arguments(text: str, match: re.Match[str]) -> tuple[str, int]:
    """The macro with as many braced arguments as stand there in short form, and where they end."""
    written, position = match.group(0), match.end()
    for _ in range(1 if match.group(1) == "sqrt" else 2):
        short = re.compile(r"\s*(\d|[A-Za-z]|\\pi(?![A-Za-z]))").match(text, position)
        simple = re.compile(r"\s*(\{[^{}]*\})").match(text, position)
        if simple:
            written += simple.group(1)
        elif short:
            written += "{" + short.group(1) + "}"
        else:
            break
        position = (simple or short).end()  # type: ignore[union-attr]
    return written, position


def _strip_ends(text: str) -> str:
    """Without the emphasis and punctuation of a sentence around the answer."""
    previous = None
    while text != previous:
        previous = text
        text = text.strip().strip("`").rstrip(",;:").removesuffix("\\").removesuffix("\\\\")
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1]
        if text.startswith("{"):
            text = unwrap(text)[1]
        text = text.strip()
    return text
