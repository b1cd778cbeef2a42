"""One setting: its name, type, bounds and documentation, read from the annotation of its field."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from dataclasses import Field as DataclassField
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from slproxy.config.secret import Secret

Kind = Literal["text", "integer", "number", "size", "mode", "switch", "list", "path", "file", "secret", "proxy"]


@dataclass(frozen=True)
class Doc:
    """What a setting is for, in one sentence."""

    text: str


@dataclass(frozen=True)
class Ge:
    """The least value."""

    bound: float


@dataclass(frozen=True)
class Le:
    """The greatest value."""

    bound: float


@dataclass(frozen=True)
class Is:
    """What a value is, where its type does not tell."""

    kind: Kind


@dataclass(frozen=True)
class Credential:
    """SalesLoft's users already have this setting as SALESLOFT_<NAME>."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting, before it has a value."""

    section: str
    name: str
    default: object
    kind: Kind
    doc: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    credential: bool
    # The client that it is a setting of; empty for all sections but client.
    table: str = ""

    @property
    def generic_key(self) -> str:
        """The key without the client's name: ``client.budget`` for the budget of any client."""
        return f"{self.section}.{self.name}"

    @property
    def key(self) -> str:
        """The name in full, such as ``listen.port``, or ``client.report.budget``."""
        return f"{self.section}.{self.table}.{self.name}" if self.table else self.generic_key

    @property
    def secret(self) -> bool:
        """Whether the value is never shown."""
        return self.kind == "secret"

    @property
    def from_file(self) -> bool:
        """Whether ``<name>_file`` may name a mounted file that holds the value."""
        return self.secret or self.credential or self.kind == "proxy"  # whose URL may hold a password

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that set it, SalesLoft's own name first."""
        ours = "SLPROXY_" + "__".join(part for part in (self.section, self.table, self.name) if part)
        ours = ours.upper().replace("-", "_")
        return (f"SALESLOFT_{self.name.upper()}", ours) if self.credential else (ours,)


_KINDS: dict[object, Kind] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "switch",
    tuple: "list",
    Path: "path",
    Secret: "secret",
    Literal: "text",
}


def setting_of(section: str, field: DataclassField[Any], annotation: object) -> Setting:
    """Return the setting that a field of a section declares as ``Annotated[type, Doc(…), …]``."""
    assert get_origin(annotation) is Annotated, f"{section}.{field.name} has no Doc"
    declared, *notes = get_args(annotation)
    if get_origin(declared) in (Union, UnionType):
        declared = next(each for each in get_args(declared) if each is not type(None))
    noted = {type(note): note for note in notes}
    bare = get_origin(declared) or declared
    return Setting(
        section=section,
        name=field.name,
        default=None if field.default is MISSING else field.default,
        kind=noted[Is].kind if Is in noted else _KINDS[bare],
        doc=noted[Doc].text,
        minimum=noted[Ge].bound if Ge in noted else None,
        maximum=noted[Le].bound if Le in noted else None,
        choices=get_args(declared) if bare is Literal else (),
        credential=Credential in noted,
    )
