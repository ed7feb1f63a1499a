"""The rooms of the house: the product's folders, lowest first, and which of them import which.

``python tests/helpers/rooms.py`` prints the map that docs/architecture.md shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from product import NAMES, PRODUCT, imports, module_name, parsed

ROOMS = (
    *("nnlib", "nnlib.core", "nnlib.storage", "nnlib.aggregation", "nnlib.config", "nnlib.collective"),
    *("nnlib.models", "nnlib.optim", "nnlib.data", "nnlib.run", "nnlib.training", "nnlib.torch", "nnlib.inference"),
    *(
        "nnlib.evaluation",
        "nnlib.splitting",
        "nnlib.simulate",
        "nnlib.tracking",
        "nnlib.export",
        "nnlib.report",
        "nnlib.sklearn",
    ),
    *("jobs", "jobs.runners", "jobs.mapreduce", "jobs.collective", "jobs.batch", "jobs.driver", "jobs.experiments"),
    *("jobs.minicluster", "jobs.console", "jobs.commands", "jobs.__main__"),
)
"""Lowest first: a room imports from itself and from those before it."""

UPWARD = {
    ("nnlib", "nnlib.inference.trained_model"): "nnlib.load(run) is the way in from Python",
    ("nnlib.sklearn.fitting", "jobs.driver.driver"): "an estimator's fit is a run like any other",
}
"""(module, module of a higher room it imports) -> why. Such imports stand within functions."""


def room_of(module: str) -> str:
    """The room that a module stands in: the first two parts of its name."""
    return ".".join(module.split(".")[:2])


def own_imports(path: Path) -> Iterator[str]:
    """The modules of this product that a file imports, but for the exceptions in `UPWARD`."""
    module = module_name(path)
    for name in imports(parsed(path)):
        if name in NAMES and (module, name) not in UPWARD:
            yield name


def edges() -> set[tuple[str, str]]:
    """(room, another room that a module of it imports)."""
    found = {(room_of(module_name(path)), room_of(name)) for path in PRODUCT for name in own_imports(path)}
    return {(room, imported) for room, imported in found if room != imported}


def reduced(graph: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The graph without those edges that follow from others: what is worth drawing."""
    below: dict[str, set[str]] = {}
    for room in ROOMS:  # lowest first, so what a room imports is known already
        direct = {imported for above, imported in graph if above == room}
        below[room] = direct.union(*(below.get(imported, set()) for imported in direct))
    return {
        (room, imported)
        for room, imported in graph
        if not any(imported in below[other] for above, other in graph if above == room and other != imported)
    }


def mermaid() -> str:
    """The map as a Mermaid flowchart: an arrow points from a room to one that it imports."""
    drawn = sorted(reduced({edge for edge in edges() if not {"nnlib", "jobs", "jobs.__main__"} & set(edge)}))
    lines = ["flowchart TD"]
    for package in ("jobs", "nnlib"):
        lines.append(f"    subgraph {package}")
        lines += [
            f"        {_name(room)}[{room.partition('.')[2]}]" for room in reversed(ROOMS) if _is_in(room, package)
        ]
        lines.append("    end")
    lines += [f"    {_name(room)} --> {_name(imported)}" for room, imported in drawn]
    return "\n".join(lines)


def _is_in(room: str, package: str) -> bool:
    return room.startswith(f"{package}.") and room != "jobs.__main__"


def _name(room: str) -> str:
    return room.replace(".", "_")


if __name__ == "__main__":
    print(mermaid())
