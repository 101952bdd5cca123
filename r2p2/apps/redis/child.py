"""The redis-server of a replica: a child of this process, or one that runs already.

A child listens on a unix socket in a private folder and on no network, writes nothing to disk by itself, and ends with
this process, even when that is killed. One that runs already is taken as it is, after a look at what would make
replicas differ. Leaves to others: the commands it gets.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import hiredis

from r2p2 import limits
from r2p2.apps.redis.dump import Dump, info_of, text_of, write_for_reload
from r2p2.apps.redis.link import Link, RedisFailed
from r2p2.errors import UserError
from r2p2.processes import ManagedProcess, ProcessFailed

__all__ = ["Server", "Settings"]

_FOLDER_PREFIX: Final = "r2p2-redis-"
_SUN_PATH_BYTES_MAX: Final = 107  # unix(7)
_START_SECONDS: Final = 30.0
_END_SECONDS: Final = 5.0
_VERSION_MIN: Final = 7
_DUMP: Final = "dump.rdb"
# Nothing on disk, no eviction, and DEBUG for the reload of a snapshot and for the digest.
_SETTINGS: Final = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "no",
    "databases": "1",
    "appendonly": "no",
    "save": "",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
    "enable-debug-command": "local",
    "loglevel": "notice",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Which redis-server.

    Attributes:
        attach: a unix socket's path or ``HOST:PORT`` of one that runs already; "": start one.
        program: what is started.
        arguments: more of its arguments, the same on every member.
        flush: one that runs already may hold data, which is thrown away.
    """

    attach: str = ""
    program: str = "redis-server"
    arguments: tuple[str, ...] = ()
    flush: bool = False

    @classmethod
    def from_environment(cls) -> Settings:
        """From R2P2_REDIS_ATTACH, R2P2_REDIS_SERVER, R2P2_REDIS_ARGUMENTS and R2P2_REDIS_FLUSH.

        Raises:
            UserError: one of them is wrong; the message names it.
        """
        flush = os.environ.get("R2P2_REDIS_FLUSH", "")
        if flush not in ("", "yes"):
            raise UserError(f"R2P2_REDIS_FLUSH is {flush!r}, neither empty nor yes")
        try:
            arguments = tuple(shlex.split(os.environ.get("R2P2_REDIS_ARGUMENTS", "")))
        except ValueError as error:
            raise UserError(f"R2P2_REDIS_ARGUMENTS cannot be parted into words: {error}") from error
        return cls(
            os.environ.get("R2P2_REDIS_ATTACH", ""),
            os.environ.get("R2P2_REDIS_SERVER", "redis-server"),
            arguments,
            flush == "yes",
        )


class Server:
    """The running server.

    Attributes:
        link: the connection.
        link3: another, whose replies have RESP3's form. Both wait for their replies, so what one is sent is executed
            before what the other is sent next.
        version: as it says.
        dump_path: where a dump is written and a reload reads.
    """

    def __init__(self, settings: Settings) -> None:
        self._process: ManagedProcess | None = None
        self._folder: Path | None = None
        try:
            self._address = address = _attached(settings.attach) if settings.attach else self._start(settings)
            self.link = Link(address, limits.REDIS_SILENCE_SECONDS)
            try:
                self._look(settings)
                self.link3 = Link(address, limits.REDIS_SILENCE_SECONDS, protocol=3)
            except BaseException:
                self.link.close()
                raise
        except BaseException:
            self._end()
            raise

    @property
    def pid(self) -> int | None:
        """Of the child; None: it was there already."""
        return None if self._process is None else self._process.pid

    def why(self, failed: RedisFailed) -> RedisFailed:
        """The failure, with what the child said last."""
        if self._process is None:
            return failed
        with suppress(ProcessFailed):  # it may run still: then it was its answer that is the failure
            self._process.wait(1.0)
        code = self._process.exit_code
        state = "runs" if code is None else f"has ended with exit code {code}"
        return RedisFailed(
            f"{failed.message}; redis-server (pid {self._process.pid}) {state}\n{self._process.tail()}", failed.remedy
        )

    def save(self) -> Dump:
        """Begins the server's own dump of all it holds."""
        return Dump(
            self.link,
            lambda: Link(self._address, limits.REDIS_SILENCE_SECONDS),
            self.dump_path,
            is_ours=self._process is not None,
        )

    def load(self, dump: bytes | memoryview) -> None:
        """Has the server hold what is in a dump, and nothing else."""
        write_for_reload(self.link, self.dump_path, dump)
        reply = self.link.one("DEBUG", "RELOAD", "NOSAVE")
        if self._process is not None:
            self.dump_path.unlink(missing_ok=True)
        if not reply.startswith(b"+"):
            raise RedisFailed(f"redis-server does not load the dump: {text_of(reply)}", "Run one version everywhere.")

    def close(self) -> None:
        """Ends the child; one that was there already goes on. Idempotent."""
        self.link.close()
        self.link3.close()
        self._end()

    # ---- the start ----

    def _start(self, settings: Settings) -> str:
        _sweep_folders()
        folder = self._folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER_PREFIX}{os.getpid()}-"))
        path = str(folder / "redis.sock")
        if len(os.fsencode(path)) > _SUN_PATH_BYTES_MAX:
            folder.rmdir()
            raise UserError(
                f"the socket {path} has a name of more than {_SUN_PATH_BYTES_MAX} bytes", "Set TMPDIR to a shorter one."
            )
        argv = [settings.program, "--unixsocket", path, "--dir", str(folder), "--dbfilename", _DUMP]
        argv += [word for name, value in _SETTINGS.items() for word in (f"--{name}", value)]
        argv += settings.arguments
        try:
            self._process = ManagedProcess("redis-server", argv, folder / "redis.log")
            self._process.wait_line(lambda line: "ready to accept connections" in line.lower(), _START_SECONDS)
        except OSError as error:
            raise UserError(
                f"{settings.program} cannot be started: {error.strerror}",
                "Install Redis 7 or later (apt install redis-server), or name it in R2P2_REDIS_SERVER.",
            ) from error
        return path

    def _look(self, settings: Settings) -> None:
        """Raises UserError: the server is none that replicas may have."""
        link = self.link
        info = info_of(link, "server")
        self.version = info.get("redis_version", "0")
        if not self.version.partition(".")[0].isdigit() or int(self.version.partition(".")[0]) < _VERSION_MIN:
            raise UserError(f"redis-server is version {self.version}", f"Version {_VERSION_MIN} or later is needed.")
        if link.one("DEBUG", "DIGEST").startswith(b"-"):
            raise UserError(
                "the redis-server does not allow DEBUG, which is needed to load a snapshot",
                "Start it with enable-debug-command local.",
            )
        config = _pairs(link, "CONFIG", "GET", "dir", "dbfilename", "maxmemory-policy", "maxmemory")
        self.dump_path = Path(config["dir"]) / config["dbfilename"]
        if config["maxmemory"] != "0" and config["maxmemory-policy"] != "noeviction":
            raise UserError(
                f"the redis-server evicts keys ({config['maxmemory-policy']}), and each would evict others",
                "Start it with maxmemory-policy noeviction.",
            )
        if info_of(link, "replication").get("role") != "master":
            raise UserError("the redis-server is a replica of another", "Attach to one that is not.")
        if link.one("DBSIZE") != b":0\r\n" and not settings.flush:
            raise UserError(
                f"the redis-server at {settings.attach} holds data, and a member begins empty",
                "Have it thrown away with R2P2_REDIS_FLUSH=yes; docs/redis.md says how to bring data into a cluster.",
            )
        link.one("FLUSHALL")

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate(_END_SECONDS)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _attached(text: str) -> str | tuple[str, int]:
    if "/" in text:
        return text
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(
            f"R2P2_REDIS_ATTACH is {text!r}, neither a unix socket's path nor HOST:PORT",
            "For example /run/redis/redis.sock, or 127.0.0.1:6379.",
        )
    return host, int(port)


def _sweep_folders() -> None:
    """Removes the folders of processes that were killed: their pid stands in the name and is nobody's."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*-*"):
        pid = folder.name.removeprefix(_FOLDER_PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)


def parse(reply: bytes) -> Any:
    """A reply as Python has it."""
    reader = hiredis.Reader()
    reader.feed(reply)
    return reader.gets()


def _pairs(link: Link, *words: str) -> dict[str, str]:
    reply = link.one(*words)
    if not reply.startswith(b"*"):
        raise UserError(f"the redis-server does not answer {' '.join(words[:2])}: {text_of(reply)}")
    items = [item.decode() for item in parse(reply)]
    return dict(zip(items[::2], items[1::2], strict=True))
