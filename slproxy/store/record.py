"""Record of a login: whose it is, its token, and which of two records is the newer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from slproxy.store.token import Token

# SalesLoft's own: what a login belongs to that was stored before the API's origin was.
FIRST_ACCOUNTS_URL, FIRST_API_URL = "https://accounts.salesloft.com", "https://api.salesloft.com"


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """What a login belongs to; its token is shown to nobody else."""

    client_id: str
    accounts_url: str
    profile: str
    api_url: str


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
    api_url: str = FIRST_API_URL
    login: int = 1
    generation: int = 1
    refused: str = ""
    user_id: int | None = None
    team_id: int | None = None

    def belongs_to(self, owner: Owner) -> bool:
        """Tell whether this login is of that client, for that API, at that accounts host, in that profile."""
        return self.owner == owner

    @property
    def owner(self) -> Owner:
        """What the login belongs to."""
        return Owner(
            client_id=self.client_id, accounts_url=self.accounts_url, profile=self.profile, api_url=self.api_url
        )

    def differs_from(self, owner: Owner) -> str:
        """Say what makes this another owner's login; nothing where it is this one's."""
        parts = (
            ("the client", self.client_id, owner.client_id),
            ("the profile", self.profile, owner.profile),
            ("the accounts_url", self.accounts_url, owner.accounts_url),
            ("the api_url", self.api_url, owner.api_url),
        )
        return "; ".join(f"of {name} {its}, not {theirs or 'none'}" for name, its, theirs in parts if its != theirs)

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
