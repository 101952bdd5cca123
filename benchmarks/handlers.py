"""Handlers that benchmarks serve: ``r2p2 serve --app benchmarks.handlers:echo_one`` from the project's folder."""

from __future__ import annotations

from array import array

from r2p2 import RequestMachine
from r2p2.apps.kv import KeyValue
from r2p2.requests import Replies, ReplySequence, Requests


def echo_one(request: bytes) -> bytes:
    """An echo as a user would write it: called for each request, an object each."""
    return request


class FunctionStore(RequestMachine):
    """Plain SETs and GETs as a user would write them: called for each request, which it cuts into words."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}

    def handle(self, request: bytes, time_ms: int) -> bytes:
        """Stores a value."""
        words = request.split(b"\r\n")
        self.data[words[4]] = words[6]
        return b"+OK\r\n"

    def query(self, request: bytes) -> bytes:
        """Gives a value."""
        value = self.data.get(request.split(b"\r\n")[4])
        return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)


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
