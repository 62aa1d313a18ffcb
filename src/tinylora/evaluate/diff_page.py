"""`tinylora diff` for people: tables in the terminal, and a page of answers coloured by KL.

The page is one file: no script, no font, no picture from elsewhere.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rich.markup import escape as escape_markup
from rich.table import Table

from tinylora.evaluate.diff import Answer, Diff
from tinylora.evaluate.divergence import Choices, Position

MOST_LETTERS = 80  # of an adapter's name
FULL_COLOR = 1.0  # nats at which a token has the full colour
STYLE = """\
:root { color-scheme: light dark; --mark: 213, 94, 0; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { padding: .15rem .8rem .15rem 0; text-align: left; font-weight: normal; }
td { font-variant-numeric: tabular-nums; }
.prompt { opacity: .75; }
.answer { font: 15px/1.9 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.answer span { border-radius: 3px; }
.changed { border-bottom: 2px solid rgb(var(--mark)); }"""
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{about}</p>
{table}
<p>Each token is coloured by the KL of the trained model from the base at its place:
{legend}. An underlined token stands where the likeliest token is another one than the base's. Point
at a token for the likeliest tokens of both.</p>
{answers}
</body>
</html>
"""


def tables(figures: Mapping[str, Any]) -> list[Table]:
    """The figures; where in an answer; and which tokens."""
    first = Table("", "", title=escape_markup(title_of(figures)), title_justify="left")
    for name, value in rows(figures):
        first.add_row(name, value)
    places = Table("token of the answer", "positions", "changed", "KL, nats")
    for place in figures["places"]:
        shares = f"{place['changed']:.1%}", f"{place['kl']:.3g}"
        places.add_row(place["place"], str(place["num_positions"]), *shares)
    moves = Table("base's first choice", "trained", "times", "KL, nats")
    for move in figures["moves"]:
        words = (escape_markup(repr(move[name])) for name in ("base", "trained"))
        moves.add_row(*words, str(move["count"]), f"{move['kl']:.3g}")
    return [first, places, *([moves] if figures["moves"] else [])]


def title_of(figures: Mapping[str, Any]) -> str:
    """Which adapter on which model."""
    name = str(figures["adapter"])
    shown = name if len(name) <= MOST_LETTERS else f"{name[:MOST_LETTERS]}..."  # as text, tl1:...
    return f"{shown} against {figures['model']}, token by token"


def rows(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures as text."""
    changed, kl, of_answer = figures["changed"], figures["kl"], figures["kl_of_answer"]
    ranks = [
        (
            f"  promoted, rank {name} in the base",
            f"{held['changed']} of the changed; {held['kl_share']:.1%} of the KL",
        )
        for name, held in figures["ranks"].items()
    ]
    top = [
        (f"  in the top {float(share):.0%} of positions", f"{part:.1%} of the KL")
        for share, part in figures["kl_in_top"].items()
    ]
    return [
        ("answers", f"{figures['num_answers']}, by the {figures['answers']} model"),
        ("right", str(figures["num_right"])),
        ("positions (tokens)", str(figures["num_positions"])),
        (
            "changed: another first choice",
            f"{changed['value']:.2%} [{100 * changed['low']:.2f}, {100 * changed['high']:.2f}]",
        ),
        *ranks,
        ("KL of a token, nats", f"{kl['value']:.4g}"),
        (
            "KL of an answer, nats",
            f"{of_answer['value']:.4g} [{of_answer['low']:.4g}, {of_answer['high']:.4g}]",
        ),
        ("  in changed positions", f"{figures['kl_in_changed']:.1%} of the KL"),
        *top,
    ]


def page(figures: Mapping[str, Any], found: Diff, shown: int) -> str:
    """The figures and the first `shown` answers, as one HTML file."""
    title = title_of(figures)
    greedy = "greedy" if figures["temperature"] == 0 else f"at {figures['temperature']}"
    about = (
        f"Answers of the {figures['answers']} model ({greedy}) to {figures['num_answers']} "
        f"{figures['split']} problems of {figures['task']}, read by both."
    )
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows(figures)
    )
    legend = ", ".join(
        f'<span style="{_color(nats)}">&nbsp;{nats:g}&nbsp;</span>' for nats in (0.01, 0.1, 0.5, 1)
    )
    return PAGE.format(
        title=escape(title),
        style=STYLE,
        about=escape(about),
        table=f"<table>{cells}</table>",
        legend=f"{legend} nats or more",
        answers="\n".join(_answer(i, found.answers[i], found) for i in _first(found, shown)),
    )


def _first(found: Diff, shown: int) -> Sequence[int]:
    return range(min(shown, len(found.answers)))


def _answer(index: int, answer: Answer, found: Diff) -> str:
    judged = {True: "right", False: "wrong", None: "not judged"}[answer.is_right]
    tokens = "".join(_token(position, found) for position in answer.positions)
    return (
        f"<h2>Problem {index}: {judged}</h2>\n"
        f'<p class="prompt">{escape(answer.problem.prompt)}</p>\n<div class="answer">{tokens}</div>'
    )


def _token(position: Position, found: Diff) -> str:
    text = found.written(position.token)
    marked = ' class="changed"' if position.is_changed else ""
    told = (
        f"KL {position.kl:.3g} nats\n"
        f"base: {_told(position.base_choices, found)}\ntrained: {_told(position.choices, found)}"
    )
    return (
        f'<span{marked} style="{_color(position.kl)}" title="{escape(told)}">'
        f"{escape(text).replace(chr(10), '⏎' + chr(10))}</span>"
    )


def _told(choices: Choices, found: Diff) -> str:
    return ", ".join(f"{found.written(token)!r} {chance:.1%}" for token, chance in choices)


def _color(nats: float) -> str:
    """The background: its strength grows with the square root of the KL."""
    strength = min(1.0, max(0.0, nats) / FULL_COLOR) ** 0.5
    return f"background: rgba(var(--mark), {0.6 * strength:.2f})"
