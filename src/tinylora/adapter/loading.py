"""Load an adapter onto a model, after checking that the model is the base it was trained on."""

import warnings
from pathlib import Path

from torch import nn

from tinylora.adapter import files, fingerprint
from tinylora.adapter.layer import TinyLora, attach
from tinylora.errors import RequestError

RISK = (
    "its numbers then act on other directions than those they were trained for, and no accuracy "
    "measured before holds"
)


def load(model: nn.Module, source: str | Path, *, force: bool = False) -> TinyLora:
    """Attach an adapter to its base model.

    Args:
        source: a file, a run folder, a hub id, or an adapter's text (`tl1:...`).
        force: attach it to another base all the same, where v fits, with a warning: its numbers
            then act on other directions than those they were trained for.

    Raises:
        RequestError: there is no adapter at `source`, or it was trained on another base or other
            modules.
    """
    contents = files.read(source)
    _check_base(model, contents, str(source), force)
    adapter = attach(model, contents.config)
    try:
        _check_modules(adapter, contents, str(source), force)
        adapter.set_values(contents.v)
    except BaseException:
        adapter.detach()
        raise
    return adapter


def base_problem(model: nn.Module, contents: files.AdapterFile) -> str:
    """In which ways the model is not the adapter's base, why, and the cure; "" for its base."""
    mismatch = fingerprint.compare(contents.fingerprint, fingerprint.take(model))
    if mismatch is None:
        return ""
    bases = {
        "trained on": (contents.base, contents.revision),
        "this model is": fingerprint.identity(model),
    }
    names = {how: _named(*base) for how, base in bases.items()}
    known = ", ".join(f"{how} {name}" for how, name in names.items() if name)
    return f"{mismatch.what}{f' ({known})' if known else ''}. {mismatch.cause} {mismatch.cure}"


def _named(base: str, revision: str) -> str:
    """A base model's name, with its commit where it has one."""
    return f"{base} at {revision}" if base and revision else base


def _check_base(model: nn.Module, contents: files.AdapterFile, name: str, force: bool) -> None:
    if problem := base_problem(model, contents):
        _refuse(f"{name} was trained on other weights than this model's: {problem}", force)


def _check_modules(adapter: TinyLora, contents: files.AdapterFile, name: str, force: bool) -> None:
    differences = _differences(contents, adapter)
    if differences:
        _refuse(
            f"{name} does not fit what its settings give on this model: {'; '.join(differences)}. "
            "Its numbers would mean something else. Load the model that it was trained on"
            f"{f', {contents.base}' if contents.base else ''}.",
            force,
            can_be_forced=contents.v.shape == adapter.v.shape,
        )


def _refuse(problem: str, force: bool, *, can_be_forced: bool = True) -> None:
    if not can_be_forced:
        raise RequestError(problem)
    if not force:
        raise RequestError(f"{problem} To load it all the same: force=True (--force); {RISK}.")
    warnings.warn(f"{problem} It is loaded all the same; {RISK}.", stacklevel=4)


def _differences(contents: files.AdapterFile, adapter: TinyLora) -> list[str]:
    """In which ways the adapter of a file is not the one that its settings give here."""
    modules = files.modules_hash(adapter.modules_by_group)[: len(contents.modules)]
    pairs = {
        "modules or groups": (
            f"hash {contents.modules}",
            f"hash {modules}",
        ),
        "modules left out": (", ".join(contents.left_out), ", ".join(adapter.left_out)),
        "shape of v": (str(tuple(contents.v.shape)), str(tuple(adapter.v.shape))),
    }
    return [
        f"other {what} (in the file: {there or 'none'}, here: {here or 'none'})"
        for what, (there, here) in pairs.items()
        if there != here
    ]
