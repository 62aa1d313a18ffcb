"""Options from settings: argparse finds the texts, the settings parse them.

Every option is absent until it is given, so that it is known who set what, and its value stays a
text: recipe, command line and Python are refused by the same sentences.
"""

import argparse
import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic.fields import FieldInfo

from tinylora.errors import RequestError
from tinylora.settings import default_text
from tinylora.settings.base import Settings

Fields = Mapping[str, FieldInfo]

_YES_OR_NO = ("true", "false", "yes", "no", "on", "off", "1", "0", "none")
_KINDS = {bool: "true|false", int: "INT", float: "FLOAT", tuple: "NAME,NAME,..."}


@dataclass(frozen=True)
class Verb:
    """A verb's options, and the texts of its help.

    Args:
        groups: title to options, in the order of the help. A field's `title` is what help calls
            its value; a field without a default is required.
        positional: the option that is given without its name, or several, separated by spaces.
        several: options that take more than one word.
        spellings: of options that have other names than their settings.
        defaults: what help shows in place of a field's own default.
    """

    name: str
    description: str
    examples: str
    groups: Mapping[str, Fields]
    positional: str = ""
    several: Sequence[str] = ()
    spellings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)

    @property
    def positionals(self) -> list[str]:
        """The options that are given without their names."""
        return self.positional.split()

    @property
    def fields(self) -> dict[str, FieldInfo]:
        """All options."""
        return {name: option for group in self.groups.values() for name, option in group.items()}

    def given(self, argv: Sequence[str]) -> dict[str, Any]:
        """The options that were given: names to texts, or to lists of texts.

        Raises:
            RequestError: an unknown option, with the nearest spelling; a value that is missing, or
                one too many.
            SystemExit: after --help.
        """
        words = [_dashed(word) for word in argv]
        for word in words:
            if word.startswith("--"):
                self._check_known(word.split("=", 1)[0])
        found, rest = self.given_and_rest(words)
        if rest:
            self._refuse(f'"tinylora {self.name}" does not know what to do with {rest[0]}.')
        return found

    def given_and_rest(self, argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """The options that were given, and the words that are for another program.

        Raises:
            RequestError: a value is missing.
            SystemExit: after --help.
        """
        try:
            words = self._with_true([_dashed(word) for word in argv])
            parsed, rest = self._parser().parse_known_args(words)
        except argparse.ArgumentError as error:  # the one thing that can be wrong with a text
            self._refuse(f"{error.argument_name} needs a value.")
        found = vars(parsed)
        if missing := [n for n, f in self.fields.items() if f.is_required() and not found.get(n)]:
            needed = " and ".join(self._spelled(name) for name in missing)
            self._refuse(f'"tinylora {self.name}" needs {needed}.')
        return found, rest

    def _refuse(self, sentence: str) -> NoReturn:
        raise RequestError(f'{sentence} All options: "tinylora {self.name} --help".')

    def _check_known(self, option: str) -> None:
        named = [name for name in self.fields if name not in self.positionals]
        known = ["--help", *(option for name in named for option in self._options(name))]
        if option not in known:
            matches = difflib.get_close_matches(option, known, n=1)
            hint = f" Did you mean {matches[0]}?" if matches else ""
            self._refuse(f'{option} is not an option of "tinylora {self.name}".{hint}')

    def _with_true(self, words: list[str]) -> list[str]:
        """The words, with true for a yes-or-no option that is given without a value."""
        switches = {
            spelling
            for name, option in self.fields.items()
            if _is_switch(option)
            for spelling in self._options(name)
        }
        return [
            f"{word}=true" if word in switches and following.lower() not in _YES_OR_NO else word
            for word, following in itertools.pairwise([*words, ""])
        ]

    def _parser(self) -> argparse.ArgumentParser:
        required = [n for n, f in self.fields.items() if f.is_required() or n in self.positionals]
        parser = argparse.ArgumentParser(
            usage=" ".join(["tinylora", self.name, *map(self._spelled, required), "[options]"]),
            description=self.description,
            epilog=f"examples:\n{self.examples}",
            formatter_class=_Help,
            argument_default=argparse.SUPPRESS,
            add_help=False,
            allow_abbrev=False,
            exit_on_error=False,
        )
        groups = {title: parser.add_argument_group(title) for title in self.groups}
        for title, options in self.groups.items():
            for name, option in options.items():
                self._add(groups[title], name, option)
        first = next(iter(groups.values()))
        first.add_argument("-h", "--help", action="help", help="show this help and stop")
        return parser

    def _add(self, group: Any, name: str, option: FieldInfo) -> None:
        """One option; argparse sees no kinds, no choices and no defaults."""
        text, metavar = self.help_of(name).replace("%", "%%"), _metavar(option)
        is_one = name not in self.several
        if name in self.positionals:
            group.add_argument(name, nargs="?" if is_one else "*", metavar=metavar, help=text)
            return
        count, options = None if is_one else "+", self._options(name)
        group.add_argument(*options, dest=name, nargs=count, metavar=metavar, help=text)

    def help_of(self, name: str) -> str:
        """What help says of an option, with its default: in the parentheses that end it, if any."""
        text = self.fields[name].description or ""
        default = self.defaults.get(name, default_text(self.fields[name]))
        if not default:
            return text
        before = f"{text[:-1]}; " if text.endswith(")") else f"{text} ("
        return f"{before}default: {default})"

    def _options(self, name: str) -> list[str]:
        return [f"--{s.replace('_', '-')}" for s in self.spellings.get(name, (name,))]

    def _spelled(self, name: str) -> str:
        """As the usage line and sentences write it."""
        option = self.fields[name]
        if name not in self.positionals:
            return f"{self._options(name)[0]} {_metavar(option)}"
        return _metavar(option) if option.is_required() else f"[{_metavar(option)}]"


class _Help(argparse.RawDescriptionHelpFormatter):
    """Room for the options' names beside their texts."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


def split(request: type[Settings], given: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A verb's own request, and the settings that were given beside it."""
    own = {name: value for name, value in given.items() if name in request.model_fields}
    return request(**own), {name: value for name, value in given.items() if name not in own}


def _metavar(option: FieldInfo) -> str:
    """What help calls the value: its title, the choices, INT, FLOAT or TEXT; none of a switch."""
    if option.title is not None:
        return option.title
    if option.default is False:
        return ""
    annotation: Any = option.annotation
    kinds = [annotation] if get_origin(annotation) is tuple else [annotation, *get_args(annotation)]
    for kind in kinds:
        if get_origin(kind) is Literal:
            return "|".join(map(str, get_args(kind)))
    origins = [get_origin(kind) or kind for kind in kinds]
    return next((name for kind, name in _KINDS.items() if kind in origins), "TEXT")


def _is_switch(option: FieldInfo) -> bool:
    return bool in (option.annotation, *get_args(option.annotation))


def _dashed(word: str) -> str:
    """An option with dashes in its name, as help spells it."""
    name, *value = word.split("=", 1)
    return "=".join([name.replace("_", "-"), *value]) if word.startswith("--") else word
