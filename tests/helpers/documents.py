"""The documentation as tests see it: pages, their code blocks, the commands in these."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
MADE = {"cli.md", "settings.md"}  # of docs/reference, by `make docs`
TOP = [ROOT / name for name in ("README.md", "README.zh.md", "CONTRIBUTING.md", "CHANGELOG.md")]
COPIES = {"contributing.md", "changelog.md"}  # of those at the top, by `make docs`
PAGES = [
    *TOP,
    ROOT / "examples" / "README.md",
    *(p for p in sorted(DOCS.rglob("*.md")) if p.name not in MADE | COPIES),
]
CHINESE = [page for page in PAGES if page.name.endswith(".zh.md")]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in these languages, "" being that of a bare fence."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)
    return [block for language, block in found if language in languages]


def commands(page: Path) -> Iterator[list[str]]:
    """The shell commands of a page as lists of words, without what the shell itself does."""
    for block in blocks(page, "sh", ""):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"(tinylora|make|python|torchrun) ", line) and "..." not in line:
                for part in re.split(r"\s&&\s|\s\|\s", line):
                    yield shlex.split(part, comments=True)


def glossary() -> set[str]:
    """The names of metrics that docs/reference/metrics.md explains."""
    cells = re.findall(r"^\| (`.*?) \|", text_of(DOCS / "reference" / "metrics.md"), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def unexplained(metrics: dict[str, float]) -> set[str]:
    """The metrics of a step that the glossary lacks; shares of kinds of answers have one entry."""
    return {name for name in metrics if not name.startswith("share_")} - glossary()
