"""Fake SalesLoft, to develop and test against; it shares no code with the proxy, so that it is a witness.

Where is X? `options` how it behaves · `sandbox` on a socket · `wire` requests and responses · `salesloft` the order of
things · `tokens` `oauth` `pages` the accounts host · `api` `definition` `query` `values` `body` the API · `records`
`crud` `odd` what it remembers · `seed` `sower` `team` `work` `names` what it starts with · `budget` `faults` `ledger`
`control` what it counts, breaks and shows.
"""

from .faults import Fault, FaultError
from .ledger import Request, TokenRequest
from .options import Options
from .sandbox import Sandbox, running
from .tokens import TokenPair

__all__ = ["Fault", "FaultError", "Options", "Request", "Sandbox", "TokenPair", "TokenRequest", "running"]
