"""A program to run: one generator of reasoning-gym and its verifier, within limits.

A question holds `seed`, `size` and `index`, which it answers with the problem; with an `answer` as
well it gives `score` and `reason`, or `failure` where the verifier itself fails. An answer that
takes more CPU time than it may ends the process; one that takes more memory or deeper recursion
than there is scores 0.

Covered: an answer is never run as code. Where a verifier calls `eval` on it, it gets
`ast.literal_eval`; `parse_expr` of SymPy, which is `eval` too, sees numbers, signs, single letters
and names of functions alone. No file can grow. Not covered: a verifier that is fooled by data.
"""

import ast
import inspect
import re
import resource
import sys
from collections.abc import Callable
from typing import Any

from tinylora.processes import Parent, cpu_limit, limit_memory

MEMORY_MB = 4096
MAX_ANSWER = 20_000  # characters
TOO_MUCH = "too much for the verifier"
_TOKEN = re.compile(r"\s+|\d+\.?\d*|\.\d+|[A-Za-z_]\w*|\*\*|[-+*/^(),!]")
_NAME = re.compile(r"[A-Za-z_]\w*")
_CONSTANTS = {"pi", "oo", "sqrt", "cbrt", "root", "ln", "Abs"}


class NotMathematics(ValueError):
    """The answer is not written as mathematics."""


def main(generator: str, cpu_s: float) -> None:
    """Answer questions until the parent hangs up."""
    import reasoning_gym  # type: ignore[import-untyped]
    from reasoning_gym.factory import DATASETS  # type: ignore[import-untyped]
    from reasoning_gym.utils import SYSTEM_PROMPTS  # type: ignore[import-untyped]

    harmless(DATASETS[generator][0])
    system = SYSTEM_PROMPTS["default"].strip()
    made: dict[tuple[int, int], Any] = {}
    parent = Parent()
    for question in parent.questions():
        key = question["seed"], question["size"]
        if key not in made:
            made[key] = reasoning_gym.create_dataset(generator, seed=key[0], size=key[1])
        entry = made[key][question["index"]]
        if "answer" in question:
            with cpu_limit(cpu_s):
                said = judged(made[key], question["answer"], entry)
        else:
            said = {**shown(entry), "system": system}
        parent.say(said)


def shown(entry: Any) -> dict[str, Any]:
    """What a problem consists of; some have no answer to show."""
    answer = entry["answer"]
    return {"question": entry["question"], "answer": None if answer is None else str(answer)}


def judged(data_set: Any, answer: str, entry: Any) -> dict[str, Any]:
    """Score and reason. A verifier that fails on the answer and takes the gold one has met a form
    that it does not read, which is the answer's fault; one that fails on both is broken."""
    if len(answer) > MAX_ANSWER:
        return {"score": 0.0, "reason": "too long"}
    try:
        score = float(data_set.score_answer(answer, entry))
    except NotMathematics as error:
        return {"score": 0.0, "reason": str(error)}
    except (MemoryError, RecursionError):
        return {"score": 0.0, "reason": TOO_MUCH}
    except Exception as error:
        if _takes_gold(data_set, entry):
            return {"score": 0.0, "reason": "not in a form that the verifier reads"}
        return {"failure": f"the verifier failed ({type(error).__name__}: {error})"}
    return {"score": score, "reason": "right" if score >= 1 else "partly" if score else "wrong"}


def _takes_gold(data_set: Any, entry: Any) -> bool:
    try:
        return float(data_set.score_answer(entry["answer"], entry)) >= 1
    except Exception:
        return False


def harmless(data_set: type[Any]) -> None:
    """Answers that the verifier would evaluate become literals."""
    module = sys.modules[data_set.__module__]
    if "eval(answer" in inspect.getsource(data_set):
        vars(module)["eval"] = ast.literal_eval


def checked(parse_expr: Callable[..., Any]) -> Callable[..., Any]:
    """SymPy's parser for expressions that hold nothing but mathematics."""

    def parse(text: str, *args: Any, **kwargs: Any) -> Any:
        known = set(kwargs.get("local_dict") or (args[0] if args else None) or ())
        rest = _TOKEN.sub("", text)
        if rest:
            raise NotMathematics(f"not mathematics: {rest[:20]!r}")
        for name in _NAME.findall(text):
            _check_name(name, known)
        return parse_expr(text, *args, **kwargs)

    return parse


def _check_name(name: str, known: set[str]) -> None:
    import sympy  # type: ignore[import-untyped]

    is_function = isinstance(getattr(sympy, name, None), sympy.FunctionClass)
    if len(name) > 1 and name not in known | _CONSTANTS and not is_function:
        raise NotMathematics(f"not mathematics: {name[:20]!r}")


def guard_parser() -> None:
    """Replace SymPy's parser, before any verifier imports it."""
    import sympy
    from sympy.parsing import sympy_parser  # type: ignore[import-untyped]

    sympy_parser.parse_expr = sympy.parse_expr = checked(sympy_parser.parse_expr)
    sympy.parsing.sympy_parser.parse_expr = sympy_parser.parse_expr


if __name__ == "__main__":
    limit_memory(MEMORY_MB)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file can grow
    guard_parser()
    main(sys.argv[3], float(sys.argv[4]))
