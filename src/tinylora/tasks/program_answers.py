"""The C++ program in an answer: what models write around their programs, and inside.

Not covered: programs in several blocks that only together compile.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*([^\n]*)")
_QUOTED = re.compile(r"[ \t]*>[ \t]?")
_CPP = re.compile(
    r"(?:language-|lang-)?(?:(?:gnu|g)?\+\+|c\+\+|cpp|cxx|cc|c|hpp|h|cplusplus)[-_]?(?:\d\d|0x)?"
)
_NEUTRAL = ("", "text", "txt", "plaintext", "plain", "code", "none", "output")
_TAG = (
    r"(?:</?(?:pre|code|answer)\b[^>\n]{0,80}>|\\(?:begin|end)\{(?:lstlisting|verbatim|minted|code)\}"
    r"(?:\[[^\]\n]{0,80}\]|\{[^}\n]{0,20}\}){0,2})"
)
_TAGS = re.compile(rf"^[ \t]*{_TAG}+|{_TAG}+[ \t]*$", re.MULTILINE | re.IGNORECASE)
_MAIN = re.compile(r"\bmain[ \t]{0,9}\(")
_CODE_LINE = re.compile(
    r"^[ \t]*(?:#[ \t]*(?:include|import)[ \t]*[<\"][^>\"\n]{1,80}[>\"]"
    r"|#[ \t]*(?:pragma|define|ifn?def)\b|using namespace \w|//|/\*"
    r"|(?:(?:signed|int|auto|int32_t|void)[ \t]+)?main[ \t]*\([^)\n]{0,80}\)[ \t]*(?:\{|$))",
    re.MULTILINE,
)
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include\b", re.MULTILINE)
_BARE_MAIN = re.compile(r"^[ \t]*(?:\w+[ \t]+)?main[ \t]*\([^)\n]{0,80}\)\s*\{", re.MULTILINE)
_REOPENED = re.compile(
    r"(?:\bstd[ \t]*::[ \t]*)?\bfreopen[ \t]*\([ \t]*(?:\"[^\"\n]{0,80}\"|\w{1,40}(?:\.c_str\(\))?)"
    r"[ \t]*,[ \t]*\"[^\"\n]{0,8}\"[ \t]*,[ \t]*((?:std::)?(?:stdin|stdout))[ \t]*\)"
)


@dataclass
class _Block:
    """A fenced block: what follows its fence, and whether it ends before the answer does."""

    language: str
    text: str
    is_closed: bool = True

    @property
    def has_main(self) -> bool:
        return bool(_MAIN.search(self.text))

    @property
    def is_cpp(self) -> bool:
        return bool(_CPP.fullmatch(self.language))

    @property
    def is_neutral(self) -> bool:
        """Of no language; one called text is a program only if it reads like one."""
        return self.language == "" or (self.language in _NEUTRAL and self.has_main)


def program_in(answer: str) -> str | None:
    """The program that an answer gives, or None.

    It is the last closed block of C++ that has a main function; else the last of C++; else the same
    of blocks without a language; else the block that the budget cut off. A base model continues
    from an open fence: then the program is what comes before the next fence. An answer without any
    fence is a program if it reads like one.

    `freopen` of the standard streams, by which contestants read their own files, does nothing.
    """
    answer = _TAGS.sub("", answer.rpartition("</think>")[2])
    lines = [line.lstrip(_INVISIBLE) for line in answer.splitlines()]
    before, blocks = _parse(lines)
    found = _bare(before) if not (blocks and blocks[0].language) else None
    if found is None:
        found = _chosen(blocks)
    return None if found is None else _REOPENED.sub(r"(\1)", found)


def _parse(lines: list[str]) -> tuple[str, list[_Block]]:
    """What comes before the first fence, and the blocks."""
    before: list[str] = []
    blocks: list[_Block] = []
    rest = iter(lines)
    for line in rest:
        opening = _FENCE.match(line) or _FENCE.match(_QUOTED.sub("", line, count=1))
        if opening:
            blocks.append(_block(opening, bool(_QUOTED.match(line)), rest))
        elif not blocks:
            before.append(line)
    return "\n".join(before), blocks


def _block(opening: re.Match[str], is_quoted: bool, rest: Iterator[str]) -> _Block:
    fence = opening[1]
    language, _, code = opening[2].strip().partition(" ")
    language = language.strip("{}.").lower()
    held = [code] if _MAIN.search(code) or "#include" in code else []
    for line in rest:
        text = _QUOTED.sub("", line, count=1) if is_quoted else line
        content, is_end = _end(text, fence)
        if is_end and content is None and _is_open(held):
            held.append(text)  # a fence inside the program, as in a text that it prints
            continue
        if content is not None or not is_end:
            held.append(text if content is None else content)
        if is_end:
            return _Block(language, _lines(held))
    return _Block(language, _lines(held), is_closed=False)


def _lines(held: list[str]) -> str:
    return "\n" + "\n".join(held) + "\n"


def _end(line: str, fence: str) -> tuple[str | None, bool]:
    """Whether a line closes the block, and what of the program is on it, before the fence."""
    bare = line.strip()
    if len(bare) >= len(fence) and not bare.strip(fence[0]):
        return None, True
    if bare.endswith(fence) and bare.rstrip(fence[0]).endswith(("}", ";")):
        return line.rstrip().rstrip(fence[0]), True
    return None, False


def _is_open(lines: list[str]) -> bool:
    """Inside a raw string or a comment, where a line of backticks is a part of the program."""
    text = "\n".join(lines)
    raw = text.count('R"(') > text.count(')"')
    return raw or text.rfind("/*") > text.rfind("*/")


def _chosen(blocks: list[_Block]) -> str | None:
    closed = [block for block in blocks[::-1] if block.is_closed]
    cut_off = [block for block in blocks[::-1] if not block.is_closed]
    orders = (
        [block for block in closed if block.is_cpp and block.has_main],
        [block for block in closed if block.is_cpp],
        [block for block in cut_off if block.is_cpp],
        [block for block in closed if block.is_neutral and block.has_main],
        [block for block in closed if block.is_neutral],
        [block for block in cut_off if block.is_neutral],
    )
    return next((order[0].text for order in orders if order), None)


def _bare(text: str) -> str | None:
    """A program without a fence, without the words before its first line and after its last."""
    start = _CODE_LINE.search(text)
    if start is None or not (_INCLUDE.search(text) or _BARE_MAIN.search(text)):
        return None
    if not _BARE_MAIN.search(text):  # cut off, or no program
        return text[start.start() :] if "{" in text[start.start() :] else None
    end = text.rfind("}")
    return text[start.start() : end + 1] + "\n"
