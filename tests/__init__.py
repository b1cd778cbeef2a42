"""Tests; what they stand on is in `support`."""

import sys

# Whatever PYTHONDONTWRITEBYTECODE says: the workers, and the programs that they start, load the same modules.
sys.dont_write_bytecode = False
