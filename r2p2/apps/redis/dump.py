"""A server's own dump of all it holds, of one moment, while it goes on: BGSAVE.

The server forks; its child writes the dump beside where it belongs and renames it. That a new file stands there is how
it shows from outside, and costs a look at the folder; only now and then the server is asked whether its child has
failed. Asked over a connection of its own: the application's may be with a batch, on another thread.

Where a server makes none in the background (another child of it is at work, no memory for a fork), SAVE makes one at
once, and holds up who waits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from r2p2.apps.redis.link import Link, RedisFailed

__all__ = ["PIECE_BYTES", "Dump", "info_of", "text_of", "write_for_reload"]

log = logging.getLogger("r2p2.apps.redis")

# Of a piece: a tenth of a millisecond's work, its checksums included.
PIECE_BYTES: Final = 64 << 10
# Between two looks at the folder, and between two questions to the server.
_LOOK_NS: Final = 1_000_000
_ASK_NS: Final = 50_000_000
_CHILD_SECONDS: Final = 0.01


def text_of(reply: bytes) -> str:
    """A reply as people read it."""
    return reply.strip().decode(errors="replace")


def info_of(link: Link, section: str) -> dict[str, str]:
    """A section of INFO."""
    lines = link.one("INFO", section).decode(errors="replace").splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines[1:])}


def wait_for_child(link: Link) -> None:
    """Until no dump is being made in the background. Blocks."""
    while info_of(link, "persistence").get("rdb_bgsave_in_progress") == "1":
        time.sleep(_CHILD_SECONDS)


class Dump:
    """Begins one, of this moment.

    Args:
        link: over which it is begun.
        another: makes the connection over which is asked how it goes.
        path: where the server writes it.
        is_ours: the file goes away once it has been opened.

    Raises:
        RedisFailed: the server makes none.
    """

    def __init__(self, link: Link, another: Callable[[], Link], path: Path, *, is_ours: bool) -> None:
        self._another = another
        self._path = path
        self._is_ours = is_ours
        self._before = self._seen()
        reply = link.one("BGSAVE")
        self._is_made = not reply.startswith(b"+")
        if self._is_made:
            log.warning("redis-server makes no dump in the background (%s): this member waits for one", text_of(reply))
            wait_for_child(link)
            reply = link.one("SAVE")
            if not reply.startswith(b"+"):
                raise RedisFailed(f"redis-server makes no dump: {text_of(reply)}", f"Look at {path.parent}.")

    def _seen(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def opened(self) -> Iterator[BinaryIO | None]:
        """None as long as it is being made, then the file, from its beginning.

        Raises:
            RedisFailed: it could not be made, or cannot be read.
        """
        if not self._is_made:
            yield from self._waits()
        try:
            file = self._path.open("rb")
        except OSError as error:
            raise RedisFailed(f"the dump {self._path} cannot be read: {error}", "Allow this user to.") from error
        with file:
            if self._is_ours:
                self._path.unlink(missing_ok=True)
            yield file

    def _waits(self) -> Iterator[None]:
        link = self._another()
        try:
            look_ns, ask_ns = 0, time.monotonic_ns() + _ASK_NS
            while True:
                now_ns = time.monotonic_ns()
                if now_ns >= look_ns:
                    if self._seen() not in (None, self._before):
                        return
                    look_ns = now_ns + _LOOK_NS
                if now_ns >= ask_ns:
                    ask_ns = now_ns + _ASK_NS
                    if not self._goes_on(link):
                        return
                yield None
        finally:
            link.close()

    def _goes_on(self, link: Link) -> bool:
        """Whether the server's child is at work; RedisFailed: it has failed."""
        info = info_of(link, "persistence")
        if info.get("rdb_bgsave_in_progress") == "1":
            return True
        if info.get("rdb_last_bgsave_status") != "ok":
            raise RedisFailed(
                "redis-server's child has made no dump", f"Look at redis-server's log and at {self._path.parent}."
            )
        return False


def write_for_reload(link: Link, path: Path, dump: bytes | memoryview) -> None:
    """Puts a dump where the server reads it, and nobody writes over it: a child that makes another one is ended.

    Raises:
        RedisFailed: it cannot be written.
    """
    if info_of(link, "persistence").get("rdb_bgsave_in_progress") == "1":
        link.one("FLUSHALL")  # which ends it; what is thrown away would be by the reload
        wait_for_child(link)
    try:
        path.write_bytes(dump)
    except OSError as error:
        raise RedisFailed(f"{path} cannot be written: {error}", "Allow this user to.") from error
