"""``slproxy completion``: prints a script with which a shell completes commands, flags and their values.

What it completes is what the parser has. Only the names of profiles are asked for while somebody types.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from slproxy.cli.parser import build_parser
from slproxy.cli.usage import Flag, Parser

# What prints the names of profiles, a line each.
_PROFILES = "slproxy profiles --names 2>/dev/null"


class _Place(NamedTuple):
    """A command, or a group of them: what may come next."""

    words: tuple[str, ...]
    parser: Parser

    @property
    def flags(self) -> list[Flag]:
        return self.parser.flags()

    @property
    def next(self) -> dict[str, str]:
        """The words that may come next, and what they are for."""
        commands = {name: parser.description or "" for name, parser in self.parser.commands().items()}
        return commands | dict.fromkeys(self.parser.words(), "")

    @property
    def is_run(self) -> bool:
        """Whether a program comes next, and what that is given."""
        return self.words == ("run",)


def text(args: argparse.Namespace) -> str:
    """Return the script for a shell."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell]([*_places(build_parser())])


def _places(parser: Parser, *words: str) -> Iterator[_Place]:
    yield _Place(words, parser)
    for name, below in parser.commands().items():
        yield from _places(below, *words, name)


def _is_file(flag: Flag) -> bool:
    return flag.value == "FILE" or "--uds" in flag.names


def _names(flags: Sequence[Flag]) -> list[str]:
    return sorted({name for flag in flags for name in flag.names})


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# bash


_BASH = """\
# In ~/.bashrc: eval "$(slproxy completion bash)"
_slproxy() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command="" value="" word words="" at
    # To readline, = is a word of its own.
    [[ $cur == "=" ]] && cur=""
    [[ $before == "=" ]] && before=${{COMP_WORDS[COMP_CWORD-2]}}
    COMPREPLY=()
    for ((at = 1; at < COMP_CWORD; at++)); do
        word=${{COMP_WORDS[at]}}
        if [[ $word == "=" ]]; then value=yes; continue; fi
        if [[ $value ]]; then value=""; continue; fi
        case $word in
            {valued}) value=yes ;;
            -*) ;;
            *)
                if [[ $command == run ]]; then
                    if declare -F _command_offset >/dev/null; then _command_offset "$at"; else _slproxy_files -f; fi
                    return
                fi
                command="${{command:+$command }}$word" ;;
        esac
    done
    case "$command $before" in
        {files}) _slproxy_files -f; return ;;
        *" --profile") words=$({profiles}) ;;
{choices}
        {valued_there}) return ;;
        *)
            if [[ $cur == -* ]]; then
                case $command in
{flags}
                esac
            else
                case $command in
                    run) _slproxy_files -c; return ;;
{words}
                esac
            fi ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
# Names may hold spaces; bash 3 of macOS has no compopt.
_slproxy_files() {{
    local IFS=$'\\n'
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen "$1" -- "$cur"))
}}
complete -F _slproxy slproxy"""


def _bash(places: Sequence[_Place]) -> str:
    def rows(indent: int, found: Iterable[tuple[str, str]]) -> str:
        return "\n".join(f'{"":{indent}}{where}) words="{words}" ;;' for where, words in found)

    flags = [flag for place in places for flag in place.flags]
    valued = _names([flag for flag in flags if flag.value])
    chosen = {f'*" {name}"': " ".join(flag.choices) for flag in flags if flag.choices for name in flag.names}
    return _BASH.format(
        profiles=_PROFILES,
        valued="|".join(valued),
        valued_there="|".join(f'*" {name}"' for name in valued),
        files="|".join(f'*" {name}"' for name in _names([flag for flag in flags if _is_file(flag)])),
        choices=rows(8, chosen.items()),
        flags=rows(20, ((f'"{" ".join(place.words)}"', " ".join(_names(place.flags))) for place in places)),
        words=rows(20, ((f'"{" ".join(place.words)}"', " ".join(place.next)) for place in places if place.next)),
    )


# zsh


def _zsh(places: Sequence[_Place]) -> str:
    functions = "\n".join(line for place in places for line in _zsh_function(place))
    return f"""\
#compdef slproxy
# In ~/.zshrc, behind compinit if you have it: eval "$(slproxy completion zsh)"
_slproxy_profile_names() {{ local names=("${{(@f)$({_PROFILES})}}"); compadd -a names }}
{functions}
if [[ $funcstack[1] == _slproxy ]]; then _slproxy "$@"; else
    # Without a ~/.zshrc, as macOS sets zsh up, nothing completes.
    (( $+functions[compdef] )) || {{ autoload -Uz compinit; compinit -i }}
    compdef _slproxy slproxy
fi"""


def _zsh_function(place: _Place) -> Iterator[str]:
    yield f"{_zsh_name(place.words)}() {{"
    yield "    local curcontext=$curcontext state line; typeset -A opt_args"
    rest: list[str] = []
    if place.parser.commands():
        rest = [_quoted("(-)1: :->command"), _quoted("(-)*:: :->rest")]
    elif place.next:
        rest = [_quoted(f"1: :({' '.join(place.next)})")]
    elif place.is_run:
        rest = [_quoted("(-)1:program: _command_names -e"), _quoted("(-)*:: :_normal")]
    yield " \\\n        ".join(["    _arguments -C -S :", *map(_zsh_flag, place.flags), *rest])
    if below := place.parser.commands():
        described = " ".join(_quoted(f"{name}:{text}") for name, text in place.next.items())
        yield "    case $state in"
        yield f"        command) local -a commands=({described}); _describe command commands ;;"
        yield "        rest) case $line[1] in"
        for name in below:
            yield f"            {name}) {_zsh_name((*place.words, name))} ;;"
        yield "        esac ;;"
        yield "    esac"
    yield "}"


def _zsh_name(words: Sequence[str]) -> str:
    return "_".join(("_slproxy", *words))


def _zsh_flag(flag: Flag) -> str:
    """Return what ``_arguments`` takes for a flag, which may be repeated."""
    told = flag.help.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
    value = ""
    if flag.value:
        completes = f"({' '.join(flag.choices)})" if flag.choices else "_files" if _is_file(flag) else ""
        value = f":{flag.value}:{'_slproxy_profile_names' if '--profile' in flag.names else completes}"
    ends = {name: ("=" if name.startswith("--") else "+") if flag.value else "" for name in flag.names}
    return " ".join(_quoted(f"*{name}{end}[{told}]{value}") for name, end in ends.items())


# fish


def _fish(places: Sequence[_Place]) -> str:
    valued = _names([flag for place in places for flag in place.flags if flag.value])
    lines = [line for place in places for line in _fish_lines(place)]
    return "\n".join(
        [
            "# In ~/.config/fish/config.fish: slproxy completion fish | source",
            "function __slproxy_at",
            "    set -l at",
            "    set -l value",
            "    for word in (commandline -opc)[2..-1]",
            "        if set -q value[1]",
            "            set value",
            f"        else if contains -- $word {' '.join(valued)}",
            "            set value yes",
            "        else if not string match -q -- '-*' $word",
            "            set -a at $word",
            "        end",
            "    end",
            '    test "$argv" = "$at"; or begin; test "$argv" = run; and test "$at[1]" = run; end',
            "end",
            "complete -c slproxy -f",
            *lines,
        ]
    )


def _fish_lines(place: _Place) -> Iterator[str]:
    start = f"complete -c slproxy -n {_quoted(' '.join(('__slproxy_at', *place.words)))}"
    for name, told in place.next.items():
        yield f"{start} -a {name}{f' -d {_quoted(told)}' if told else ''}"
    for flag in place.flags:
        names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in flag.names)
        value = " -x" if flag.value else ""
        if flag.choices:
            value = f" -x -a {_quoted(' '.join(flag.choices))}"
        elif "--profile" in flag.names:
            value = f" -x -a '({_PROFILES})'"
        elif _is_file(flag):
            value = " -r -F"
        yield f"{start} {names}{value} -d {_quoted(flag.help)}"
    if place.is_run:
        yield f"{start} -x -a '(__fish_complete_subcommand --fcs-skip=2)'"
