"""Members of a cluster as processes of this machine: started detached, found again by their process ids, ended.

Each has a file with its process id and the moment it began, so that a number the kernel has given to somebody else is
never taken for a member. What it prints goes into a log beside it. Leaves to others: what a member is (``r2p2 serve``).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from r2p2.cluster.config import ClusterFile
from r2p2.errors import UserError
from r2p2.processes import python_module
from r2p2.serve import READY_PREFIX

__all__ = ["Launcher"]

_STEP_S: Final = 0.02
_TAIL_LINES: Final = 12


def _began(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None: there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _is_locked(handle: int) -> bool:
    """Takes the lock of an open folder, for as long as that is open, unless another process has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EINTR)  # a file system without locks has no others to wait for
    return True


class Launcher:
    """The local processes of one cluster.

    Args:
        cluster: its file.
        folder: where process ids and logs are kept.
    """

    def __init__(self, cluster: ClusterFile, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder

    def log(self, slot: int) -> Path:
        """What the member in ``slot`` printed."""
        return self.folder / f"node-{slot}.log"

    def earlier_log(self, slot: int) -> Path:
        """What its launch before this one printed: why it ended, perhaps."""
        return self.folder / f"node-{slot}.log.1"

    @contextlib.contextmanager
    def alone(self, timeout_s: float) -> Iterator[None]:
        """Meanwhile no other command starts or ends members that are kept in this folder.

        Raises:
            UserError: another one is at it, for longer than this may wait.
        """
        try:
            handle = os.open(self.folder, os.O_RDONLY)
        except OSError:  # there is none, so nothing is kept there
            yield
            return
        try:
            end = time.monotonic() + timeout_s
            while not _is_locked(handle):
                if time.monotonic() > end:
                    raise UserError(
                        f"another r2p2 cluster command is at work in {self.folder} since {timeout_s:g} s",
                        "Wait for its end, or give a longer --timeout.",
                    )
                time.sleep(_STEP_S)
            yield
        finally:
            os.close(handle)

    def make_folder(self) -> None:
        """Makes the folder.

        Raises:
            UserError: it cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"no folder {self.folder} can be made: {error.strerror}", "Name another --dir.") from error

    def _pid_file(self, slot: int) -> Path:
        return self.folder / f"node-{slot}.pid"

    def pid(self, slot: int) -> int | None:
        """The process of the member in ``slot``, if it runs."""
        try:
            number, began = self._pid_file(slot).read_text().split()
            pid = int(number)
        except (OSError, ValueError):
            return None
        return pid if _began(pid) == began else None

    def start(self, slot: int, join: Sequence[str] = ()) -> int:
        """Starts a member; :meth:`wait_ready` waits for it. Returns its process id.

        ``join``: members of a running cluster, ``IP:PORT``, which it asks to be let in.

        Raises:
            UserError: it runs already.
        """
        node = self.cluster.node(slot)
        running = self.pid(slot)
        if running is not None:
            raise UserError(f"node {slot} runs already, as process {running}", "r2p2 cluster restart, or down first.")
        self.make_folder()
        try:
            if self.log(slot).exists():
                self.log(slot).replace(self.earlier_log(slot))
            with self.log(slot).open("ab") as log:  # to its end, also when it is cut meanwhile
                argv = [*python_module("r2p2", "-u"), "serve"]
                process = subprocess.Popen(
                    [
                        *argv,
                        *("--config", str(self.cluster.path.resolve()), "--node", str(node.slot)),
                        *(("--join", ",".join(join)) if join else ()),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C in this terminal is not meant for it
                )
            try:
                self._pid_file(slot).write_text(f"{process.pid} {_began(process.pid)}\n")
            except BaseException:  # nobody would find it again
                process.kill()
                process.wait()
                raise
        except OSError as error:
            raise UserError(f"node {slot} cannot be started: {error}") from error
        return process.pid

    def wait_ready(self, slot: int, timeout_s: float) -> None:
        """Until the member says that it serves.

        Raises:
            UserError: it ended, or took longer; with what it printed last.
        """
        end = time.monotonic() + timeout_s
        while True:
            ended = self.pid(slot) is None
            try:
                printed = self.log(slot).read_text(errors="replace")
            except OSError as error:
                raise UserError(f"node {slot}: what it prints cannot be read: {error}") from error
            if any(line.startswith(READY_PREFIX) for line in printed.splitlines()) and not ended:
                return
            if ended or time.monotonic() > end:
                what = "ended" if ended else f"is not ready after {timeout_s:g} s"
                tail = "\n".join(f"    {line}" for line in printed.splitlines()[-_TAIL_LINES:])
                raise UserError(f"node {slot} {what}\n{tail}", f"all it printed: {self.log(slot)}")
            time.sleep(_STEP_S)

    def signal(self, slot: int, number: signal.Signals) -> bool:
        """Sends a signal; whether there was somebody to get it.

        Raises:
            UserError: it is another user's process.
        """
        pid = self.pid(slot)
        if pid is None:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        except PermissionError as error:
            raise UserError(
                f"node {slot} is process {pid} of another user", "Ask as the user who started the cluster, or as root."
            ) from error
        return True

    def wait_ended(self, slots: list[int], timeout_s: float) -> list[int]:
        """Waits for the ends of members; those that have not ended in time."""
        end = time.monotonic() + timeout_s
        while left := [slot for slot in slots if self.pid(slot) is not None]:
            if time.monotonic() > end:
                break
            time.sleep(_STEP_S)
        return left

    def stop(self, slots: list[int], timeout_s: float) -> None:
        """SIGTERM, and SIGKILL to those that do not heed it in time.

        Raises:
            UserError: one does not even end then, or is another user's.
        """
        for slot in slots:
            self.signal(slot, signal.SIGTERM)
        for slot in self.wait_ended(slots, timeout_s):
            self.signal(slot, signal.SIGKILL)
        left = self.wait_ended(slots, timeout_s)
        if left:
            raise UserError(f"nodes {left} do not end")
        for slot in slots:
            with contextlib.suppress(OSError):  # what it says is nobody's process any more
                self._pid_file(slot).unlink()
