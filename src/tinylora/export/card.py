"""The model card of an export (README.md), with the metadata that the hub reads at its top."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tinylora.adapter import TinyLora
from tinylora.errors import RequestError

CARD = "README.md"
LONGEST_TEXT = 400  # an adapter of more numbers is not spelled out
PAPER = "[arXiv 2602.04118](https://arxiv.org/abs/2602.04118)"


@dataclass(frozen=True)
class Exported:
    """What was written: where, how large its weights are, and what has to be known about it."""

    folder: Path
    num_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
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
    kind: Kind,
    adapter: TinyLora,
    exported: Exported,
    source: str | Path | None = None,
) -> None:
    """Write README.md into `folder`, which is to become `exported.folder`.

    Args:
        source: what the adapter was loaded from; beside a `summary.json` the accuracy is that of
            its run.
    """
    text = "\n\n".join(
        [
            _front_matter(kind, adapter),
            f"# {adapter.num_trainable} numbers on {_base(adapter)}, as {kind.what}",
            f"Made with tinylora (TinyLoRA, {PAPER}): every adapted matrix W of the base model "
            f"answers as W + U S R V^T, where U, S, V come from W itself and R from "
            f"{adapter.num_trainable} trained numbers.",
            _table([*_facts(kind, adapter, exported, source), *_accuracies(source)]),
            *exported.notes,
            f"## How to load it\n\n```{_code(kind, adapter, exported)}\n```\n",
        ]
    )
    (folder / CARD).write_text(text, encoding="utf-8")


def _front_matter(kind: Kind, adapter: TinyLora) -> str:
    meta: dict[str, Any] = {
        "library_name": kind.library,
        "pipeline_tag": "text-generation",
        "tags": ["tinylora", kind.to],
    }
    base = adapter.base[0]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base):  # the hub takes nothing else
        meta = {"base_model": base, "base_model_relation": kind.relation, **meta}
    return f"---\n{yaml.safe_dump(meta, sort_keys=False)}---"


def _base(adapter: TinyLora) -> str:
    return adapter.base[0] or f"a {type(adapter.model).__name__} without a name"


def _facts(
    kind: Kind, adapter: TinyLora, exported: Exported, source: str | Path | None
) -> list[tuple[str, str]]:
    config, (_, revision) = adapter.config, adapter.base
    groups = len(adapter.modules_by_group)
    text = adapter.to_text()
    return [
        ("base model", _base(adapter) + (f" at {revision}" if revision else "") + _layers(adapter)),
        ("method", f"TinyLoRA: u = {config.u} in {groups} groups, frozen rank {config.rank}"),
        ("numbers", str(adapter.num_trainable)),
        ("adapted maps", f"{len(adapter.maps)} (layers: {config.layers})"),
        ("left out", ", ".join(adapter.left_out) or "none"),
        ("written by", f"`{_command(kind, exported, source)}`"),
        ("bytes of weights here", f"{exported.num_bytes:,}"),
        *([("the adapter itself", f"`{text}`")] if len(text) <= LONGEST_TEXT else []),
    ]


def _layers(adapter: TinyLora) -> str:
    """Which layers a quantised base has."""
    maps = [item.linear for item in adapter.maps.values()]
    kinds = sorted({type(linear.module).__name__ for linear in maps if not linear.is_plain})
    return f", quantised ({', '.join(kinds)})" if kinds else ""


def _command(kind: Kind, exported: Exported, source: str | Path | None) -> str:
    """Paths by their last part: a card tells nobody how its author's folders are called."""
    text = "ADAPTER" if source is None else str(source)
    name = text if text.startswith("tl1:") else Path(text).name
    return f"tinylora export {name} --to {kind.to} --out {exported.folder.name}"


def _accuracies(source: str | Path | None) -> list[tuple[str, str]]:
    """Of the run that trained the adapter, where it says them."""
    summary = run_summary(source)
    rows = []
    for name, key in (("greedy", "accuracy"), ("sampled", "accuracy_sampled")):
        base, final = (summary.get(f"{when}_{key}") for when in ("base", "final"))
        if base is not None and final is not None:
            task = f"accuracy on {summary.get('task', 'its task')}, {name}"
            rows.append((task, f"{final:.1%} (base model: {base:.1%})"))
    return rows


def run_summary(source: str | Path | None) -> Mapping[str, Any]:
    """`summary.json` of the run that an adapter lies in; empty where there is none."""
    if source is None or str(source).startswith("tl1:"):
        return {}
    path = Path(source)
    file = (path if path.is_dir() else path.parent) / "summary.json"
    if not file.is_file():
        return {}
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RequestError(
            f"{file} is not JSON ({error}), and the model card would quote its accuracies. Mend "
            "it, or move the adapter file out of its folder."
        ) from None
    return summary if isinstance(summary, dict) else {}


def _table(rows: list[tuple[str, str]]) -> str:
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(lines)


def _code(kind: Kind, adapter: TinyLora, exported: Exported) -> str:
    base = adapter.base[0] or "BASE_MODEL"
    return kind.how.replace("BASE", base).replace("FOLDER", exported.folder.name)
