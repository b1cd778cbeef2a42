"""What a person types."""

from slproxy.cli.main import main

__all__ = [
    "main",
]
