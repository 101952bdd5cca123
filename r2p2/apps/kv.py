"""A key-value store that speaks RESP, the protocol of Redis, one command a request: GET, SET, DEL, PING.

hiredis parses: a whole batch is fed to it as one stream, which is what makes a request cost about 0.2 us. That is
sound only when every request is exactly one command, so C checks the framing of each first (docs/adr/0004); a batch
with a request that is not goes request by request, and that request alone gets an error.
Leaves to others: Redis's other commands; expiry; TCP clients.
"""

from __future__ import annotations

import hashlib
from array import array
from typing import Any, Final

import hiredis

from r2p2.app import StateMachine
from r2p2.engine import resp_first_broken
from r2p2.requests import Replies, ReplySequence, Requests

__all__ = ["KeyValue", "encode_command"]

OK: Final = b"+OK\r\n"
NIL: Final = b"$-1\r\n"
PONG: Final = b"+PONG\r\n"
_OK_LENGTH: Final = array("I", [len(OK)])


def encode_command(*words: bytes | str | int) -> bytes:
    """A RESP command, ready to be a request's payload: ``encode_command("SET", "k", "v")``."""
    return bytes(hiredis.pack_command(words))  # type: ignore[arg-type]  # the stub asks for one word only


def _bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def _wrong_number(command: bytes) -> bytes:
    return b"-ERR wrong number of arguments for '%b' command\r\n" % command.lower()


class KeyValue(StateMachine):
    """The store: a dict of bytes to bytes."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self._reader = hiredis.Reader()

    # ---- batches ----

    def apply(self, requests: Requests) -> ReplySequence:
        """Executes a batch."""
        if resp_first_broken(requests) != len(requests):
            return [self._apply_one(request) for request in requests]
        self._reader.feed(requests.slab)
        gets, data, count = self._reader.gets, self.data, len(requests)
        # A batch of SETs alone, the common case under load, costs a lookup and nothing for its replies.
        for done in range(count):  # noqa: B007 - where it stopped matters afterwards
            command = gets()
            if len(command) != 3 or command[0] != b"SET":
                break
            data[command[1]] = command[2]
        else:
            return Replies(OK * count, _OK_LENGTH * count)
        replies = [OK] * done
        replies.append(self._execute(command))
        replies.extend(self._execute(gets()) for _ in range(count - done - 1))
        return replies

    def _apply_one(self, request: bytes) -> bytes:
        """One request by itself, whatever its bytes."""
        command = self._parse(request)
        return self._execute(command) if command is not None else b"-ERR Protocol error: not one RESP command\r\n"

    def _parse(self, request: bytes) -> list[bytes] | None:
        """The command, or None: a request that is not one array of bulk strings. Inline commands are words up to a
        line end.
        """
        if resp_first_broken(Requests.of([request])) == 1:
            reader = hiredis.Reader()
            reader.feed(request)
            command: Any = reader.gets()
            return list(command)
        if request.endswith(b"\n") and request[:1].isalpha() and request.count(b"\n") == 1:
            return request.split()
        return None

    # ---- commands ----

    def _execute(self, command: list[bytes]) -> bytes:
        name, arguments = command[0].upper(), command[1:]
        if name == b"GET":
            if len(arguments) != 1:
                return _wrong_number(name)
            value = self.data.get(arguments[0])
            return NIL if value is None else _bulk(value)
        if name == b"SET":
            if len(arguments) < 2:
                return _wrong_number(name)
            if len(arguments) > 2:
                return b"-ERR syntax error\r\n"
            self.data[arguments[0]] = arguments[1]
            return OK
        if name == b"DEL":
            if not arguments:
                return _wrong_number(name)
            return b":%d\r\n" % sum(self.data.pop(key, None) is not None for key in arguments)
        if name == b"PING":
            if len(arguments) > 1:
                return _wrong_number(name)
            return _bulk(arguments[0]) if arguments else PONG
        shown = command[0][:64].decode("ascii", "replace").encode("ascii", "replace")
        return b"-ERR unknown command '%b'\r\n" % shown.replace(b"\r", b" ").replace(b"\n", b" ")

    def query(self, request: bytes) -> bytes:
        """GET and PING from this replica's own state; writes are refused, since only replicated requests may write."""
        command = self._parse(request)
        if command is None:
            return b"-ERR Protocol error: not one RESP command\r\n"
        return self._query(command)

    def query_batch(self, requests: Requests) -> ReplySequence:
        """Answers a group of linearizable reads, parsed as one stream where every request is one command."""
        if resp_first_broken(requests) != len(requests):
            return super().query_batch(requests)
        self._reader.feed(requests.slab)
        gets, get = self._reader.gets, self.data.get
        replies = []
        for _ in range(len(requests)):
            command = gets()
            if len(command) == 2 and command[0] == b"GET":
                value = get(command[1])
                replies.append(NIL if value is None else b"$%d\r\n%b\r\n" % (len(value), value))
            else:
                replies.append(self._query(command))
        return replies

    def _query(self, command: list[bytes]) -> bytes:
        if command[0].upper() in (b"SET", b"DEL"):
            return b"-READONLY send writes with the replicated policy\r\n"
        return self._execute(command)

    def state_digest(self) -> str:
        """SHA-256 over the sorted items, each with its lengths."""
        digest = hashlib.sha256()
        for key in sorted(self.data):
            value = self.data[key]
            digest.update(b"%d %d " % (len(key), len(value)))
            digest.update(key)
            digest.update(value)
        return digest.hexdigest()
