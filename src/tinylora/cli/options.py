"""Options by tyro: every one is None until it is given, so that it is known who set what.

Values stay texts here; the settings parse them, with the same sentences for a recipe, for the
command line and for Python.
"""

import difflib
import io
import itertools
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import fields, make_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

import tyro
from pydantic.fields import FieldInfo

from tinylora.errors import RequestError
from tinylora.settings import FIELDS

ADAPTER_HELP = "an adapter file, a run folder, a hub id, or an adapter's text (tl1:...)"
Quantize = Annotated[
    Literal["none", "nf4", "int8"] | None,
    tyro.conf.arg(
        help="how the base model is quantised",
        metavar="none|nf4|int8",
        help_behavior_hint="(default: the adapter's, else none)",
    ),
]
Force = Annotated[
    bool,
    tyro.conf.arg(
        help="load an adapter onto another base than its own all the same: its numbers then act "
        "on other directions than those they were trained for",
        help_behavior_hint="",
    ),
]

_YES_OR_NO = ("true", "false", "yes", "no", "on", "off", "1", "0", "none")


def parse(options: type[Any], argv: Sequence[str], verb: str, description: str) -> Any:
    """Parse the options of one verb.

    Raises:
        RequestError: an unknown option, with the nearest spelling; a value that is missing, one too
            many, or not of its kind.
        SystemExit: after --help.
    """
    known = ["--help", *(f"--{field.name.replace('_', '-')}" for field in fields(options))]
    for word in argv:
        option = word.split("=", 1)[0]
        if option.startswith("--") and option.replace("_", "-") not in known and option != "--":
            matches = difflib.get_close_matches(option.replace("_", "-"), known, n=1)
            hint = f" Did you mean {matches[0]}?" if matches else ""
            raise RequestError(
                f'{option} is no option of "tinylora {verb}".{hint} All options: '
                f'"tinylora {verb} --help".'
            )
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(
                options,
                args=_with_true(argv),
                prog=f"tinylora {verb}",
                description=description,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
    raise RequestError(f'{_sentence(said.getvalue())} All options: "tinylora {verb} --help".')


def _with_true(argv: Sequence[str]) -> list[str]:
    """The words, with true for a yes-or-no setting that is given without a value."""
    switches = {
        f"--{name.replace('_', '-')}"
        for name, field in FIELDS.items()
        if _metavar(field) == "true|false"
    }
    return [
        f"{word}=true"
        if word.replace("_", "-") in switches and following.lower() not in _YES_OR_NO
        else word
        for word, following in itertools.pairwise([*argv, ""])
    ]


def _sentence(box: str) -> str:
    """What stands in tyro's box between its title and the next rule, as one sentence.

    The terminal decides how the box is drawn: with lines, in ASCII, or with rules alone.
    """
    lines = [line.strip("│| ") for line in box.splitlines()[1:]]
    parts = itertools.groupby(lines, key=lambda line: bool(line.strip("─-")))
    text = next((list(part) for is_text, part in parts if is_text), ["This is no valid request"])
    return " ".join(text).rstrip(".") + "."


def with_settings(options: type[Any], known: Mapping[str, FieldInfo] = FIELDS) -> type[Any]:
    """The options with one more for every setting of `TrainConfig`, flat, or for those named."""
    settings = [(name, _option(field), None) for name, field in known.items()]
    return make_dataclass(options.__name__, settings, bases=(options,))


def given(options: Any) -> dict[str, str]:
    """The settings among the parsed options that were given."""
    values = {name: getattr(options, name, None) for name in FIELDS}
    return {name: value for name, value in values.items() if value is not None}


def _option(field: FieldInfo) -> Any:
    default = field.get_default()
    shown = ",".join(default) if isinstance(default, tuple) else str(default).lower()
    return Annotated[
        str | None,
        tyro.conf.arg(
            help=field.description,
            metavar=_metavar(field),
            help_behavior_hint=f"(default: {shown})",
        ),
    ]


def _metavar(field: FieldInfo) -> str:
    """INT, FLOAT, TEXT, or the choices."""
    kinds = [field.annotation, *get_args(field.annotation)]
    for kind in kinds:
        if get_origin(kind) is Literal:
            return "|".join(map(str, get_args(kind)))
    names = {bool: "true|false", int: "INT", float: "FLOAT", tuple: "NAME,NAME,..."}
    origins = [get_origin(kind) or kind for kind in kinds]
    return next((name for kind, name in names.items() if kind in origins), "TEXT")
