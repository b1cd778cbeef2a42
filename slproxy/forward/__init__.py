"""Forwarding: the life of a request, from check to answer."""

from slproxy.forward import cors
from slproxy.forward.body import ReplayMemory
from slproxy.forward.browser import check_origin
from slproxy.forward.drain import Drain
from slproxy.forward.forward import Forwarder
from slproxy.forward.messages import Answer, Inbound
from slproxy.forward.policy import OWN_METHODS, Policy, policy_of
from slproxy.forward.rules import Client

__all__ = [
    "OWN_METHODS",
    "Answer",
    "Client",
    "Drain",
    "Forwarder",
    "Inbound",
    "Policy",
    "ReplayMemory",
    "check_origin",
    "cors",
    "policy_of",
]
