"""Imports point one way, room by room, and the map in docs/architecture.md shows the rooms as they are."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from product import PRODUCT, ROOT, imports, module_name, parsed
from rooms import ROOMS, UPWARD, mermaid, own_imports, room_of

HEIGHT = {room: height for height, room in enumerate(ROOMS)}


@pytest.mark.parametrize("path", PRODUCT, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    module = module_name(path)
    assert room_of(module) in HEIGHT, f"{module} stands in no room of tests/helpers/rooms.py"
    for imported in own_imports(path):
        here, there = room_of(module), room_of(imported)
        assert HEIGHT[there] <= HEIGHT[here], f"{module} imports {imported}: {there} stands above {here}"


@pytest.mark.parametrize("path", PRODUCT, ids=module_name)
def test_the_library_knows_no_mrjob(path: Path) -> None:
    module = module_name(path)
    foreign = {name.split(".")[0] for name in imports(parsed(path)) if (module, name) not in UPWARD}
    if module.startswith("nnlib"):
        assert not foreign & {"mrjob", "jobs", "click", "rich"}


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {module_name(path): set(own_imports(path)) for path in PRODUCT}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in done:
            for imported in sorted(graph.get(module, ())):
                visit(imported, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_upward_imports_exist_and_are_lazy() -> None:
    for module, imported in UPWARD:
        path = next(path for path in PRODUCT if module_name(path) == module)
        tree = parsed(path)
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        assert any(imported in imports(function) for function in functions)
        direct = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        assert imported not in imports(direct)


def test_the_map_shows_the_rooms_as_they_are() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    assert f"```mermaid\n{mermaid()}\n```" in text, "renew it: python tests/helpers/rooms.py"
