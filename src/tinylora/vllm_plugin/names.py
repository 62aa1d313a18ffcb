"""Adapters by name: a table of texts, or a folder of files; read again when it changes.

Nothing of a name reaches the file system: a folder is listed, and a name is looked up in the list.
"""

import logging
from pathlib import Path

from tinylora.adapter import files, text
from tinylora.adapter.contents import smallest_store
from tinylora.errors import RequestError

log = logging.getLogger("vllm.tinylora")
SUFFIX = ".safetensors"
Stamp = tuple[int, int]  # of a file: when it was changed, and its size


class Names:
    """Names to texts, as the table or the folder has them now.

    Args:
        path: of the table or the folder; None: there are no names.

    Raises:
        RequestError: it is not there, or cannot be read.
    """

    def __init__(self, path: str | None) -> None:
        self.path = None if path is None else Path(path)
        self._stamp: Stamp | None = None
        self._table: dict[str, str] = {}
        self._texts: frozenset[str] = frozenset()  # of the table
        self._files: dict[str, Path] = {}  # of a folder
        self._read: dict[str, tuple[Stamp, str]] = {}  # texts of its files
        if self.path is not None:
            self._load(self.path)

    def __len__(self) -> int:
        return len(self._table) + len(self._files)

    def text(self, name: str) -> str | None:
        """The text of the adapter that has this name; None: there is none.

        Raises:
            RequestError: its file is damaged, or gone.
        """
        self._refresh()
        if name in self._table:
            return self._table[name]
        return self._text_of_file(name) if name in self._files else None

    def texts(self) -> dict[str, str]:
        """All names, with their texts.

        Raises:
            RequestError: a file is damaged, or gone.
        """
        self._refresh()
        return self._table | {name: self._text_of_file(name) for name in self._files}

    def has_text(self, line: str) -> bool:
        """Whether one of the adapters has this very text."""
        self._refresh()
        return line in self._texts or any(self._text_of_file(n) == line for n in self._files)

    def _refresh(self) -> None:
        """Read it again where it has changed; what cannot be read leaves what was there."""
        if self.path is None:
            return
        try:
            if _stamp(self.path) != self._stamp:
                self._load(self.path)
        except (RequestError, OSError) as error:
            log.warning("The adapters of %s stay as they were: %s", self.path, error)

    def _load(self, path: Path) -> None:
        if not path.exists():
            raise RequestError(
                f"adapters = {path} does not exist. Name a folder of adapters, or a table with "
                "lines of a name, a tab and a text."
            )
        stamp = _stamp(path)
        if path.is_dir():
            self._files = _listed(path)
        else:
            self._table = read_table(path)
            self._texts = frozenset(self._table.values())
        self._stamp = stamp

    def _text_of_file(self, name: str) -> str:
        path = self._files[name]
        try:
            stamp = _stamp(path)
        except OSError:
            raise RequestError(f"The file of the adapter {name} is gone.") from None
        known = self._read.get(name)
        if known is None or known[0] != stamp:
            contents = files.read(path)
            line = text.encode(contents, smallest_store(contents.v))
            self._read[name] = known = stamp, line
        return known[1]


def read_table(path: Path) -> dict[str, str]:
    """The lines of a table: name, tab, text; empty ones and those that begin with # are left out.

    Raises:
        RequestError: a line is not like that, a name comes twice, or a text is damaged.
    """
    table: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = (part.strip() for part in line.partition("\t"))
        where = f"{path}, line {number}"
        if not name or not rest or text.is_text(name):
            raise RequestError(f"{where}: a line is a name, a tab, and an adapter's text.")
        if name in table:
            raise RequestError(f"{where}: the name {name} is there already. Names are unique.")
        try:
            text.decode(rest)
        except RequestError as error:
            raise RequestError(f"{where}: {error}") from None
        table[name] = "".join(rest.split())
    return table


def _listed(folder: Path) -> dict[str, Path]:
    """Adapter files by their names without the ending, and run folders by theirs."""
    runs = {p.name: p / files.FILE_NAME for p in sorted(folder.iterdir()) if p.is_dir()}
    found = {name: path for name, path in runs.items() if path.is_file()}
    return found | {p.stem: p for p in sorted(folder.glob(f"*{SUFFIX}"))}


def _stamp(path: Path) -> Stamp:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size
