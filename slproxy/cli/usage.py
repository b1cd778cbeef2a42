"""Usage: parses a command line, and says what is wrong with one.

A value may be a secret, and standard error is often kept. So no value is ever named; of what was typed, only

1. a command that is nearly the name of one, where it cannot be the value of an unknown flag;
2. a flag that there is, or an unknown one of a few small letters, without what stands behind its ``=`` or its first
   letter.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from slproxy.cli import held_signals
from slproxy.cli.output import print_result

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

# What can be named: no key looks so, which has digits or capitals.
_NAMEABLE = re.compile(r"--[a-z]{2,16}(-[a-z]{1,16}){0,3}|-[A-Za-z]")
# How like a name what was typed is for the name to be meant, as difflib measures it: --password is no --port.
CLOSE = 0.7


class Flag(NamedTuple):
    """A flag, as completion and the man page describe it."""

    names: Sequence[str]
    help: str
    # What its value is called; nothing where it takes none.
    value: str = ""
    choices: Sequence[str] = ()


class UsageError(Exception):
    """A command line that a parser does not take. Its message may hold what was typed, so only ``text`` is shown."""

    exit_code = 2

    def __init__(self, parser: Parser, message: str) -> None:
        super().__init__()
        self.parser, self._message = parser, message

    def text(self, words: Sequence[str]) -> str:
        """Return what is wrong with these words, naming no value."""
        return f"{self.parser.format_usage()}{self.parser.prog}: error: {_reworded(self._message, words, self.parser)}"


class Parser(argparse.ArgumentParser):
    """Raises UsageError; prints a help like any result; and tells which commands and flags there are."""

    @property
    def color(self) -> bool:
        """Whether a help is in colours, as argparse of Python 3.14 would have it: `print_result` escapes them."""
        return False

    @color.setter
    def color(self, _: bool) -> None:
        pass

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(self, message)

    def unknown(self, words: Sequence[str]) -> NoReturn:
        """Raise UsageError for words that no argument takes."""
        raise UsageError(self, _unknown(words, self))

    def names(self) -> list[str]:
        """Return the names of all flags."""
        return [name for flag in self.flags() for name in flag.names]

    def flags(self) -> list[Flag]:
        """Return the flags, in the order of the help."""
        return [
            Flag(
                names=tuple(action.option_strings),
                help=action.help or "",
                value="" if action.nargs == 0 else str(action.metavar or action.dest.upper()),
                choices=tuple(action.choices or ()),
            )
            for action in self._actions
            if action.option_strings
        ]

    def commands(self) -> dict[str, Parser]:
        """Return the commands below this one."""
        below = (action.choices for action in self._actions if not action.option_strings)
        return {name: parser for each in below if isinstance(each, Mapping) for name, parser in each.items()}

    def words(self) -> list[str]:
        """Return the words of which one is an argument, such as the shells of ``completion``."""
        chosen = (action.choices for action in self._actions if not action.option_strings)
        return [str(word) for each in chosen if each and not isinstance(each, Mapping) for word in each]

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """Print a help like any result: argparse says nothing where it could not write."""
        held_signals.release()  # whoever reads it may have stalled
        if file is sys.stdout:
            print_result(message.removesuffix("\n"))
        else:
            super()._print_message(message, file)


def _reworded(message: str, words: Sequence[str], parser: Parser) -> str:
    if choice := re.search(r"^argument (.*?): invalid choice: (.*) \(choose from (.*)\)$", message, re.DOTALL):
        typed = next((word for word in words if repr(word) == choice[2]), "")
        names = re.findall(r"[\w-]+", choice[3])
        if choice[1] == "COMMAND":
            return _no_command(typed, words[: words.index(typed)] if typed in words else (), names, parser)
        return f"argument {choice[1]}: {_meant(_near(typed, names))}It is one of {', '.join(names)}"
    message = re.sub(r"invalid (int|float) value: .*", r"expected a number", message, flags=re.DOTALL)
    message = re.sub(r"ignored explicit argument .*", "takes no value", message, flags=re.DOTALL)
    return re.sub(r"=.* could match", " could match", message, flags=re.DOTALL)


def _no_command(typed: str, before: Sequence[str], names: Sequence[str], parser: Parser) -> str:
    if before and before[-1].startswith("-") and not any(name.startswith(before[-1]) for name in parser.names()):
        return _unknown(before[-1:], parser)  # whose value it was meant to be
    near = _near(typed, names)
    there_is = f"there is no command {typed}: {_meant(near)}" if near else "there is no such command. "
    return f"{there_is}It is one of {', '.join(names)}"


def _unknown(words: Sequence[str], parser: Parser) -> str:
    """Return what is wrong with words that no argument takes: flags that are none, or in a wrong place, or a word."""
    given = [word.partition("=")[0] if word.startswith("--") else word[:2] for word in words if word[:1] == "-"]
    if not given or "--" in given:
        return "there is a word too many, which is no flag (--help shows what there is)"
    flags = parser.names()
    # What a parser knows, and was not given, stood before the command; or there is no command yet.
    below = {name for command in _all_below(parser) for name in command.names()}
    if early := next((flag for flag in given if flag in flags or flag in below), ""):
        return f"{early} comes after the command"
    near = next((near for flag in given if (near := _near(flag, flags))), "")
    named = ", ".join(flag for flag in given if _NAMEABLE.fullmatch(flag))
    return f"unknown flag{named and f' {named}'}: {_meant(near)}--help shows what there is"


def _all_below(parser: Parser) -> Iterator[Parser]:
    for command in parser.commands().values():
        yield command
        yield from _all_below(command)


def _near(typed: str, names: Sequence[str]) -> str:
    import difflib  # noqa: PLC0415  # only for a typo

    return next(iter(difflib.get_close_matches(typed, names, n=1, cutoff=CLOSE)), "")


def _meant(near: str) -> str:
    return f"did you mean {near}? " if near else ""
