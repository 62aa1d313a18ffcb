r"""Answers as people write them, brought into one spelling (`tidy`), and cut outside brackets.

`tidy` only respells (`\dfrac12` to `\frac{1}{2}`, `2,\!220` to `2,220`, `\text{Even}` to `Even`);
it never computes. Everything here runs in time linear in the text: the texts are a model's.
"""

# ruff: noqa: RUF001  (what looks ambiguous is what people type)

import re
from functools import lru_cache

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "×": r"\cdot ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/",
        "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ",
        "≈": r"\approx ", "°": r"\degree ", "²": "^2", "³": "^3", "½": r"\frac{1}{2}",
        "√": r"\sqrt ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ",
        "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "，": ",", "（": "(", "）": ")", "。": ".",
        "\u00a0": " ", "\u2009": " ", "\u200b": "", "’": "'", "′": "'",
    }
)  # fmt: skip

ROW = "\ue000"  # ends a row of a matrix in a tidied text: private, and no white space

# The order matters: a longer spelling before its own beginning.
_RESPELLINGS = tuple(
    (re.compile(pattern, re.DOTALL), replacement)
    for pattern, replacement in (
        (r"\\(?:begin|end)\{(?:align|equation|gather|aligned)\*?\}", " "),
        (r",\s*\\!\s*", ","),
        (r"\{,\}", ","),
        (r"\\[!]", ""),
        (r"\\\$|(?<!\\)\$|\\\(|\\\)|\\\[|\\\]", " "),
        (r"\\(?:display|text)style(?![A-Za-z])", " "),
        (r"\\(?:limits|nolimits|left|right|[bB]igg?[lrm]?)(?![A-Za-z])\.?", " "),
        (r"\\[,;:>]|\\ |~|\\q?quad(?![A-Za-z])|\\(?:phantom|hspace|vspace)\{[^{}]*\}", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        (r"\\(?:cdot|times|ast)(?![A-Za-z])|\*(?!\*)(?<!\*\*)", r"\\cdot "),
        (r"\*\*", "^"),
        (r"\\div(?![A-Za-z])", "/"),
        (r"\\leq(?:slant)?(?![A-Za-z])|<=", r"\\le "),
        (r"\\geq(?:slant)?(?![A-Za-z])|>=", r"\\ge "),
        (r"\\neq(?![A-Za-z])|!=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\ln(?![A-Za-z])", r"\\log"),
        (r"\\(?:ldots|cdots|dots|dotsc)(?![A-Za-z])|…", r"\\ldots "),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset "),
        (r"\\(?:mid|vert|lvert|rvert)(?![A-Za-z])", "|"),
        (r"\\colon(?![A-Za-z])", ":"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\^\s*\{?\s*\\circ\s*\}?|\\degrees?(?![A-Za-z])", r"\\degree "),
        (r"\\bmod(?![A-Za-z])|\\pmod(?![A-Za-z])", r"\\mod "),
        (r"\\langle(?![A-Za-z])", "("),
        (r"\\rangle(?![A-Za-z])", ")"),
        (r"\^\s*\{?\s*\\prime\s*\}?", "'"),
        (r"\\begin\{array\}\s*\{[^{}]*\}|\\begin\{[bBp]matrix\}", r"\\begin{matrix}"),
        (r"\\end\{(?:array|[bBp]matrix)\}", r"\\end{matrix}"),
        (
            r"[\[(]\s*(\\begin\{matrix\}(?:(?!\\begin|\\end).)*+\\end\{matrix\})\s*[\])]",
            r"\1",
        ),
        (r"^\s*(?:[Tt]he )?[Ss]olutions? (?:is|are)\b:?", " "),
        (r"^\s*\\approx(?![A-Za-z])", " "),
        (r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi "),
    )
)  # fmt: skip
_TEXT = re.compile(
    r"\\(?:text(?:bf|rm|it|normal|sf|tt|up)?|math(?:rm|bf|it|sf|tt|normal)|mbox|hbox|operatorname\*?"
    r"|boldsymbol|bm|fbox|underline)\s*\{([^{}]*)\}"
)
_FUNCTIONS = "arcsin|arccos|arctan|arccot|sinh|cosh|tanh|sin|cos|tan|cot|csc|log|exp|gcd|lcm"
_FUNCTION_WORD = re.compile(rf"(?<![\\A-Za-z])({_FUNCTIONS})(?![A-Za-z])")
_MACRO_WITH_ARGUMENTS = re.compile(r"\\(frac|sqrt|binom)(?![A-Za-z])")
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\s+|.", re.DOTALL)
_OPENERS = ("(", "[", "{", r"\{", r"\lfloor", r"\lceil")
_CLOSERS = (")", "]", "}", r"\}", r"\rfloor", r"\rceil")


@lru_cache(maxsize=4096)
def tidy(text: str) -> str:
    """The text in the one spelling that the comparisons read."""
    text = _row_ends(text.translate(_UNICODE))
    for _ in range(3):  # \text inside \textbf inside \mathrm is as deep as people go
        text, count = _TEXT.subn(r" \1 ", text)
        if not count:
            break
    for pattern, replacement in _RESPELLINGS:
        text = pattern.sub(replacement, text)
    text = _FUNCTION_WORD.sub(r"\\\1 ", text)
    text = _brace_arguments(text)
    text = re.sub(r"([\^_])\s*\{\s*([A-Za-z0-9])\s*\}", r"\1\2", text)
    text = re.sub(r"\+\s*\\infty", r"\\infty", text)
    return _strip_ends(re.sub(r"\s+", " ", text))


@lru_cache(maxsize=4096)
def key(text: str) -> str:
    """A tidied text without the spaces that mean nothing; equal keys are equal answers."""
    text = re.sub(r"\s+(?![A-Za-z])|(?<![A-Za-z])\s+", "", text)
    return re.sub(r"\{([A-Za-z0-9])\}", r"{\1}", text)


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
        text = text.strip()
    return text
