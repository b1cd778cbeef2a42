"""Tables: rows in columns, which fit the terminal; plain where the output is no terminal."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from slproxy.cli.output import print_result
from slproxy.observe import painted, wants_colour
from slproxy.untrusted import printable

# A column but the first is made no narrower than this for a terminal. Where there is none, a cell that is longer than
# the second moves no row but its own.
NARROWEST, WIDEST = 12, 48

NO_PAINTS: Mapping[str, str] = MappingProxyType({})
Row = Sequence[str]


def print_table(rows: Sequence[Row], *, gap: int = 2, least: int = 0, paints: Mapping[str, str] = NO_PAINTS) -> None:
    """Print rows of as many cells each; the first column has at least so many characters.

    What ``paints`` has among the cells of that column has its colour, where colours are wanted.
    """
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else None
    colour = wants_colour(os.environ, is_terminal=is_terminal)
    escaped = [[printable(cell) for cell in row] for row in rows]
    for cells in laid_out(escaped, gap=gap, least=least, width=width):
        word = cells[0].rstrip()
        paint = functools.partial(_paint_word, word, paints.get(word, ""), colour=colour)
        print_result("".join(cells).rstrip(), paint=paint)


def _paint_word(word: str, paint: str, line: str, *, colour: bool) -> str:
    return painted(word, paint, colour=colour and bool(paint)) + line[len(word) :]


def laid_out(rows: Sequence[Row], *, gap: int, least: int, width: int | None) -> Iterator[list[str]]:
    """Yield the lines of rows, as cells that are padded; with a ``width``, a cell goes on under itself to fit."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    widths[0] = max(widths[0], least)
    if width is None:
        widths[1:] = [min(each, WIDEST) for each in widths[1:]]
    else:
        spent = widths[0] + gap * (len(widths) - 1)
        while sum(widths[1:]) + spent > width and (widest := max(widths[1:])) > NARROWEST:
            widths[widths.index(widest, 1)] -= 1
    for row in rows:
        broken = [row] if width is None else _broken(row, widths, width)
        for cells in broken:
            yield [f"{cell:<{at}}{'':{gap}}" for cell, at in zip(cells, widths, strict=True)]


def _broken(row: Row, widths: Sequence[int], width: int) -> Iterator[Row]:
    """Yield the lines of a row whose cells have these widths.

    Where a column has most of the line, its words stay whole, for whoever copies one: the terminal goes on with them.
    """
    broken = (
        textwrap.wrap(cell, at, break_long_words=2 * at < width, break_on_hyphens=False)
        for cell, at in zip(row, widths, strict=True)
    )
    return itertools.zip_longest(*broken, fillvalue="")
