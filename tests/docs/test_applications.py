"""docs/applications.md: its code runs, does what the text says, and its wrong example is found out."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from r2p2.app import ApplicationFailed, RequestMachine, StateMachine, state_machine
from r2p2.cluster.status import ask
from r2p2.local import LocalCluster
from r2p2.processes import Supervisor
from r2p2.requests import Requests
from r2p2.serve import READY_PREFIX
from tests.gateway.support import free_udp_ports

TEXT = (Path(__file__).resolve().parent.parent.parent / "docs" / "applications.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What the page's code defines."""
    module = ModuleType("applications_page")
    for block in BLOCKS:
        exec(compile(block, "docs/applications.md", "exec"), module.__dict__)
    return vars(module)


def test_its_own_test_holds(page: dict[str, Any]) -> None:
    page["test_restoring"]()


def test_pieces_of_a_snapshot_tell_of_its_call(page: dict[str, Any]) -> None:
    one, other = page["Lines"](), page["Lines"]()
    replies = one.apply(Requests.of([b"%d" % i for i in range(2500)] + [b"two\nlines"]))
    assert list(replies)[2499:] == [b"2500", b"-ERR ValueError\r\n"]
    pieces = one.snapshot()
    first = next(pieces)
    one.apply(Requests.of([b"later"]))
    other.restore(first + b"".join(pieces))
    assert one.lines == [*other.lines, b"later"]


def test_leases_are_taken_given_and_end_by_the_log_s_time(page: dict[str, Any]) -> None:
    async def main() -> None:
        async with (
            LocalCluster(page["Leases"], size=3) as cluster,
            cluster.client(timeout_s=10, session=True) as client,
        ):
            assert await client.call(b"take door me 60000") == b"yours"
            assert await client.call(b"take door you 1") == b"taken"
            assert await client.call(b"give door me") == b"given"
            assert await client.call(b"take door you 100") == b"yours"
            assert await client.call(b"nonsense") == b"-ERR ValueError\r\n", "an exception is a reply"
            leader = cluster.leader
            assert leader is not None
            app: Any = cluster.nodes[leader].app
            async with asyncio.timeout(10):
                while app.held:  # nobody asks for anything: time goes on by itself
                    await asyncio.sleep(0.01)
            assert await client.call(b"door", policy=3) == b"nobody"

    asyncio.run(main())


def test_the_forms_answer_exceptions_alike() -> None:
    def breaks(request: bytes) -> bytes:
        return b"%d" % (1 // int(request))

    class Breaks(RequestMachine):
        def handle(self, request: bytes, time_ms: int) -> bytes:
            return breaks(request)

    class NoMemory(RequestMachine):
        def handle(self, request: bytes, time_ms: int) -> bytes:
            raise MemoryError if request == b"memory" else ApplicationFailed("the disk is full")

        def query(self, request: bytes) -> bytes:
            raise KeyError(request)

    requests = Requests.of([b"1", b"0", b"x"], time_ms=5)
    expected = [b"1", b"-ERR ZeroDivisionError\r\n", b"-ERR ValueError\r\n"]
    machines: list[StateMachine] = [Breaks(), state_machine(breaks)]
    for machine in machines:
        assert machine.apply(requests) == expected
    with pytest.raises(MemoryError):
        NoMemory().apply(Requests.of([b"memory"]))
    with pytest.raises(ApplicationFailed):
        NoMemory().apply(Requests.of([b"disk"]))
    assert NoMemory().query_safely(b"x") == b"-ERR KeyError\r\n"


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[str]]:
    """Three processes of the page's wrong example, on threads, comparing every 8 entries, from a cluster file."""
    addresses = [f"127.0.0.1:{port}" for port in free_udp_ports(3)]
    (tmp_path / "page.py").write_text("\n\n".join(BLOCKS))
    nodes = "".join(f'[[nodes]]\naddress = "{address}"\n' for address in addresses)
    cluster = '[cluster]\napp = "page:Wrong"\nbackend = "uv"\napply_thread = true\ncheck_determinism = 8\n'
    (tmp_path / "cluster.toml").write_text(cluster + nodes)
    with Supervisor(tmp_path) as supervisor:
        for i in range(3):
            serve = ["-m", "r2p2", "serve", "--config", str(tmp_path / "cluster.toml"), "--node", str(i)]
            environment = {"PYTHONPATH": str(tmp_path), "PYTHONHASHSEED": str(i + 1)}
            process = supervisor.start(f"member{i}", [sys.executable, *serve], environment)
            process.wait_line(lambda line: line.startswith(READY_PREFIX), 30)
        yield addresses


def test_the_wrong_one_is_found_out_by_processes(members: list[str]) -> None:
    from r2p2.client import Client

    async def main() -> None:
        async with Client(*members, timeout_s=20, session=True) as client, asyncio.timeout(60):
            for i in range(64):
                await client.call(b"name %d" % i)
            while True:
                statuses = await asyncio.to_thread(ask, members, 2.0)
                leaders = {status.get("leader") for status in statuses.values()}
                found = [s["determinism"]["differs"] for s in statuses.values() if s["determinism"]["differs"]]
                if len(found) >= 2:
                    break
                await asyncio.sleep(0.02)
            for differs in found:
                assert differs["index"] % 8 == 0
                assert differs["what"] == ["replies"]
                assert differs["other"] in leaders or len(leaders) > 1
            assert all("apply_busy_ms" in status for status in statuses.values())

    asyncio.run(main())
