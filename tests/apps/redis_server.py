"""A real redis-server for a test: on a port of its own, without a disk, ended by its process id."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

import hiredis

ERRORS_AS_TEXT: Final = cast(Callable[[str], Exception], str)
"""For hiredis.Reader, whose stub asks for an exception."""


class RedisConnection:
    """Commands to it, one at a time, and its replies as the bytes it sent. ``path``: of its socket."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(path)

    def raw(self, request: bytes) -> bytes:
        """The bytes of the one reply to ``request``."""
        self._socket.sendall(request)
        return self.read()

    def read(self) -> bytes:
        reader = hiredis.Reader(protocolError=RuntimeError, replyError=ERRORS_AS_TEXT)
        got = b""
        while True:
            piece = self._socket.recv(1 << 20)
            if not piece:
                raise EOFError("redis-server closed the connection")
            got += piece
            reader.feed(piece)
            if reader.gets() is not False:
                return got

    def close(self) -> None:
        self._socket.close()


@contextmanager
def redis_server() -> Iterator[RedisConnection]:
    """Starts one; its end is waited for."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "redis.sock")
        server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if "ready to accept connections" in line.lower():
                    break
            else:
                raise RuntimeError("redis-server ended before it was ready")
            connection = RedisConnection(path)
            try:
                yield connection
            finally:
                connection.close()
        finally:
            server.terminate()
            server.wait(20)
