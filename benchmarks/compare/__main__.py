"""``python -m benchmarks.compare``: see :mod:`benchmarks.compare.run`."""

from __future__ import annotations

import sys

from benchmarks.compare.run import main
from r2p2 import cli

if __name__ == "__main__":
    sys.exit(cli.guard(lambda: main(sys.argv[1:])))
