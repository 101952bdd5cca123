"""Services of a known cost, as papers on RPC schedulers use them: ``spin`` and ``stss``.

``spin``: the request is a service time; the server is busy that long and answers with it. ``stss`` (service time and
sizes): the request says how long to be busy, and how many bytes the reply has; its own size is what the client makes
it. Times are of the processor, so that a core shared with others is not counted as service.
"""

from __future__ import annotations

import struct
import time
from abc import abstractmethod

from r2p2 import limits
from r2p2.app import StateMachine
from r2p2.requests import ReplySequence, Requests

__all__ = ["Spin", "Stss", "stss_request"]

_STSS = struct.Struct(">QI")
SERVICE_NS_MAX = 1_000_000_000
# Also where requests are replicated: a larger reply would end every member.
REPLY_BYTES_MAX = limits.REPLICATED_REPLY_BYTES_MAX
BAD_REQUEST = b"-ERR bad request\r\n"


def _spin(ns: int) -> None:
    end_ns = time.thread_time_ns() + ns
    while time.thread_time_ns() < end_ns:
        pass


def stss_request(service_ns: int, reply_bytes: int, request_bytes: int = 12) -> bytes:
    """A request of ``request_bytes`` (at least 12) that wants ``service_ns`` of work and ``reply_bytes`` back."""
    return _STSS.pack(service_ns, reply_bytes).ljust(request_bytes, b"\0")


class _Stateless(StateMachine):
    """A service that has no state: a read is served as a write is."""

    @abstractmethod
    def _one(self, request: bytes) -> bytes:
        """Serves one request."""

    def apply(self, requests: Requests) -> ReplySequence:
        """Serves each in turn."""
        return [self._one(request) for request in requests]

    def query(self, request: bytes) -> bytes:
        """The same: there is no state."""
        return self._one(request)

    def snapshot(self) -> bytes:
        """Nothing: there is no state."""
        return b""

    def restore(self, data: bytes) -> None:
        """Nothing to do."""


class Spin(_Stateless):
    """Request: decimal nanoseconds, at most a second. Reply: the request."""

    def _one(self, request: bytes) -> bytes:
        if not request.isdigit() or int(request) > SERVICE_NS_MAX:
            return BAD_REQUEST
        _spin(int(request))
        return request


class Stss(_Stateless):
    """Request: u64 nanoseconds, u32 reply bytes (big-endian), anything. Reply: that many zero bytes."""

    def _one(self, request: bytes) -> bytes:
        if len(request) < _STSS.size:
            return BAD_REQUEST
        service_ns, reply_bytes = _STSS.unpack_from(request)
        if service_ns > SERVICE_NS_MAX or reply_bytes > REPLY_BYTES_MAX:
            return BAD_REQUEST
        _spin(service_ns)
        return bytes(reply_bytes)
