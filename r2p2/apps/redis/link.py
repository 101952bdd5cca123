"""The connection to a redis-server: bytes out in one write, replies in as the bytes they are.

Replies are not parsed, only parted. One kind is looked at: an error that speaks of this server and not of the data (it
is out of memory, it is loading, it takes no writes). The other replicas' servers do not say so, hence this one must not
go on. Leaves to others: which commands are sent.
"""

from __future__ import annotations

import socket
from typing import Final

from r2p2.app import ApplicationFailed

__all__ = ["Link", "RedisFailed"]

_RECEIVE_BYTES: Final = 1 << 20
_LINE_END: Final = b"\r\n"
_MINUS: Final = b"-"[0]
_BYTES: Final = frozenset(b"$=!")  # a length, then so many bytes
# Those that hold others, and how many for each that they count.
_SEVERAL: Final = {kind: count for kinds, count in ((b"*~>", 1), (b"%", 2)) for kind in kinds}
# First words of errors that a server owes to its own condition.
_OWN_TROUBLE: Final = frozenset(
    b"OOM MISCONF LOADING BUSY READONLY MASTERDOWN NOAUTH NOPERM NOREPLICAS CLUSTERDOWN MOVED ASK TRYAGAIN CROSSSLOT "
    b"UNKILLABLE".split()
)


class RedisFailed(ApplicationFailed):
    """This replica's redis-server has ended, is silent, or cannot do what the others' can: the member ends."""


class Link:
    """One connection; blocking, since the next batch waits for this one anyway.

    Args:
        address: a unix socket's path, or (host, port).
        timeout_s: without a byte from the server, after which it is given up.
        protocol: 2 or 3, the form of replies.
    """

    def __init__(self, address: str | tuple[str, int], timeout_s: float, protocol: int = 2) -> None:
        self._timeout_s = timeout_s
        try:
            if isinstance(address, str):
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.settimeout(timeout_s)
                self._socket.connect(address)
            else:
                self._socket = socket.create_connection(address, timeout_s)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise RedisFailed(f"no redis-server at {address}: {error}", "Start it, or correct its address.") from error
        self._buffer = bytearray()
        self._at = 0  # where the reply at hand begins
        self._seen, self._wanted = 0, 1  # behind it, how far it was looked through, and replies still to come in it
        if protocol != 2:
            self.one("HELLO", protocol)

    def ask(self, payload: bytes, count: int) -> list[bytes]:
        """Sends commands and reads ``count`` replies, each as its bytes.

        Raises:
            RedisFailed: the connection broke, or a reply tells of the server's own trouble.
        """
        try:
            self._socket.sendall(payload)
            return [self._reply() for _ in range(count)]
        except TimeoutError as error:
            raise RedisFailed(
                f"this replica's redis-server has not answered for {self._timeout_s:g} s",
                "Look at its log, then start this member again: the others bring it up.",
            ) from error
        except OSError as error:
            raise RedisFailed(
                f"this replica's redis-server has closed the connection: {error}",
                "Look at its log, then start this member again: the others bring it up.",
            ) from error

    def one(self, *words: bytes | str | int) -> bytes:
        """The reply to one command."""
        return self.ask(encode(*words), 1)[0]

    def close(self) -> None:
        """Closes. Idempotent."""
        self._socket.close()

    def _more(self) -> None:
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        piece = self._socket.recv(_RECEIVE_BYTES)
        if not piece:
            raise ConnectionError("end of the stream")
        self._buffer += piece

    def _reply(self) -> bytes:
        while (end := self._end()) < 0:
            self._more()
        reply = bytes(self._buffer[self._at : end])
        self._at = end
        self._seen, self._wanted = 0, 1
        if reply[0] == _MINUS:
            self._look_at(reply)
        return reply

    def _end(self) -> int:
        """Where the reply at hand ends; below 0: it is not all here."""
        buffer, at, wanted = self._buffer, self._at + self._seen, self._wanted
        size = len(buffer)
        while wanted:
            self._seen, self._wanted = at - self._at, wanted
            line_end = buffer.find(_LINE_END, at)
            if line_end < 0:
                return -1
            kind = buffer[at]
            if kind in _BYTES:
                length = int(buffer[at + 1 : line_end])
                at = line_end + 2 + (length + 2 if length >= 0 else 0)
                if at > size:
                    return -1
            elif kind in _SEVERAL:
                wanted += _SEVERAL[kind] * max(int(buffer[at + 1 : line_end]), 0)
                at = line_end + 2
            else:
                at = line_end + 2
            wanted -= 1
        return at

    def _look_at(self, reply: bytes) -> None:
        if reply[1:].split(b" ", 1)[0] in _OWN_TROUBLE:
            raise RedisFailed(
                f"this replica's redis-server cannot do what the others' can: {reply[1:-2].decode(errors='replace')}",
                "Mend its cause (docs/redis.md), then start this member again: the others bring it up.",
            )


def encode(*words: bytes | str | int) -> bytes:
    """A command as RESP."""
    out = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word if isinstance(word, bytes) else str(word).encode()
        out.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(out)
