"""The man page, made of the parser: ``python -m slproxy.cli.man`` prints what is kept in ``text``."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

import slproxy
from slproxy.cli import flags
from slproxy.cli.output import print_result
from slproxy.cli.parser import build_parser
from slproxy.cli.usage import Flag, Parser

# When the page changed last: a page has to have a date (mandoc(1)).
_DATE = "2026-11-29"
_HELP = frozenset({"--help"})


def page() -> str:
    """Return the page in the language of man(7)."""
    parser = build_parser()
    common = Parser()
    flags.add_common_flags(common, facts=True)
    everywhere = frozenset(name for flag in common.flags() for name in flag.names)
    lines = [
        f'.TH SLPROXY 1 {_DATE} "slproxy {slproxy.__version__}"',
        ".ad l",
        ".nh",
        ".SH NAME",
        "slproxy \\- local reverse proxy for the SalesLoft API that adds the token",
        ".SH SYNOPSIS",
        *_usage(parser),
        ".SH DESCRIPTION",
        _text(parser.description or ""),
        ".SH OPTIONS",
        *_flags(parser, without=everywhere),
        ".SS Of every command",
        *_flags(common, without=frozenset()),
        ".SH COMMANDS",
        *(line for name, below in parser.commands().items() for line in _command(name, below, everywhere)),
        *_paragraphs(parser.epilog or "", heading=".SH"),
    ]
    return "\n".join(lines)


def _command(name: str, parser: Parser, everywhere: frozenset[str]) -> Iterator[str]:
    if below := parser.commands():
        for word, each in below.items():
            yield from _command(f"{name} {word}", each, everywhere)
        return
    yield f".SS {name}"
    yield from _usage(parser)
    yield ".PP"
    yield _text(parser.description or "")
    yield from _flags(parser, without=everywhere | _HELP)
    yield from _paragraphs(parser.epilog or "", heading=".PP")


def _usage(parser: Parser) -> list[str]:
    return [_text(" ".join(parser.format_usage().split()).removeprefix("usage: "), literal=True)]


def _flags(parser: Parser, *, without: frozenset[str]) -> Iterator[str]:
    for flag in parser.flags():
        if not without & {*flag.names}:
            yield from (".TP", _heading(flag), _text(f"{flag.help[0].upper()}{flag.help[1:]}."))


def _heading(flag: Flag) -> str:
    names = ", ".join(f"\\fB{_text(name, literal=True)}\\fR" for name in flag.names)
    value = "|".join(flag.choices) or flag.value
    return f"{names} \\fI{_text(value, literal=True)}\\fR" if value else names


def _paragraphs(text: str, *, heading: str) -> Iterator[str]:
    """Yield the paragraphs of an epilog; lines that are indented stay as they are, below their heading."""
    for paragraph in filter(None, re.split(r"\n\s*\n", text.strip())):
        first, *rest = paragraph.split("\n")
        if rest and all(line.startswith(" ") for line in rest):
            yield from [f".SH {first.rstrip(':').upper()}"] if heading == ".SH" else [".PP", _text(first), ".PP"]
            yield from (".nf", ".RS", *(_text(line.strip(), literal=True) for line in rest), ".RE", ".fi")
        else:
            yield from (".PP", _text(paragraph))


def _text(text: str, *, literal: bool = False) -> str:
    """Return text for the page, in lines as short as they should be; with ``literal`` as a shell reads its hyphens."""
    hyphens = re.compile("-" if literal else r"(?<!\w)-|(?<=-)-")
    escaped = hyphens.sub(r"\\-", text.replace("\\", "\\e"))
    lines = textwrap.wrap(escaped, 78, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)


if __name__ == "__main__":
    print_result(page())
