"""The process that answers everything in C: ``python -m r2p2.bench.null_responder PORT``, for measuring the generator.

PORT is a :class:`~r2p2.ports.PortSpec` as a JSON object. What is answered, and how little that costs:
``r2p2/csrc/r2p2_null_api.h``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from r2p2 import cli
from r2p2._engine import ffi, lib
from r2p2.errors import UserError
from r2p2.ports import PortSpec, open_port
from r2p2.stopping import stop_on_signals

SLICE_NS = 50_000_000  # between looks at whether to stop


def run(spec: PortSpec) -> int:
    """Answers until SIGTERM or SIGINT; 0."""
    stop = stop_on_signals()
    counts = ffi.new("r2p2_null_counts *")
    with open_port(spec) as port:
        while not stop.is_set():
            if lib.r2p2_null_run(port.address, SLICE_NS, counts) < 0:
                raise UserError("the null responder does not know this kind of port")
    print(f"answered {counts.answered} in {counts.bursts} bursts, ignored {counts.ignored}", flush=True)
    return 0


def main(argv: Sequence[str]) -> int:
    """The process; its exit code."""
    if len(argv) != 1:
        print("usage: python -m r2p2.bench.null_responder PORT (a JSON object)", file=sys.stderr)
        return 2
    return cli.guard(lambda: run(PortSpec.from_dict(json.loads(argv[0]))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
