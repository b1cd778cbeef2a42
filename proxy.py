"""``python proxy.py`` is ``slproxy``: the same program, from a checkout."""

from slproxy.cli import main

if __name__ == "__main__":
    main()
