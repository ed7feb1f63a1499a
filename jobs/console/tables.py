"""Tables for people: drawn by rich on a terminal that is wide enough, aligned columns of plain text elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TextIO

from jobs.console.output import console_on, is_terminal, printable

Cells = Sequence[str]


def show_table(title: str, head: Cells, rows: Sequence[Cells], stream: TextIO) -> None:
    """Write a table; every column is right-aligned, as numbers are."""
    lines = plain_lines(head, rows)
    widest = max(map(len, lines))
    if not is_terminal(stream) or widest + 2 > shutil.get_terminal_size().columns:  # rich would cut numbers short
        print("\n".join([title, *lines]), file=stream)
        return
    # rich is imported only where it draws: importing it takes a twentieth of a second.
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title.strip()), title_justify="left", box=box.SIMPLE_HEAD, padding=0, collapse_padding=True
    )
    for name in head:
        table.add_column(f" {name}", no_wrap=True, justify="right")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console_on(stream).print(table)


def plain_lines(head: Cells, rows: Sequence[Cells]) -> list[str]:
    """Return the head and the rows as lines, columns right-aligned and two spaces apart."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return [
        printable("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        for line in lines
    ]
