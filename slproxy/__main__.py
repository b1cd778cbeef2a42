"""``python -m slproxy``."""

from slproxy.cli import main

main()
