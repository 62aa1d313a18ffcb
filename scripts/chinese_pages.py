"""Which Chinese pages are older than the English ones that they follow.

    python scripts/chinese_pages.py             # list those that are behind
    python scripts/chinese_pages.py --update    # after they were brought up to date: record it

A page `name.zh.md` ends with a comment that holds the beginning of the SHA-256 of `name.md` as it
was when the Chinese text was last brought up to date.
"""

import argparse
import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
MARK = re.compile(r"\n<!-- english: (\w+) -->\n\Z")  # at the end: a title comes first
DIGITS = 12


def pages(root: Path = ROOT) -> list[Path]:
    """The Chinese pages: of the repository, README's and those of docs/."""
    folders = (root.glob("*.zh.md"), (root / "docs").rglob("*.zh.md"))
    return sorted(page for found in folders for page in found)


def english_of(page: Path) -> Path:
    """The English page that a Chinese one follows."""
    return page.with_name(page.name.replace(".zh.md", ".md"))


def digest(english: Path) -> str:
    """What stands for the text of an English page."""
    return hashlib.sha256(english.read_bytes()).hexdigest()[:DIGITS]


def behind(root: Path = ROOT) -> list[Path]:
    """The Chinese pages whose English page has changed since, or that do not say."""
    found = []
    for page in pages(root):
        mark = MARK.search(page.read_text(encoding="utf-8"))
        if mark is None or mark[1] != digest(english_of(page)):
            found.append(page)
    return found


def update(page: Path) -> None:
    """Record that a page is up to date."""
    text = MARK.sub("", page.read_text(encoding="utf-8")).rstrip()
    page.write_text(f"{text}\n\n<!-- english: {digest(english_of(page))} -->\n", encoding="utf-8")


def main() -> int:
    """List the pages that are behind, or record that they are not any more."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--update", action="store_true", help="record the English pages of today")
    args = parser.parse_args()
    found = behind()
    for page in found:
        if args.update:
            update(page)
        print(page.relative_to(ROOT), "was recorded as up to date" if args.update else "is behind")
    return 0 if args.update else len(found) > 0


if __name__ == "__main__":
    raise SystemExit(main())
