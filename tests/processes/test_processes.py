"""Children are read, waited for and killed; none outlives its parent."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from r2p2.errors import UserError
from r2p2.processes import ProcessFailed, Supervisor, cpu_seconds

PYTHON = [sys.executable, "-u", "-c"]
WAIT_FOREVER = "import signal\nprint('ready')\nsignal.pause()"


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with Supervisor(tmp_path / "logs") as running:
        yield running


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"  # ended, its new parent has not looked yet


def wait_gone(pid: int, timeout_seconds: float = 5.0) -> bool:
    end = time.monotonic() + timeout_seconds
    while not is_gone(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_lines_are_waited_for_and_logged(supervisor: Supervisor) -> None:
    child = supervisor.start(
        "talker", [*PYTHON, "print('one'); print('two')\nfor line in iter(input, 'end'): print('<' + line)"]
    )
    assert child.wait_line(lambda line: line.startswith("t"), 5) == "two"
    mark = child.mark()
    child.write_line("two")
    assert child.wait_line(lambda line: "two" in line, 5, after=mark) == "<two"
    child.write_line("end")
    assert child.wait(5) == 0
    assert child.log.read_text() == "one\ntwo\n<two\n"


def test_a_wait_that_fails_says_what_the_child_printed(supervisor: Supervisor) -> None:
    child = supervisor.start("failing", [*PYTHON, "print('the reason'); raise SystemExit(7)"])
    with pytest.raises(ProcessFailed) as failed:
        child.wait_line(lambda line: line == "ready", 5, what="its ready line")
    assert "the reason" in failed.value.message
    assert "exit code 7" in failed.value.message
    assert "its ready line" in failed.value.message
    assert str(child.log) in failed.value.remedy


def test_a_wait_ends_in_time(supervisor: Supervisor) -> None:
    child = supervisor.start("silent", [*PYTHON, WAIT_FOREVER])
    child.wait_line(lambda line: line == "ready", 5)
    began = time.monotonic()
    with pytest.raises(ProcessFailed, match=r"runs\) has not come to it in 0.1 s"):
        child.wait_line(lambda line: line == "never", 0.1)
    assert time.monotonic() - began < 2


def test_kill_is_sigkill(supervisor: Supervisor) -> None:
    child = supervisor.start("victim", [*PYTHON, WAIT_FOREVER])
    child.wait_line(lambda line: line == "ready", 5)
    before = time.monotonic()
    assert before <= child.kill() <= time.monotonic()
    assert child.exit_code == -signal.SIGKILL
    assert child not in supervisor.running
    assert child.cpu_seconds() is None


def test_one_that_ignores_sigterm_is_killed(supervisor: Supervisor) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAIT_FOREVER
    child = supervisor.start("stubborn", [*PYTHON, code])
    child.wait_line(lambda line: line == "ready", 5)
    assert child.terminate(0.1) == -signal.SIGKILL


def test_the_end_of_the_block_ends_every_child(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="in the block"), Supervisor(tmp_path) as supervisor:
        children = [supervisor.start(f"child{i}", [*PYTHON, WAIT_FOREVER]) for i in range(3)]
        for child in children:
            child.wait_line(lambda line: line == "ready", 5)
        raise RuntimeError("in the block")
    assert all(child.exit_code == -signal.SIGTERM for child in children)


@pytest.mark.needs("linux")
def test_a_killed_parent_leaves_no_orphan(supervisor: Supervisor, tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from r2p2.processes import Supervisor
with Supervisor(Path({str(tmp_path)!r})) as inner:
    child = inner.start("grandchild", [sys.executable, "-u", "-c", {WAIT_FOREVER!r}])
    child.wait_line(lambda line: line == "ready", 5)
    print(child.pid)
    child.wait()
"""
    parent = supervisor.start("parent", [*PYTHON, code])
    grandchild = int(parent.wait_line(str.isdigit, 10))
    assert not is_gone(grandchild)
    parent.kill()
    assert wait_gone(grandchild)


def test_a_program_that_is_not_there(supervisor: Supervisor) -> None:
    with pytest.raises(UserError, match="nothing cannot be started"):
        supervisor.start("nothing", ["/nonexistent/program"])


@pytest.mark.needs("linux")
def test_cpu_time_grows_with_work(supervisor: Supervisor) -> None:
    code = "import time\nwhile time.process_time() < 0.3: pass\n" + WAIT_FOREVER
    child = supervisor.start("worker", [*PYTHON, code])
    child.wait_line(lambda line: line == "ready", 20)
    used = child.cpu_seconds()
    assert used is not None
    assert 0.25 <= used <= 5
    assert cpu_seconds(os.getpid()) is not None
    child.kill()
    assert cpu_seconds(child.pid) is None


def test_memory_of_a_chatty_child_is_bounded(supervisor: Supervisor) -> None:
    child = supervisor.start("chatty", [*PYTHON, "for i in range(25000): print(i)"])
    assert child.wait(20) == 0
    assert len(child.lines) == 10_000
    assert child.lines[-1] == "24999"
    assert child.wait_line(lambda line: line == "24998", 1) == "24998"


def test_lines_one_by_one(supervisor: Supervisor) -> None:
    child = supervisor.start("lister", [*PYTHON, "for i in range(3): print(i)"])
    seen, lines = 0, []
    for _ in range(3):
        seen, line = child.next_line(seen, 5)
        lines.append(line)
    assert lines == ["0", "1", "2"]
    with pytest.raises(ProcessFailed, match="ended while waited for: a fourth"):
        child.next_line(seen, 5, what="a fourth")
    with pytest.raises(ProcessFailed, match="ended while waited for: more"):
        child.check_running("more")
