"""From commands to R2P2 requests and back: policy, size, retries, and errors that say what happened.

A client's commands must be executed in its order, and requests that are on their way together may arrive in any. So a
connection has one request on its way at a time, and what came meanwhile goes as the next: one R2P2.PIPELINE. Leaves to
others: which commands go together (`connection.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final

from r2p2 import limits
from r2p2.apps.kv import encode_command
from r2p2.client import REPLICATED, REPLICATED_READ, Client
from r2p2.errors import CallDropped, CallError, CallTimeout, SessionExpiredError, TooManyCalls
from r2p2.gateway.dialect import Dialect

__all__ = ["Upstream", "encoded_bytes", "too_large"]

# A word's header, and the header of a command with its count of words in a pipeline.
_WORD_BYTES: Final = 16
_COMMAND_BYTES: Final = 32
_RESP3, _BATCH, _BATCH3 = b"R2P2.RESP3", b"R2P2.BATCH", b"R2P2.BATCH3"
_PIPELINE, _PIPELINE3 = b"R2P2.PIPELINE", b"R2P2.PIPELINE3"
# Between tries after a refusal.
_PAUSE_S: Final = 0.005
_PAUSE_MAX_S: Final = 0.1


def encoded_bytes(words: list[bytes]) -> int:
    """At least the bytes that a command adds to a request."""
    return _COMMAND_BYTES + sum(map(len, words)) + _WORD_BYTES * len(words)


class Upstream:
    """The cluster, through one session: a write is sent until it is answered, and executed once.

    Args:
        client: open, with a session, and with the cluster's members as targets.
        dialect: the application's.
        timeout_s: what a command may take in all, seconds.
        counters: counted into.
    """

    def __init__(self, client: Client, dialect: Dialect, timeout_s: float, counters: Counter[str]) -> None:
        self._client = client
        self._reads_only = dialect.reads_only
        self._has_resp3 = dialect.has_resp3
        self._timeout_s = timeout_s
        self._counters = counters

    async def one(self, words: list[bytes], protocol: int = 2) -> bytes:
        """The reply to a command, sent as a request of its own."""
        wrapped = [_RESP3, *words] if self._has_resp3 and protocol == 3 else words
        return await self._request(encode_command(*wrapped), REPLICATED_READ if self._reads_only(words) else REPLICATED)

    async def batch(self, words: list[bytes], protocol: int = 2) -> bytes:
        """The reply to what stands behind R2P2.BATCH."""
        name = _BATCH3 if self._has_resp3 and protocol == 3 else _BATCH
        return await self._request(encode_command(name, *words), REPLICATED)

    async def many(self, commands: list[list[bytes]], sizes: list[int], protocol: int = 2) -> AsyncIterator[bytes]:
        """The replies to commands executed in order, as many at a time as a response carries, end to end. ``sizes``: of
        each, :func:`encoded_bytes`.
        """
        at = 0
        while at < len(commands):
            size, end = 0, at
            while end < len(commands) and end - at < limits.KV_BATCH_COMMANDS_MAX:
                size += sizes[end]
                if size > limits.SESSION_REQUEST_BYTES_MAX - _COMMAND_BYTES and end > at:
                    break
                end += 1
            if end - at == 1:
                yield await self.one(commands[at], protocol)
                at = end
                continue
            part = commands[at:end]
            reply = await self._pipeline(part, protocol)
            if reply[:1] == b"*":
                header, _, rest = reply.partition(b"\r\n")
                at += int(header[1:])
                yield rest
            else:  # what became of the request became of each command in it
                yield reply * len(part)
                at = end

    async def _pipeline(self, commands: list[list[bytes]], protocol: int) -> bytes:
        words: list[bytes | str | int] = [_PIPELINE3 if self._has_resp3 and protocol == 3 else _PIPELINE]
        for command in commands:
            words.append(len(command))
            words += command
        self._counters["pipelines"] += 1
        return await self._request(
            encode_command(*words), REPLICATED_READ if all(map(self._reads_only, commands)) else REPLICATED
        )

    async def _request(self, payload: bytes, policy: int) -> bytes:
        if len(payload) > limits.SESSION_REQUEST_BYTES_MAX:
            self._counters["errors_too_large"] += 1
            return too_large(len(payload))
        is_a_read = policy == REPLICATED_READ
        end = time.monotonic() + self._timeout_s
        pause_s = _PAUSE_S
        self._counters["reads" if is_a_read else "writes"] += 1
        while True:
            left_s = end - time.monotonic()
            try:
                return await self._client.call(
                    payload,
                    policy=policy,
                    timeout_s=max(left_s, 0.001),
                )
            except CallDropped:
                # Not executed: it may be asked again, of the next member.
                if time.monotonic() + pause_s >= end:
                    self._counters["errors_refused"] += 1
                    return b"-TRYAGAIN the cluster refused the request for %d ms (no leader, or overload); " \
                        b"it was not executed\r\n" % (self._timeout_s * 1000)  # fmt: skip
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)
            except CallTimeout:
                self._counters["errors_timeout"] += 1
                what = b"nothing was changed" if is_a_read else b"it may or may not have been executed"
                return b"-TIMEOUT no answer from the cluster in %d ms: %b\r\n" % (self._timeout_s * 1000, what)
            except SessionExpiredError:
                # So many other sessions were busier: this call may have been among the last of the old one.
                self._client.renew_session()
                self._counters["sessions_renewed"] += 1
                return b"-TIMEOUT the cluster has ended the gateway's session: it may or may not have been executed\r\n"
            except TooManyCalls:
                # One call of the session has waited while many others were made; it ends at its deadline.
                if time.monotonic() + pause_s >= end:
                    self._counters["errors_refused"] += 1
                    return b"-TRYAGAIN the gateway has too many requests on their way; it was not executed\r\n"
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)
            except CallError as error:
                self._counters["errors_other"] += 1
                return b"-ERR %b\r\n" % str(error).replace("\n", " ").encode()
            self._counters["retries"] += 1


def too_large(bytes_count: int) -> bytes:
    """The error for a command that no request carries."""
    return b"-ERR a request of %d bytes; at most %d fit\r\n" % (bytes_count, limits.SESSION_REQUEST_BYTES_MAX)
