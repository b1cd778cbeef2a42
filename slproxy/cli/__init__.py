"""What a person types: the commands, and what they print."""

from slproxy.cli.main import main

__all__ = [
    "main",
]
