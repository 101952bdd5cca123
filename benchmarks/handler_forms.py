"""What each form of a handler costs a replica: nanoseconds of processor time a request, laying out replies included.

The handlers do next to nothing (they return the request), so what is shown is what the form adds.

    python benchmarks/handler_forms.py [--batch N] [--size BYTES] [--slices N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from r2p2 import RequestMachine, StateMachine, state_machine
from r2p2.requests import Replies, ReplySequence, Requests

SLICE_BATCHES = 40


def function(request: bytes) -> bytes:
    """A function ``bytes -> bytes``."""
    return request


class OfRequests(RequestMachine):
    """Called for each request."""

    def handle(self, request: bytes, time_ms: int) -> bytes:
        """The request."""
        return request


class OfBatches(StateMachine):
    """Goes over the batch itself."""

    def apply(self, requests: Requests) -> ReplySequence:
        """The requests."""
        return [request for request in requests]


class OfSlabs(StateMachine):
    """Takes the batch as one piece."""

    def apply(self, requests: Requests) -> ReplySequence:
        """The slab."""
        return Replies(requests.slab, requests.lengths)


def best_ns(apply: Callable[[Requests], ReplySequence], requests: Requests, slices: int) -> float:
    """The least of many slices, a request."""
    best = float("inf")
    for _ in range(slices):
        began_ns = time.process_time_ns()
        for _ in range(SLICE_BATCHES):
            replies = apply(requests)
            if not isinstance(replies, Replies):
                Replies.pack(replies)
        best = min(best, (time.process_time_ns() - began_ns) / SLICE_BATCHES / len(requests))
    return best


def main() -> None:
    """Prints a line for each form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=512, help="requests in a batch (512)")
    parser.add_argument("--size", type=int, default=64, help="bytes of a request (64)")
    parser.add_argument("--slices", type=int, default=200, help=f"slices of {SLICE_BATCHES} batches each (200)")
    args = parser.parse_args()
    requests = Requests.of([bytes(args.size)] * args.batch)
    forms = {
        "a function, called for each request": state_machine(function),
        "RequestMachine, called for each request": OfRequests(),
        "StateMachine, a comprehension over the batch": OfBatches(),
        "StateMachine, the slab as it is": OfSlabs(),
    }
    for name, machine in forms.items():
        print(f"{name:<46}{best_ns(machine.apply, requests, args.slices):8.1f} ns a request")


if __name__ == "__main__":
    main()
