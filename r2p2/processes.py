"""Child processes that a parent can wait for, read and kill, and that never outlive it.

The demo, the benchmarks and the multi-process tests start replicas and a load generator. Each child gets a log file
with all it printed and a reader thread, so that its pipe never fills; the parent waits for lines, not for time to pass.
A child dies with its parent, even when that is killed with SIGKILL (Linux: prctl's parent-death signal), and is in a
process group of its own, so that Ctrl-C reaches the parent alone, which then ends the children in order.

What the children are is not known here.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from r2p2.errors import UserError

__all__ = ["ManagedProcess", "ProcessFailed", "Supervisor", "cpu_seconds", "pin", "resident_bytes"]

LINES_KEPT_MAX = 10_000  # of a child's output in memory; the log file has all of it
TAIL_LINES = 12  # of the log in an error message
TAIL_BYTES = 300  # of each of them
GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL
_PR_SET_PDEATHSIG = 1


class ProcessFailed(UserError):
    """A child ended, or stayed silent, when it should not have; the message carries the last lines it printed."""


def _die_with_parent() -> Callable[[], None] | None:
    """What a child runs between fork and exec: ask for SIGKILL when the parent dies. None where there is no prctl.

    It heeds SIGINT again: a shell has its background jobs, and whatever they start, ignore it.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask


def _shown(lines: list[str]) -> str:
    """The last few, each with its beginning."""
    cut = (line if len(line) <= TAIL_BYTES else f"{line[:TAIL_BYTES]} ..." for line in lines[-TAIL_LINES:])
    return "\n".join(f"    {line}" for line in cut)


def python_module(name: str, *flags: str) -> list[str]:
    """The command that runs a module of *this* installation. Python would look in the working directory first, where a
    clone without compiled modules may lie; ``-P`` keeps it from that.
    """
    try:
        is_here = Path(__file__).resolve().parent.parent == Path.cwd()
    except OSError:  # the working directory has been removed
        is_here = False
    return [sys.executable, *flags, *(() if is_here else ("-P",)), "-m", name]


def cpu_seconds(pid: int) -> float | None:
    """User and system time of a process so far, from /proc; None when it is gone or there is no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may contain anything; fields count from its end. utime and stime are fields 14 and 15.
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int | None:
    """Memory of a process that is in RAM now, from /proc; None when it is gone or there is no /proc."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def pin(pid: int, cpu: int) -> None:
    """Has every thread of a process, and those they start from now on, run on that processor alone.

    UserError when the processor is not there, or not ours to use.
    """
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {cpu})
    except (OSError, AttributeError) as error:
        allowed = ", ".join(map(str, sorted(os.sched_getaffinity(0)))) if hasattr(os, "sched_getaffinity") else "none"
        raise UserError(
            f"process {pid} cannot be pinned to processor {cpu}: {error}", f"Processors that may be used: {allowed}."
        ) from error


class ManagedProcess:
    """One child: its lines, its log, its end.

    Start it from the main thread: the kernel's parent-death signal is tied to the thread that forked.
    """

    def __init__(self, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        """Start `argv`; everything it prints goes to the file `log`. OSError when it cannot be started."""
        self.name = name
        self.log = log
        self._lines: deque[str] = deque(maxlen=LINES_KEPT_MAX)
        self._lines_seen = 0  # all lines so far; self._lines holds the last ones
        self._closed = False  # the child has closed its output
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if env is None else {**os.environ, **env},
            process_group=0,
            preexec_fn=_die_with_parent(),
            text=True,
            errors="replace",
            bufsize=1,
        )
        self._reader = threading.Thread(target=self._read, name=f"read {name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self.log.open("w") as log, self._process.stdout as output:
            for line in output:
                log.write(line)
                log.flush()
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._lines_seen += 1
                    self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        """The child's process id, also after its end."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    @property
    def lines(self) -> list[str]:
        """The last lines it printed, at most 10,000."""
        with self._changed:
            return list(self._lines)

    def tail(self) -> str:
        """Its last few lines, for an error message."""
        return _shown(self.lines)

    def cpu_seconds(self) -> float | None:
        """Processor time used so far; None after its end."""
        return cpu_seconds(self.pid) if self.exit_code is None else None

    def mark(self) -> int:
        """A place in the output, to be given to `wait_line` as `after`: only lines printed from now on."""
        with self._changed:
            return self._lines_seen

    def wait_line(
        self, wanted: Callable[[str], bool], timeout_seconds: float, *, after: int = 0, what: str = ""
    ) -> str:
        """The first line since `after` for which `wanted` is true.

        ProcessFailed when the child ends without one, or when `timeout_seconds` pass; `what` names the wait in it.
        """
        end = time.monotonic() + timeout_seconds
        looked = after
        with self._changed:
            while True:
                first_kept = self._lines_seen - len(self._lines)
                for index in range(max(looked, first_kept), self._lines_seen):
                    line = self._lines[index - first_kept]
                    if wanted(line):
                        return line
                looked = self._lines_seen
                what = what or "a line it was to print"
                if self._closed:
                    raise self._failure(f"ended while waited for: {what}")
                left = end - time.monotonic()
                if left <= 0:
                    raise self._failure(f"has not come to it in {timeout_seconds:g} s: {what}")
                self._changed.wait(left)

    def next_line(self, seen: int, timeout_seconds: float, *, what: str = "") -> tuple[int, str]:
        """The first line after the `seen` ones, and its number, to be given as `seen` the next time.

        ProcessFailed as :meth:`wait_line`. Lines that were dropped from memory are skipped.
        """
        self.wait_line(lambda line: True, timeout_seconds, after=seen, what=what)
        with self._changed:
            index = max(seen, self._lines_seen - len(self._lines))
            return index + 1, self._lines[index - (self._lines_seen - len(self._lines))]

    def check_running(self, what: str) -> None:
        """ProcessFailed with its last lines when it has ended; `what` names what it was needed for."""
        if self._process.poll() is not None:
            self._reader.join(1.0)
            raise self._failure(f"ended while waited for: {what}")

    def _failure(self, text: str) -> ProcessFailed:
        # The end of the output comes a moment before the end of the process.
        try:
            code: int | None = self._process.wait(1.0 if self._closed else 0.0)
        except subprocess.TimeoutExpired:
            code = None
        state = "runs" if code is None else f"exit code {code}"
        shown = _shown(list(self._lines))
        return ProcessFailed(f"{self.name} (pid {self.pid}, {state}) {text}\n{shown}", f"all it printed: {self.log}")

    def write_line(self, line: str) -> None:
        """Send one line to the child's standard input. ProcessFailed when it reads no more."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise self._failure(f"takes no input any more: {line}") from error

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when it has ended."""
        self._process.send_signal(number)

    def kill(self) -> float:
        """SIGKILL, and wait for the end; returns time.monotonic() just before the signal."""
        at = time.monotonic()
        self._process.kill()
        self.wait()
        return at

    def terminate(self, grace_seconds: float = GRACE_SECONDS) -> int:
        """SIGTERM, after `grace_seconds` SIGKILL; returns the exit code. Harmless when it has ended."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self.wait()

    def wait(self, timeout_seconds: float | None = None) -> int:
        """Its exit code, once it has ended and its output is read to the end. ProcessFailed after `timeout_seconds`."""
        try:
            code = self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise self._failure(f"has not ended in {timeout_seconds:g} s") from None
        # A grandchild may hold the pipe; then the rest of its output is not waited for.
        self._reader.join(1.0)
        if self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                # What was not read by the child is lost with it.
                self._process.stdin = None
        return code


class Supervisor:
    """Starts children and, at the end of its `with` block, ends all that still run, the youngest first."""

    def __init__(self, log_folder: Path) -> None:
        """Logs go to `log_folder`/NAME.log; the folder is made."""
        self.log_folder = log_folder
        self._children: list[ManagedProcess] = []
        log_folder.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> ManagedProcess:
        """Start a child under `name`. UserError when the program cannot be started."""
        try:
            child = ManagedProcess(name, argv, self.log_folder / f"{name}.log", env)
        except OSError as error:
            raise UserError(f"{name} cannot be started: {error}") from error
        self._children.append(child)
        return child

    @property
    def running(self) -> list[ManagedProcess]:
        """The children that have not ended."""
        return [child for child in self._children if child.exit_code is None]

    def close(self) -> None:
        """End all children: SIGTERM to all at once, SIGKILL to those that do not heed it in time."""
        for child in reversed(self.running):
            child.signal(signal.SIGTERM)
        end = time.monotonic() + GRACE_SECONDS
        for child in reversed(self._children):
            child.terminate(max(0.1, end - time.monotonic()))

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
