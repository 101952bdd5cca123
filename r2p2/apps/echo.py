"""Answers every request with itself."""

from __future__ import annotations

from r2p2.app import StateMachine
from r2p2.requests import Replies, ReplySequence, Requests


class Echo(StateMachine):
    """The smallest application: no state, and the batch's own slab is the reply."""

    def apply(self, requests: Requests) -> ReplySequence:
        """Every request is its reply."""
        return Replies(requests.slab, requests.lengths)

    def query(self, request: bytes) -> bytes:
        """The request."""
        return request

    def snapshot(self) -> bytes:
        """Nothing: there is no state."""
        return b""

    def restore(self, data: bytes) -> None:
        """Nothing to do."""
