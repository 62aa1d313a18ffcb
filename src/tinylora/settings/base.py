"""What all settings share: no unknown keys, and every failure is one sentence.

Importing this room imports neither torch nor transformers.
"""

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from tinylora.errors import RequestError


def none_word(value: object) -> object:
    """`none` on the command line is YAML's null."""
    return None if isinstance(value, str) and value.lower() in ("none", "null") else value


def comma_list(value: object) -> object:
    return tuple(filter(None, re.split(r"[,\s]+", value))) if isinstance(value, str) else value


def yaml_mapping(value: object) -> object:
    """A mapping from YAML text, or from the YAML file that the text names."""
    if not isinstance(value, str):
        return value
    path = Path(value).expanduser()
    is_file = path.suffix in (".yaml", ".yml")
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8") if is_file else value)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(
            f"{value} cannot be read as YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(held, dict):
        raise ValueError(f"{value} is not a mapping. Use YAML such as {{r: 8}}, or a YAML file.")
    return held


def with_home(value: Any) -> Any:
    """Text that begins with `~/`, alone or in a list, with the home folder in its place."""
    if isinstance(value, list | tuple):
        return type(value)(map(with_home, value))
    is_home = isinstance(value, str) and (value == "~" or value.startswith("~/"))
    return os.path.expanduser(value) if is_home else value


OrNone = BeforeValidator(none_word)
YamlMapping = BeforeValidator(yaml_mapping)
CommaList = BeforeValidator(comma_list)


class Settings(BaseModel):
    """Frozen, no unknown keys, and every failure is one `RequestError` in whole sentences."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RequestError(_sentences(error, type(self))) from None

    @model_validator(mode="before")
    @classmethod
    def _home_is_written_out(cls, values: Any) -> Any:
        """`~/runs` is the user's, also where no shell has read it."""
        if not isinstance(values, dict):
            return values
        return {name: with_home(value) for name, value in values.items()}

    def idle(self) -> dict[str, str]:
        """Settings that the other values leave without a reader, each with the reason."""
        return {}

    @model_validator(mode="after")
    def _nothing_idle_is_set(self) -> Self:
        for name, reason in self.idle().items():
            if name in self.model_fields_set:
                raise ValueError(f"{name} = {getattr(self, name)} {reason}")
        return self


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean ...?`, or nothing where no known name is near."""
    matches = difflib.get_close_matches(name.replace("-", "_"), list(known), n=1)
    return f" Did you mean {matches[0]}?" if matches else ""


def _sentences(error: ValidationError, model: type[BaseModel]) -> str:
    """Pydantic's findings as sentences: the setting, its value, the rule, its meaning."""
    findings = [f for f in error.errors() if f["type"] != "default_factory_not_called"]
    return "\n".join(_sentence(finding, model) for finding in findings)


def _sentence(finding: Any, model: type[BaseModel]) -> str:
    if finding["type"] == "value_error":
        return str(finding["ctx"]["error"])
    name = str(finding["loc"][0]) if finding["loc"] else ""
    if finding["type"] == "extra_forbidden":
        return f"{name} is not a setting of {model.__name__}.{nearest(name, model.model_fields)}"
    rule = _RULES.get(finding["type"], finding["msg"]).format(**finding.get("ctx", {}))
    field = model.model_fields.get(name)
    meaning = f": {field.description}" if field and field.description else ""
    return f"{name} = {finding['input']}, but it must be {rule}{meaning}."


_RULES = {  # pydantic's kinds of error, as the end of "but it must be ..."
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt:g}",
    "less_than": "below {lt:g}",
    "literal_error": "{expected}",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "too_short": "a list of at least {min_length}",
}
