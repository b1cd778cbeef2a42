"""Record of a login: whose it is, its token, and which of two records is the newer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from slproxy.store.token import Token


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A login as it is stored: whose it is, the token, and how often it was renewed.

    ``login`` is when it was made, in ms of Unix time, later than the one before it, and ``generation`` counts its
    renewals, so that of any two records it is known which is newer. ``refused`` holds the error of a refresh token that
    is dead, so that no start tries it again. ``user_id`` and ``team_id`` say who logged in, where SalesLoft said.
    """

    client_id: str
    accounts_url: str
    token: Token
    profile: str = "default"
    login: int = 1
    generation: int = 1
    refused: str = ""
    user_id: int | None = None
    team_id: int | None = None

    def belongs_to(self, client_id: str, accounts_url: str, profile: str) -> bool:
        """Tell whether this login is of that client at that accounts host, in that profile."""
        return self.owner == (client_id, accounts_url, profile)

    @property
    def owner(self) -> tuple[str, str, str]:
        """What ``belongs_to`` asks for."""
        return (self.client_id, self.accounts_url, self.profile)

    def is_older_than(self, other: Record) -> bool:
        """Tell whether ``other`` came later: by another login, a further renewal of this one, or the same one later."""
        return self.version < other.version

    def has_the_token_of(self, other: Record) -> bool:
        """Tell whether both hold the same token, whatever else was noted about it since.

        Generations do not tell: a logout and a login begin to count again.
        """
        mine, theirs = self.token, other.token
        return (mine.access_token, mine.refresh_token) == (theirs.access_token, theirs.refresh_token)

    @property
    def version(self) -> tuple[int, int, float]:
        """Where the record stands among those that came before and after it."""
        return (self.login, self.generation, self.token.obtained_at)

    def renewed(self, token: Token) -> Record:
        """Return the record of the next generation."""
        return replace(self, token=token, generation=self.generation + 1, refused="")
