"""What all settings share: no unknown keys, and every failure is one sentence.

Importing this room imports neither torch nor transformers.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from tinylora.errors import RequestError


def none_word(value: object) -> object:
    """`none` on the command line is YAML's null."""
    return None if isinstance(value, str) and value.lower() in ("none", "null") else value


def comma_list(value: object) -> object:
    return tuple(filter(None, re.split(r"[,\s]+", value))) if isinstance(value, str) else value


OrNone = BeforeValidator(none_word)
CommaList = BeforeValidator(comma_list)


class Settings(BaseModel):
    """Frozen, no unknown keys, and every failure is one `RequestError` in whole sentences."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RequestError(_sentences(error, type(self))) from None


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
