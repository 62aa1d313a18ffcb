"""What `tinylora eval` prints."""

import statistics
from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

KINDS = ("greedy", "sampled")
NAMES = {
    "accuracy": "accuracy (pass@1)",
    "strict": "  in the format asked for",
    "lenient": "  in any format",
    "compiled": "compiled",
    "mean_score": "mean score",
    "mean_length": "mean length, tokens",
    "truncated_share": "cut off by the budget",
}
NUMBERS = ("mean_score", "mean_length")  # the others are shares
MOST_SHOWN = 20  # changed problems; the JSON file has all
MOST_LETTERS = 48  # of a text in a table


def tables(result: Mapping[str, Any]) -> list[Table]:
    """The figures with their controls; the comparison; side effects; the kinds of answers."""
    found = [figure_table(result)]
    if "compare" in result:
        found += [paired_table(result), changed_table(result["compare"]["changed"])]
    if "side_effects" in result:
        found.append(side_effects_table(result["side_effects"]))
    labels = label_table(result)
    return found if labels is None else [*found, labels]


def figure_table(result: Mapping[str, Any]) -> Table:
    """A row for each figure, a column for greedy and for sampled answers."""
    greedy, sampled = (result[kind] for kind in KINDS)
    what = result["adapter"] or "the base model"
    title = (
        f"{result['model']}, {what}: {result['task']} ({result['split']}), "
        f"{greedy['num_problems']} problems, 95 % intervals"
    )
    heads = ("", "greedy", f"sampled, {sampled['num_samples']} each")
    table = Table(*heads, title=escape(title), title_justify="left")
    names = dict.fromkeys([*sampled["figures"], *greedy["figures"]])
    for name in names:
        cells = [_figure(name, result[kind]["figures"].get(name)) for kind in KINDS]
        table.add_row(NAMES.get(name, name), *cells)
    table.add_row("not judged", *(str(result[kind]["num_unjudged"]) for kind in KINDS))
    if "controls" in result:
        table.add_section()
        for row in _control_rows(result["controls"]):
            table.add_row(*row)
    return table


def side_effects_table(held: Mapping[str, Any]) -> Table:
    """The loss of a text that has nothing to do with the task, before and after."""
    title = (
        f"side effects: text {held['text']}, {held['num_paragraphs']} paragraphs, "
        f"{held['num_tokens']} tokens"
    )
    table = Table("", "before", "after", "difference", title=escape(title), title_justify="left")
    losses = (f"{held[f'loss_{when}']:.4f}" for when in ("before", "after"))
    table.add_row("loss, nats a token", *losses, _nats(held["difference"], "+.4f"))
    perplexities = (f"{held[f'perplexity_{when}']:.4g}" for when in ("before", "after"))
    table.add_row("perplexity", *perplexities, "")
    table.add_row("KL of a token, nats", "", "", _nats(held["kl"], ".4f"))
    table.add_row("another first choice", "", "", _figure("changed", held["changed"]))
    return table


def _nats(figure: Mapping[str, float], style: str) -> str:
    value, low, high = (format(figure[key], style) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def paired_table(result: Mapping[str, Any]) -> Table:
    """Both policies on the same problems."""
    first, second = result["adapter"] or "base", result["compare"]["adapter"]
    title = escape(f"{first} against {second}, the same problems")
    table = Table("", "greedy", "sampled", title=title, title_justify="left")
    for name, held in ((first, result), (second, result["compare"])):
        table.add_row(escape(name), *(accuracy_text(held[kind]) for kind in KINDS))
    paired = [result["compare"]["paired"][kind] for kind in KINDS]
    table.add_row("difference, points", *(_points(test["difference"]) for test in paired))
    table.add_row(escape(f"better: {first}"), *(str(test["only_first"]) for test in paired))
    table.add_row(escape(f"better: {second}"), *(str(test["only_second"]) for test in paired))
    table.add_row("p (McNemar; sign test)", *(f"{test['p_value']:.3g}" for test in paired))
    return table


def changed_table(changed: list[Mapping[str, Any]]) -> Table:
    """The problems whose greedy answer one of the two has right, the other wrong; losses first."""
    title = f"{len(changed)} problems that changed (greedy)"
    if len(changed) > MOST_SHOWN:
        title += f"; the first {MOST_SHOWN}, all with --json"
    table = Table("problem", "change", "prompt", "gold", title=title, title_justify="left")
    for item in sorted(changed, key=lambda item: item["change"] == "gained")[:MOST_SHOWN]:
        texts = (_short(str(item[key])) for key in ("prompt", "gold"))
        table.add_row(str(item["index"]), item["change"], *texts)
    return table


def label_table(result: Mapping[str, Any]) -> Table | None:
    """Share and accuracy of each kind of answer, where the task names some."""
    kinds = {kind: result[kind]["by_label"] for kind in KINDS}
    labels = dict.fromkeys([*kinds["greedy"], *kinds["sampled"]])
    if not labels:
        return None
    table = Table(
        "kind of answer",
        title="kinds of answers: their share, and how many were right",
        title_justify="left",
    )
    for kind in kinds:
        table.add_column(kind, justify="right")
    for label in labels:
        cells = [kinds[kind].get(label) for kind in kinds]
        row = [
            f"{cell['share']:.1%}, {cell['accuracy']:.1%} right" if cell else "-" for cell in cells
        ]
        table.add_row(label, *row)
    return table


def _control_rows(held: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Accuracies; the zero adapter has to answer as the base model does, word for word."""
    random = {kind: [draw[kind]["accuracy"] for draw in held["random"]] for kind in KINDS}
    return [
        ("base model", *(accuracy_text(held["base"][kind]) for kind in KINDS)),
        ("zero adapter", *(accuracy_text(held["zero"][kind]) for kind in KINDS)),
        ("  answers unlike the base's", *(str(held["zero"]["num_different"][k]) for k in KINDS)),
        ("random v, mean", *(f"{statistics.fmean(random[kind]):.1%}" for kind in KINDS)),
        (f"({len(held['random'])}, same norm)", *(_spread(random[kind]) for kind in KINDS)),
    ]


def _spread(values: list[float]) -> str:
    return f"{min(values):.1%} to {max(values):.1%}"


def _figure(name: str, figure: Mapping[str, float] | None) -> str:
    if figure is None:
        return "-"
    value, low, high = figure["value"], figure["low"], figure["high"]
    if name in NUMBERS:
        return f"{value:.4g} [{low:.4g}, {high:.4g}]"
    return f"{value:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


def _points(difference: Mapping[str, float]) -> str:
    value, low, high = (100 * difference[key] for key in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return escape(line if len(line) <= MOST_LETTERS else line[: MOST_LETTERS - 3] + "...")


def accuracy_text(evaluation: Mapping[str, Any]) -> str:
    """`25.4 % [21.8, 29.3]`: the accuracy and its 95 % interval."""
    low, high = evaluation["interval"]
    return f"{evaluation['accuracy']:.1%} [{100 * low:.1f}, {100 * high:.1f}]"
