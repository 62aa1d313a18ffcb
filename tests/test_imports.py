"""Imports point one way: from a room only to rooms below it, and never in a circle."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import tinylora

PACKAGE = Path(tinylora.__file__).parent
ROOMS = (
    ("errors", "folders"),
    ("atomic", "processes"),
    ("plotting",),
    ("distributed",),
    ("settings",),
    ("pocket",),
    ("decoders",),
    ("adapter",),
    ("fsdp",),
    ("rewards",),
    ("tasks",),
    ("gguf_base", "modelscope"),
    ("models",),
    ("mapped",),
    ("prompts",),
    ("policy",),
    ("methods",),
    ("vllm_plugin",),
    ("rollout",),
    ("evaluate",),
    ("algorithms",),
    ("run",),
    ("export",),
    ("play",),
    ("sweep",),
    ("cli",),
)
ENTRIES = ("__init__", "__main__")  # the package's own doors see every room


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """All imports below a node, lazy ones too, but those for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from imports(other)
        elif isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        else:
            yield from imports(child)


def imported(source: str) -> set[str]:
    """The package's modules that a source imports."""
    found = set()
    for node in imports(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, "imports are written out"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in names}
    return found & set(MODULES)


EDGES = {
    name: imported(path.read_text(encoding="utf-8")) - {name} for name, path in MODULES.items()
}


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_every_room_has_its_place() -> None:
    placed = [name for level in ROOMS for name in level]
    assert sorted(placed) == sorted({room(name) for name in MODULES} - set(ENTRIES))


def test_imports_point_to_lower_rooms() -> None:
    place = {name: i for i, level in enumerate(ROOMS) for name in level}
    upward = [
        f"{module} imports {other}"
        for module, others in EDGES.items()
        for other in sorted(others)
        if room(module) not in ENTRIES
        and room(module) != room(other)
        and (room(other) in ENTRIES or place[room(other)] >= place[room(module)])
    ]
    assert upward == []


def test_no_file_imports_itself_in_a_circle() -> None:
    below: Mapping[str, set[str]] = {
        name: others for name, others in EDGES.items() if room(name) not in ENTRIES
    }
    order = list(TopologicalSorter(below).static_order())  # a circle raises CycleError
    assert len(order) >= len(below) > 100


def test_lazy_imports_count_and_those_for_type_checkers_do_not() -> None:
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from tinylora.policy import Policy\n"
        "def f():\n    from tinylora import models\n    import tinylora.errors\n"
    )
    assert imported(source) == {"tinylora.models", "tinylora.errors"}
