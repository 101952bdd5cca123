"""Handlers that benchmarks serve: ``r2p2 serve --app benchmarks.handlers:echo_one`` from the project's folder."""

from __future__ import annotations

from array import array

from r2p2.apps.kv import KeyValue
from r2p2.requests import Replies, ReplySequence, Requests


def echo_one(request: bytes) -> bytes:
    """An echo as a user would write it: called for each request, an object each."""
    return request


class PythonKeyValue(KeyValue):
    """The store without its function in C: each request goes through Python, as in a handler that users write."""

    def apply(self, requests: Requests) -> ReplySequence:
        """Executes a batch."""
        store = self.store
        store.now_ms = max(store.now_ms, requests.time_ms)
        replies = self._apply_any(requests)
        store.turn(len(requests))
        return replies


class SlabKeyValue(PythonKeyValue):
    """A handler in Python over the whole batch: SETs are cut out of the slab at once, for words without line ends."""

    def apply(self, requests: Requests) -> ReplySequence:
        """Executes a batch; one that holds anything but such SETs, request by request."""
        count = len(requests)
        words = requests.slab.split(b"\r\n")
        if (
            len(words) != 7 * count + 1
            or not self.store.is_plain
            or set(words[0:-1:7]) != {b"*3"}
            or set(words[2::7]) != {b"SET"}
        ):
            return super().apply(requests)
        self.store.table.top.update(zip(words[4::7], words[6::7], strict=True))
        return Replies(b"+OK\r\n" * count, array("I", (5,)) * count)
