"""Load an adapter onto a model, after checking that the model is the base it was trained on."""

import warnings
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from tinylora.adapter import files, fingerprint
from tinylora.adapter.layer import FactorsOf, TinyLora, attach, unattached
from tinylora.adapter.modules import linear_maps
from tinylora.adapter.sharing import groups_of
from tinylora.errors import RequestError

RISK = (
    "it then acts on other singular vectors than it was trained on, so previously measured "
    "accuracy no longer applies"
)


def load(model: nn.Module, source: str | Path, *, force: bool = False) -> TinyLora:
    """Attach an adapter to its base model.

    Args:
        model: the base, which is changed in place as by `attach`.
        source: a file, a run folder, a hub id, or an adapter's text (`tl1:...`).
        force: attach it to another base anyway, where v fits, with a warning: it then acts on
            other singular vectors than it was trained on.

    Raises:
        RequestError: there is no adapter at `source`, or it was trained on another base or other
            modules.
    """
    contents = files.read(source)
    _check_base(model, contents, str(source), force)
    _check_sizes(model, contents, str(source))
    adapter = attach(model, contents.config)
    try:
        _check_modules(adapter, contents, str(source), force)
        adapter.set_values(contents.v)
    except BaseException:
        adapter.detach()
        raise
    return adapter


def unattached_from(
    model: nn.Module, contents: files.AdapterFile, name: str, factors_of: FactorsOf
) -> TinyLora:
    """The adapter with its values and checked as `load` checks it, but without its hooks.

    Args:
        name: what sentences call it.
        factors_of: as `unattached` takes it.

    Raises:
        RequestError: it was trained on another base or other modules.
    """
    _check_base(model, contents, name, None)
    _check_sizes(model, contents, name)
    adapter = unattached(model, contents.config, factors_of)
    _check_modules(adapter, contents, name, None)
    adapter.set_values(contents.v)
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


def _check_base(
    model: nn.Module, contents: files.AdapterFile, name: str, force: bool | None
) -> None:
    if problem := base_problem(model, contents):
        _refuse(f"{name} was not trained on this model's weights: {problem}", force)


def _check_sizes(model: nn.Module, contents: files.AdapterFile, name: str) -> None:
    """Before anything of these sizes is made: v has the shape that the settings give here."""
    config = contents.config
    maps = linear_maps(model, config.targets, config.layers)
    kept = [linear.name for linear in maps if linear.name not in contents.left_out]
    here = len(groups_of(kept, config)), config.u
    if contents.v.shape != here:
        raise RequestError(_misfit(name, contents, {"shape of v": (tuple(contents.v.shape), here)}))


def _check_modules(
    adapter: TinyLora, contents: files.AdapterFile, name: str, force: bool | None
) -> None:
    modules = files.modules_hash(adapter.modules_by_group)[: len(contents.modules)]
    pairs = {
        "modules or groups": (f"hash {contents.modules}", f"hash {modules}"),
        "modules left out": (", ".join(contents.left_out), ", ".join(adapter.left_out)),
        "shape of v": (tuple(contents.v.shape), tuple(adapter.v.shape)),
    }
    differing = {what: pair for what, pair in pairs.items() if pair[0] != pair[1]}
    if "shape of v" in differing:
        raise RequestError(_misfit(name, contents, differing))
    if differing:
        _refuse(_misfit(name, contents, differing), force)


def _misfit(
    name: str, contents: files.AdapterFile, differing: Mapping[str, tuple[object, object]]
) -> str:
    """In which ways the adapter of a file is not the one that its settings give here."""
    said = "; ".join(
        f"different {what} (in the file: {there or 'none'}, here: {here or 'none'})"
        for what, (there, here) in differing.items()
    )
    trained_on = f", {contents.base}" if contents.base else ""
    return (
        f"{name} does not match this model: {said}. Its parameters would mean something else "
        f"here. Load the model that it was trained on{trained_on}."
    )


def _refuse(problem: str, force: bool | None) -> None:
    """Raise, or warn where it is forced; None: there is no way to force it here."""
    if force is None:
        raise RequestError(problem)
    if not force:
        raise RequestError(f"{problem} To load it anyway: force=True (--force); {RISK}.")
    warnings.warn(f"{problem} It is loaded anyway; {RISK}.", stacklevel=4)
