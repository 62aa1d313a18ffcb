r"""Unicode as LaTeX, before anything is read: `2√13`, `x⁴`, `¾`, `十二`, Greek letters, digits."""

# ruff: noqa: RUF001  (what looks ambiguous is what people type)

import re
import unicodedata

_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "×": r"\cdot ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/",
    "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "⩽": r"\le ", "⩾": r"\ge ",
    "≈": r"\approx ", "≡": r"\equiv ", "°": r"\degree ", "√": r"\sqrt ", "∪": r"\cup ",
    "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "∓": r"\mp ", "∅": r"\emptyset ", "∖": r"\setminus ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "…": r"\ldots ",
    "∠": r"\angle ", "△": r"\triangle ", "∴": r"\therefore ", "⇒": r"\implies ", "→": r"\to ",
    "⟨": "(", "⟩": ")", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
    "，": ",", "、": ",", "（": "(", "）": ")", "。": ".", "’": "'", "‘": "'", "′": "'", "″": "''",
    "\u200b": "", "\ufeff": "", "\u2061": "", "\u2062": "",
}  # fmt: skip
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ"
_SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉"
_RAISED = re.compile(f"[{_SUPERSCRIPTS}]+")
_LOWERED = re.compile(f"[{_SUBSCRIPTS}]+")
_ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?|[A-Za-z])?")
_ROOTS = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}
_VULGAR = re.compile("[¼½¾⅐-⅞]")
_CHINESE = re.compile(r"(?<![^\W\d_])[零〇一二两三四五六七八九十百千]+(?![^\W\d_])")
_CHINESE_DIGITS = {digit: i for i, digit in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_CHINESE_UNITS = {"十": 10, "百": 100, "千": 1000}


def as_latex(text: str) -> str:
    """The text with LaTeX for each character that has a meaning in mathematics."""
    if text.isascii():
        return text
    text = _RAISED.sub(lambda m: f"^{{{_normal(m[0])}}}", text)
    text = _LOWERED.sub(lambda m: f"_{{{_normal(m[0])}}}", text)
    text = _ROOT.sub(lambda m: _ROOTS[m[1]] + (f"{{{m[2]}}}" if m[2] else " "), text)
    text = _VULGAR.sub(lambda m: rf"\frac{{{_normal(m[0]).replace('⁄', '}{')}}}", text)
    text = _CHINESE.sub(lambda m: _chinese(m[0]), text)
    return "".join(character if character.isascii() else _latex(character) for character in text)


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("−", "-")


def _latex(character: str) -> str:
    known = _SYMBOLS.get(character)
    if known is not None:
        return known
    if character.isspace():
        return " "
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(digit)
    kind, _, letter = unicodedata.name(character, "").partition(" LETTER ")
    if kind in ("GREEK SMALL", "GREEK CAPITAL") and letter.isalpha():
        name = letter.lower().replace("lamda", "lambda")
        return f"\\{name.capitalize() if kind == 'GREEK CAPITAL' else name} "
    normal = _normal(character)
    return normal if normal.isascii() else character


def _chinese(text: str) -> str:
    """`三百二十` as 320; characters without a unit are digits in a row: `二〇` is 20."""
    if not set(text) & set(_CHINESE_UNITS):
        return "".join(str(_CHINESE_DIGITS[character]) for character in text)
    total, digit = 0, 0
    for character in text:
        if character in _CHINESE_UNITS:
            total += (digit or 1) * _CHINESE_UNITS[character]
            digit = 0
        else:
            digit = _CHINESE_DIGITS[character]
    return str(total + digit)
