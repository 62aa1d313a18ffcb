"""What MkDocs does beside building pages: pages from the code, and llms.txt.

    make docs

- `reference/cli.md` comes from the parsers of the verbs, `reference/settings.md` from the classes
  of settings, so that neither can be out of date; `contributing.md` and `changelog.md` are the
  files at the top of the repository.
- A page named under `extra.awaited` joins the navigation when its file is there.
- `llms.txt` lists the pages with the first sentence of each, for language models that read sites.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from mkdocs.exceptions import PluginError
from pydantic.fields import FieldInfo

from tinylora.cli import VERBS, file_of
from tinylora.cli.options import Verb
from tinylora.settings import GROUPS, default_text

ROOT = Path(__file__).parent.parent
TOP = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
SUMMARIES: dict[str, tuple[str, str]] = {}  # address: title and first sentence, of English pages
SECTIONS: dict[str, str] = {}  # address: section, in the order of the navigation


def on_config(config: Any) -> Any:
    """Write the pages that are made, and leave out the awaited ones that are not there yet.

    They are files (which git ignores), because the plugin of languages takes no other pages.
    """
    docs = Path(config.docs_dir)
    for name, text in made_pages().items():
        if not (docs / name).exists() or (docs / name).read_text(encoding="utf-8") != text:
            (docs / name).write_text(text, encoding="utf-8")
    absent = {name for name in config.extra["awaited"] if not (docs / name).exists()}
    config.nav = _without(config.nav, absent)
    return config


def _without(nav: Any, absent: set[str]) -> Any:
    if isinstance(nav, dict):
        return {title: _without(entry, absent) for title, entry in nav.items()}
    if isinstance(nav, list):
        return [_without(entry, absent) for entry in nav if not _is_absent(entry, absent)]
    return nav


def _is_absent(entry: Any, absent: set[str]) -> bool:
    name = next(iter(entry.values())) if isinstance(entry, dict) else entry
    return isinstance(name, str) and name in absent


def made_pages() -> dict[str, str]:
    """The pages that come from the code and from the top of the repository."""
    made = {"reference/cli.md": cli_page(), "reference/settings.md": settings_page()}
    return made | {name: top_page(source) for name, source in TOP.items()}


def top_page(name: str) -> str:
    """A file at the top of the repository, with its links into docs/ as a page there has them."""
    return (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")


def verbs() -> Iterator[Verb]:
    for name in VERBS:
        yield import_module(f"tinylora.cli.{file_of(name)}").VERB


def cli_page() -> str:
    """Every verb with its help, as the terminal shows it."""
    parts = [
        "# Command line",
        "What `tinylora VERB --help` prints, made from the parsers. The settings of a run, which "
        "`train` and others share, have [a page of their own](settings.md).",
        "Exit status: 0 done; 2 the request is wrong (one sentence says why); 1 it failed while "
        "running; 130 interrupted, with the checkpoint written; 141 nobody reads the output.",
        "## tinylora --version",
        "Prints the versions of tinylora, torch and transformers, and the device.",
    ]
    for verb in verbs():
        parts += [f"## tinylora {verb.name}", " ".join(verb.description.split())]
        parts += [f"```sh\n{_examples(verb)}\n```"]
        own = {t: g for t, g in verb.groups.items() if t not in GROUPS or verb.name != "train"}
        for title, options in own.items():
            parts += [f"**{title}**", _table(options, verb)]
        if len(own) < len(verb.groups):
            parts.append("Every [setting of a run](settings.md) is an option, too.")
    return "\n\n".join(parts) + "\n"


def _examples(verb: Verb) -> str:
    return "\n".join(line.strip() for line in verb.examples.splitlines())


def settings_page() -> str:
    """Every setting of a run, group by group."""
    parts = [
        "# Settings",
        "Every setting of `tinylora train`, made from the classes in `tinylora.settings`. On the "
        "command line a setting is an option with dashes (`--num-groups 13`), in a recipe a key "
        "(`num_groups: 13`), in Python an argument (`TrainConfig(num_groups=13)`). Defaults give "
        "way to the recipe, and the recipe to the command line.",
        "The title of a group says who reads it. A setting that the chosen method, algorithm, "
        "rollout engine or task does not read is refused, and so is an unknown name, with the "
        "nearest known one.",
    ]
    for title, options in GROUPS.items():
        rows = [
            (f"`{name}`", _kind(field), _cell(_default(field)), _cell(field.description or ""))
            for name, field in options.items()
        ]
        parts += [f"## {title[0].upper()}{title[1:]}", _markdown(SETTING_HEADER, rows)]
    return "\n\n".join(parts) + "\n"


SETTING_HEADER = ("setting", "values", "default", "meaning")
_RULES = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def _kind(field: FieldInfo) -> str:
    """The values that a field takes, with its limits."""
    annotation: Any = field.annotation
    kinds = [annotation] if get_origin(annotation) is tuple else [annotation, *get_args(annotation)]
    for kind in kinds:
        if get_origin(kind) is Literal:
            return ", ".join(f"`{value}`" for value in get_args(kind))
    names = {bool: "true or false", int: "whole number", float: "number", tuple: "list"}
    origins = [get_origin(kind) or kind for kind in kinds]
    name = next((names[kind] for kind in names if kind in origins), "text")
    found = ((sign, getattr(rule, key, None)) for rule in field.metadata
             for key, sign in _RULES.items())  # fmt: skip
    return name + "".join(f" {sign} {limit:g}" for sign, limit in found if limit is not None)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    text = default_text(field)
    return f"`{text}`" if text else {False: "`false`"}.get(field.get_default(), "none")


def _table(options: dict[str, FieldInfo], verb: Verb) -> str:
    rows = [(f"`{_option(name, verb)}`", _cell(verb.help_of(name))) for name in options]
    return _markdown(("option", "meaning"), rows)


def _option(name: str, verb: Verb) -> str:
    if name in verb.positionals:
        return verb.fields[name].title or name.upper()
    return ", ".join(verb._options(name))


def _markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text inside a table, where bars divide and angles would be tags."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> None:
    """Remember what llms.txt says of an English page."""
    address = page.file.dest_uri
    if not address.startswith("zh/"):
        SUMMARIES[address] = (page.title or address, first_sentence(markdown))


def first_sentence(markdown: str) -> str:
    """Of the first paragraph that is prose."""
    for part in re.split(r"\n\s*\n", re.sub(r"```.*?```|<!--.*?-->", "", markdown, flags=re.S)):
        text = " ".join(part.split())
        if text and text[0] not in "#|!<-":
            plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text).replace("*", "").replace("`", "")
            return re.split(r"(?<=[.!?])\s", plain)[0]
    return ""


def _fetched(html: str) -> list[str]:
    """What a page would fetch from elsewhere: fonts, scripts, styles, pictures, frames."""
    tags = "script|link|img|iframe|source"
    return re.findall(rf"<(?:{tags})[^>]+(?:src|href)=['\"]?https?://[^\s>]+", html)


def on_post_page(output: str, page: Any, **_: Any) -> None:
    """Refuse a page that is not complete by itself."""
    if found := _fetched(output):
        raise PluginError(
            f"{page.file.src_uri} fetches {found[0]}: the site is complete by itself."
        )


def on_nav(nav: Any, **_: Any) -> None:
    """Remember the order of the English pages, and the section of each."""
    for page in nav.pages:
        address = page.file.dest_uri
        if not address.startswith("zh/"):
            SECTIONS.setdefault(address, page.ancestors[-1].title if page.ancestors else "Overview")


def on_post_build(config: Any) -> None:
    """llms.txt (llmstxt.org), once for the site, in the order of its navigation."""
    lines = [f"# {config.site_name}", "", f"> {config.site_description}"]
    told = ""
    for address, section in SECTIONS.items():
        if address in SUMMARIES:
            title, sentence = SUMMARIES[address]
            lines += ["", f"## {section}", ""] if section != told else []
            lines.append(f"- [{title}]({address})" + (f": {sentence}" if sentence else ""))
            told = section
    lines += ["", "## Optional", "", "- [In Chinese](zh/index.html)"]
    (Path(config.site_dir) / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
