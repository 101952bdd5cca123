"""``python -m r2p2``: the same as the console script ``r2p2``."""

import sys

from r2p2.cli import main

if __name__ == "__main__":
    sys.exit(main())
