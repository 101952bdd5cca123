"""Handlers that benchmarks serve: ``r2p2 serve --app benchmarks.handlers:echo_one`` from the project's folder."""

from __future__ import annotations

from r2p2.apps.kv import KeyValue
from r2p2.requests import ReplySequence, Requests


def echo_one(request: bytes) -> bytes:
    """An echo as a user would write it: called for each request, an object each."""
    return request


class PythonKeyValue(KeyValue):
    """The key-value store without its function in C: every request goes through Python, as in a handler that users write."""

    def apply(self, requests: Requests) -> ReplySequence:
        """Executes a batch."""
        store = self.store
        store.now_ms = max(store.now_ms, requests.time_ms)
        replies = self._apply_any(requests)
        store.turn(len(requests))
        return replies
