"""``python proxy.py`` is ``slproxy``: the same program, from a checkout."""

from slproxy.cli.main import main

if __name__ == "__main__":
    main()
