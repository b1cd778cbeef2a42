"""Rules: which methods and paths pass, for everybody or for one client. They only narrow: what one closes stays closed.

1. A path is held to all that it may be read as: a rule that lets one spelling pass lets anything pass.
2. A refusal names the rule, and whom to ask. It does not say how to get around it. Whose key was shown, and what is
   left to that client, ``policy`` says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from slproxy.config import Secret, Settings, matcher, rejects
from slproxy.errors import MethodRefused, NotFound
from slproxy.forward.overrides import override_in
from slproxy.forward.target import folded, readings
from slproxy.http import ByName
from slproxy.observe import Exchange

READ_METHODS = ("GET", "HEAD", "OPTIONS")
METHODS = (*READ_METHODS, "POST", "PUT", "PATCH", "DELETE")
# What is let in as long as nobody says otherwise.
ALL_PATHS = ("/v2/",)
_ASK = "Ask whoever runs this proxy, if it should."


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What passes. ``client`` is the name of the one whose rules these are, and empty where they are everybody's.

    ``within`` are the paths that are open without them.
    """

    client: str = ""
    within: tuple[str, ...] = ALL_PATHS
    read_only: bool = False
    accept_paths: tuple[str, ...] = ALL_PATHS
    reject_paths: tuple[str, ...] = ()
    # Matches the accepted paths; and what those begin with that are whole folders, which is sooner told.
    accepts: re.Pattern[str] = field(init=False, compare=False)
    folders: tuple[str, ...] = field(init=False, compare=False)
    # Whether they close a path that would pass without them.
    narrows_paths: bool = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "accepts", matcher(self.accept_paths))
        object.__setattr__(self, "folders", tuple(each for each in self.accept_paths if each.endswith("/")))
        object.__setattr__(self, "narrows_paths", bool(self.reject_paths) or self.accept_paths != self.within)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that pass."""
        return READ_METHODS if self.read_only else METHODS

    def closed_by(self, path: str) -> str:
        """Return the name of the rule that closes an accepted path, as it stands or may be read, or nothing."""
        if not self.narrows_paths:
            return ""
        if (paths := readings(path)) is None:
            return self._named("accept_paths")  # servers read it in more ways than rules can be held against
        read = [folded(each) for each in paths]
        if any(rejects(folded(pattern), each) for pattern in self.reject_paths for each in read):
            return self._named("reject_paths")
        return "" if all(self.accepts.match(each) for each in paths) else self._named("accept_paths")

    def check_path(self, path: str) -> None:
        """Hold a path that is forwarded at all against the rules. Raises NotFound."""
        if rule := self.closed_by(path):
            raise NotFound(f"This path is closed by {rule}.", hint=_ASK, members={"rule": rule})

    def check_method(self, method: str, headers: ByName, *, query: str) -> None:
        """Hold a method, and what may ask for another method or path, against the rules. Raises Refused."""
        if self.read_only and method not in READ_METHODS:
            whose = f"The client {self.client}" if self.client else "This proxy"
            raise MethodRefused(
                f"{whose} only reads: {method} is not passed on.",
                hint=_ASK,
                members={"rule": self._named("read_only")},
            )
        if (self.read_only or self.narrows_paths) and (found := override_in(headers, query=query)) is not None:
            what, asked_for = found
            rule = self._rule_about(asked_for)
            refused = MethodRefused if asked_for == "method" else NotFound
            raise refused(
                f"{what} asks for another {asked_for}: {rule} lets no request pass that does.",
                hint=_ASK,
                members={"rule": rule},
            )

    def _rule_about(self, what: Literal["method", "path"]) -> str:
        """Return the name of a rule that narrows, if there is one for this."""
        if self.read_only and (what == "method" or not self.narrows_paths):
            return self._named("read_only")
        return self._named("accept_paths" if self.accept_paths != self.within else "reject_paths")

    def _named(self, rule: str) -> str:
        return f"client.{self.client}.{rule}" if self.client else f"policy.{rule}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """A client that is known by its key, and what it may do; ``budget`` is a cost a minute."""

    key: Secret
    rules: Rules
    budget: int | None = None
    bulk: bool = False

    @property
    def name(self) -> str:
        """How it is called."""
        return self.rules.client


def clients_of(settings: Settings) -> tuple[Client, ...]:
    """Return the clients that the settings name."""
    return tuple(
        Client(
            key=each.key,
            rules=Rules(
                client=name,
                within=settings.policy.accept_paths,
                read_only=each.read_only,
                accept_paths=each.accept_paths,
                reject_paths=each.reject_paths,
            ),
            budget=each.budget,
            bulk=each.priority == "bulk",
        )
        for name, each in settings.clients.items()
    )


def tell_client(exchange: Exchange, client: Client | None) -> None:
    """Tell those who observe whose key a request has shown, whatever it calls itself."""
    if client is not None:
        exchange.client = client.name
        if exchange.recording is not None:
            exchange.recording.owner = client.name
