"""The model card of an export (README.md), with the metadata that the hub reads at its top."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from tinylora.adapter import TinyLora, files
from tinylora.adapter.fingerprint import compare
from tinylora.adapter.freedom import surplus
from tinylora.adapter.text import is_text
from tinylora.errors import RequestError

CARD = "README.md"
UNNAMED = "BASE_MODEL"
LONGEST_TEXT = 400  # an adapter of more numbers is not spelled out
PAPER = "[arXiv 2602.04118](https://arxiv.org/abs/2602.04118)"


@dataclass(frozen=True)
class Exported:
    """What was written: where, how large its weights are, and what has to be known about it."""

    folder: Path
    num_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportKind:
    """One format, for the card.

    Args:
        to: its name on the command line.
        what: the title's end.
        library: the hub's `library_name`.
        relation: the hub's `base_model_relation`.
        how: the code that loads it; `BASE` and `FOLDER` stand for the base model and the folder.
    """

    to: str
    what: str
    library: str
    relation: str
    how: str


def write_card(
    folder: Path,
    kind: ExportKind,
    adapter: TinyLora,
    exported: Exported,
    source: str | Path | None = None,
) -> None:
    """Write README.md into `folder`, which is to become `exported.folder`.

    Args:
        source: what the adapter was loaded from; that of a run gives the run's accuracies.
    """
    text = "\n\n".join(
        [
            front_matter(kind, adapter.base[0]),
            f"# {adapter.num_trainable} numbers on {_base(adapter)}, as {kind.what}",
            f"Made with tinylora (TinyLoRA, {PAPER}): every adapted matrix W of the base model "
            "acts as W + U S R V^T, where U, S, V come from W itself and R from "
            f"{adapter.num_trainable} trained numbers.",
            table(
                [*_facts(kind, adapter, exported, source), *accuracies(adapter.fingerprint, source)]
            ),
            *filter(None, [surplus(adapter.modules_by_group, adapter.config)]),
            *exported.notes,
            "## How to load it",
            *_where(kind, adapter),
            f"```{_code(kind, adapter, exported)}\n```\n",
        ]
    )
    (folder / CARD).write_text(text, encoding="utf-8")


def front_matter(kind: ExportKind, base: str, **more: Any) -> str:
    """The metadata that the hub reads.

    Args:
        base: the name of the base model; the hub takes only those that are on it.
        more: keys of our own.
    """
    is_there = is_on_the_hub(base)
    meta = ModelCardData(
        base_model=base if is_there else None,
        base_model_relation=kind.relation if is_there else None,
        library_name=kind.library,
        pipeline_tag="text-generation",
        tags=["tinylora", kind.to],
        **more,
    )
    return f"---\n{meta.to_yaml()}\n---"


def is_on_the_hub(base: str) -> bool:
    """Whether a base model's name can be one of the hub's."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", base) is not None


def _base(adapter: TinyLora) -> str:
    return adapter.base[0] or f"a {type(adapter.model).__name__} without a name"


def _facts(
    kind: ExportKind, adapter: TinyLora, exported: Exported, source: str | Path | None
) -> list[tuple[str, str]]:
    config, (_, revision) = adapter.config, adapter.base
    num_groups = len(adapter.modules_by_group)
    groups = f"{num_groups} group{'s' * (num_groups > 1)}"
    text = adapter.to_text()
    return [
        ("base model", _base(adapter) + (f" at {revision}" if revision else "") + _layers(adapter)),
        ("method", f"TinyLoRA: u = {config.u} in {groups}, frozen rank {config.rank}"),
        ("numbers", str(adapter.num_trainable)),
        ("degrees of freedom", str(adapter.degrees_of_freedom)),
        ("adapted linear layers", f"{len(adapter.maps)} (blocks: {config.layers})"),
        ("left out", ", ".join(adapter.left_out) or "none"),
        ("written by", f"`{_command(kind, exported, source)}`"),
        ("bytes of weights in this folder", f"{exported.num_bytes:,}"),
        *([("the adapter itself", f"`{text}`")] if len(text) <= LONGEST_TEXT else []),
    ]


def _layers(adapter: TinyLora) -> str:
    """Which layers a quantised base has."""
    maps = [item.linear for item in adapter.maps.values()]
    kinds = sorted({type(linear.module).__name__ for linear in maps if not linear.is_plain})
    return f", quantised ({', '.join(kinds)})" if kinds else ""


def _command(kind: ExportKind, exported: Exported, source: str | Path | None) -> str:
    """Paths by their last part: a card tells nobody how its author's folders are called."""
    text = "ADAPTER" if source is None else str(source)
    name = text.strip() if is_text(text) else Path(text).name
    return f"tinylora export {name} --to {kind.to} --out {exported.folder.name}"


def accuracies(fingerprint: str, source: str | Path | None) -> list[tuple[str, str]]:
    """Of the run that trained the adapter, where it says them; on another base they do not hold."""
    summary = run_summary(source)
    if summary and compare(files.read(str(source)).fingerprint, fingerprint):
        return []
    rows = []
    for name, key in (("greedy", "accuracy"), ("sampled", "accuracy_sampled")):
        base, final = (summary.get(f"{when}_{key}") for when in ("base", "final"))
        if base is not None and final is not None:
            task = f"accuracy on {summary.get('task', 'its task')}, {name}"
            rows.append((task, f"{final:.1%} (base model: {base:.1%})"))
    return rows


def run_summary(source: str | Path | None) -> Mapping[str, Any]:
    """`summary.json` of the run that an adapter is in; empty where there is none."""
    if source is None or is_text(str(source)):
        return {}
    path = Path(source)
    if not path.is_dir() and path.name != files.FILE_NAME:  # a run has one that was measured
        return {}
    file = (path if path.is_dir() else path.parent) / "summary.json"
    if not file.is_file():
        return {}
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RequestError(
            f"{file} is not JSON ({error}), and the model card would quote its accuracies. Fix "
            "it, or move the adapter file out of its folder."
        ) from None
    return summary if isinstance(summary, dict) else {}


def table(rows: list[tuple[str, str]]) -> str:
    """Names and values, as Markdown."""
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(lines)


def _where(kind: ExportKind, adapter: TinyLora) -> list[str]:
    """What to write for a base model that no engine finds by its name."""
    base = adapter.base[0]
    if "BASE" not in kind.how or is_on_the_hub(base):
        return []
    if base == "pocket":
        return [
            "`pocket` is in tinylora: replace it by the folder `tinylora.pocket.model_folder()`."
        ]
    return [f"Replace `{base or UNNAMED}` by the folder of the base model."]


def _code(kind: ExportKind, adapter: TinyLora, exported: Exported) -> str:
    base = adapter.base[0] or UNNAMED
    return kind.how.replace("BASE", base).replace("FOLDER", exported.folder.name)
