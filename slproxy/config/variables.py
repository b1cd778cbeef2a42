"""Environment variables that are settings, from the environment or from ``.env``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from slproxy.config.messages import LISTED
from slproxy.config.origin import Origin
from slproxy.config.raw_value import RawValue
from slproxy.config.schema import CLIENT, SCHEMA, client_schema
from slproxy.config.setting import Setting
from slproxy.errors import ConfigError

# variable -> its setting, and whether it names a file that holds the value
VARIABLES: Mapping[str, tuple[Setting, bool]] = MappingProxyType(
    {name: (setting, False) for setting in SCHEMA.values() for name in setting.variables}
    | {
        f"{name}_FILE": (setting, True)
        for setting in SCHEMA.values()
        if setting.from_file
        for name in setting.variables
    }
)
# The same by their letters alone, and how near to them a name is a typo: SALESLOFT_KEY is, SALESLOFT_API_TOKEN is not.
_SQUEEZED: Mapping[str, str] = MappingProxyType({re.sub(r"[^A-Z0-9]", "", name): name for name in VARIABLES})
_NEAR = 0.88
_CLIENT = re.compile(r"SLPROXY_CLIENT__([A-Z][A-Z0-9_]*?)__([A-Z_]+)")
META = ("SLPROXY_CONFIG", "SLPROXY_PROFILE")
# What `slproxy run` tells a program, which may be another slproxy.
_TOLD = ("SLPROXY_URL", "SLPROXY_KEY")

# What Kubernetes puts into the pods beside a Service called slproxy or slproxy-…:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK = re.compile(
    r"SLPROXY_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_PORT = re.compile(r"SLPROXY_(\w+_)?PORT")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A variable of the environment or of ``.env``."""

    name: str
    value: str
    origin: Origin

    def __str__(self) -> str:
        return self.name if self.origin.layer == "env" else f"{self.name} ({self.origin})"


def from_environ(environ: Mapping[str, str]) -> list[Variable]:
    """Return the variables of the environment."""
    return [Variable(name=name, value=value, origin=Origin(layer="env", place=name)) for name, value in environ.items()]


def from_variables(
    variables: Iterable[Variable], cwd: Path, errors: list[ConfigError], *, clients: Collection[str]
) -> list[RawValue]:
    """Return the settings in one layer of variables; add to ``errors`` what is unknown or set twice.

    A variable may be about one of the ``clients`` that the file names, or about another.
    """
    found: dict[str, tuple[Variable, RawValue]] = {}
    for each in variables:
        value = each.value.strip()
        # Compose files pass an unset variable on as an empty one.
        if not value or each.name in META or each.name in _TOLD or not each.name.startswith(("SLPROXY_", "SALESLOFT_")):
            continue
        known = VARIABLES.get(each.name) or _of_client(each.name, clients)
        if known is None:
            if each.name.startswith("SLPROXY_") and not _is_service_link(each.name, value):
                errors.append(_unknown_variable(each))
            continue
        setting, from_file = known
        given = RawValue(setting=setting, value=value, origin=each.origin, text=True, from_file=from_file, base=cwd)
        other, before = found.setdefault(setting.key, (each, given))
        if before is not given and (from_file or before.from_file or before.value != value):
            errors.append(
                ConfigError(
                    f"{setting.key}: {other} and {each} are both set, but only one may be",
                    hint=f"unset {other.name} or {each.name}",
                )
            )
    return [given for _, given in found.values()]


def _of_client(name: str, clients: Collection[str]) -> tuple[Setting, bool] | None:
    """Return the setting of a client that a variable means, and whether it names a file that holds the value."""
    if (parts := _CLIENT.fullmatch(name)) is None:
        return None
    # Capitals and underscores stand for small letters and hyphens.
    named = next((each for each in clients if each.upper().replace("-", "_") == parts[1]), parts[1].lower())
    if not CLIENT.fullmatch(named):
        return None
    known = client_schema(named)
    setting = known.get(parts[2].lower()) or known.get(parts[2].lower().removesuffix("_file"))
    from_file = setting is not None and setting.name != parts[2].lower()
    return None if setting is None or (from_file and not setting.from_file) else (setting, from_file)


def lookalikes(variables: Iterable[Variable], given: Collection[str]) -> Iterator[str]:
    """Yield what to ask about variables that are nearly one of ours, where the setting that is meant is not ``given``.

    Others may have SALESLOFT_ variables of their own, so this is no error.
    """
    for each in variables:
        squeezed = _squeezed(each.name)
        if not each.value.strip() or each.name in VARIABLES or not squeezed.startswith(("SAL", "SLP")):
            continue
        if each.name.startswith("SLPROXY_"):
            continue  # an error, or Kubernetes'
        near = difflib.get_close_matches(squeezed, _SQUEEZED, n=1, cutoff=_NEAR)
        if near and VARIABLES[_SQUEEZED[near[0]]][0].key not in given:
            yield f"{each} is no setting, and not read: did you mean {_SQUEEZED[near[0]]}?"


def _squeezed(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", name.upper())


def _is_service_link(name: str, value: str) -> bool:
    # SLPROXY_PORT=9000 is a user's mistake and an error; Kubernetes' own is tcp://10.0.0.1:8642.
    ours = _SERVICE_LINK.fullmatch(name) or (_SERVICE_PORT.fullmatch(name) and _SERVICE_URL.match(value))
    return bool(ours) and "__" not in name


def _unknown_variable(variable: Variable) -> ConfigError:
    bare = variable.name.removeprefix("SLPROXY_").lower()
    close = [setting.variables[-1] for setting in SCHEMA.values() if setting.name == bare]
    close += difflib.get_close_matches(variable.name, [*VARIABLES, *META], n=1)
    return ConfigError(
        f"{variable}: no setting has this name; expected SLPROXY_<SECTION>__<KEY>",
        hint=f"did you mean {close[0]}?" if close else LISTED,
    )
