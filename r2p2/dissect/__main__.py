"""``python -m r2p2.dissect FILE``: the command without the rest of r2p2."""

import sys

from r2p2.dissect import main

sys.exit(main())
