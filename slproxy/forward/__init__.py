"""Forwarding: the life of a request, from check to answer."""

from slproxy.forward import cors
from slproxy.forward.forward import Forwarder
from slproxy.forward.messages import Answer, Inbound
from slproxy.forward.policy import OWN_METHODS, Policy

__all__ = [
    "OWN_METHODS",
    "Answer",
    "Forwarder",
    "Inbound",
    "Policy",
    "cors",
]
