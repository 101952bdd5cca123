"""How clients and their sessions end: closed, closed twice, forgotten, never made, and in a forked child."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from r2p2 import (
    REPLICATED_READ,
    BlockingClient,
    CallCancelled,
    CallTimeout,
    Client,
    LocalServer,
    Node,
    NodeConfig,
    NoRoute,
    PollClient,
    PortSpec,
    Server,
    Service,
    UserError,
    open_port,
)
from r2p2.apps.echo import Echo
from r2p2.limits import CLIENT_SESSIONS_MAX
from r2p2.router import Router, RouterConfig
from r2p2.server import AnsweredTwiceError

NOBODY = "127.0.0.1:9"
SEVENTEEN = tuple(f"127.0.0.1:{9000 + i}" for i in range(17))


def descriptors_count() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: BlockingClient(trusted=["nonsense"]), UserError, "'nonsense' has no port"),
        (lambda: BlockingClient(trusted=SEVENTEEN), ValueError, "trusted: 17 servers; at most 16"),
        (lambda: Client(*SEVENTEEN, session=True), ValueError, "a session with 17 servers; at most 16"),
        (lambda: Client(NOBODY, ports_count=0), ValueError, "ports_count is 0, not at least 1"),
    ],
)
def test_a_client_that_cannot_be_made_says_why_and_leaves_nothing_open(
    make: Callable[[], object], error: type[Exception], words: str
) -> None:
    before = descriptors_count()
    with pytest.raises(error, match=words):
        make()
    assert descriptors_count() == before


def test_a_client_whose_engine_fails_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    before = descriptors_count()
    monkeypatch.setattr("r2p2.client.Engine.client_open", fails)
    with pytest.raises(MemoryError):
        BlockingClient()
    gc.collect()  # what is ignored in a destructor is an error of this test
    assert descriptors_count() == before


def test_a_client_that_is_forgotten_is_closed_with_a_warning() -> None:
    before = descriptors_count()
    for make in (BlockingClient, lambda: Client(NOBODY)):
        with pytest.warns(ResourceWarning, match="unclosed"):
            make()
            gc.collect()
    assert descriptors_count() == before


def test_a_session_that_is_closed_twice_leaves_the_next_one_alone() -> None:
    with BlockingClient() as client:
        session = client.session(NOBODY)
        session.close()
        other = client.session(NOBODY)  # with the number of the first one
        session.close()
        with pytest.raises(CallTimeout):
            other.call(b"x", timeout_s=0.01)
        uses: list[Callable[[], object]] = [
            lambda: session.call(b"x"),
            session.renew,
            lambda: session.is_expired,
            lambda: session.client_id,
        ]
        for use in uses:
            with pytest.raises(ValueError, match="this session is closed"):
                use()


def test_the_sessions_of_a_client_are_bounded() -> None:
    with BlockingClient() as client:
        for _ in range(CLIENT_SESSIONS_MAX):
            session = client.session(NOBODY)
        with pytest.raises(UserError, match="a client has at most 16,384 sessions"):
            client.session(NOBODY)
        session.close()
        client.session(NOBODY)


def test_what_is_asked_of_a_closed_client_is_refused_in_words() -> None:
    with BlockingClient() as client:
        session = client.session(NOBODY)
    with open_port(PortSpec("uv", "127.0.0.1")) as port:
        poller = PollClient(port)
        poller.close()
        uses: list[Callable[[], object]] = [
            lambda: session.is_expired,
            lambda: session.client_id,
            session.renew,
            lambda: client.session(NOBODY),
            poller.poll_once,
            poller.now_ns,
            lambda: poller.session(NOBODY),
        ]
        for use in uses:
            with pytest.raises(ValueError, match="this client is closed"):
                use()
        session.close()
        poller.close()


def test_a_port_that_is_closed_first_closes_what_is_over_it() -> None:
    """Nothing goes on with its memory: that was a crash, of close() too."""
    service, kept = Service(), []
    service.deferred_handler()(lambda request, deferred: kept.append(deferred))
    with open_port(PortSpec("uv", "127.0.0.1")) as there, open_port(PortSpec("uv", "127.0.0.1")) as here:
        server, client = Server(service, there.address, keep=there), PollClient(here)
        node = Node(NodeConfig(), there.address, Echo(), keep=there)
        router = Router(RouterConfig(((1, 1),), local_port=1), here.address, keep=here)
        for _ in range(2):
            client.call(f"127.0.0.1:{there.local_port}", b"x", print)
        end = time.monotonic() + 10
        while len(kept) < 2:
            assert time.monotonic() < end
            client.poll_once()
            server.poll_once()
        client.call(NOBODY, b"not sent yet", print)
    for use in (client.poll_once, server.poll_once, node.poll_once):
        with pytest.raises(TypeError):
            use()
    for one in (client, server, node, router):
        one.close()
    with pytest.raises(AnsweredTwiceError):
        kept[0].reply(b"late")


def test_an_address_that_the_local_one_cannot_reach_has_no_route() -> None:
    with (
        BlockingClient("127.0.0.1") as client,
        pytest.raises(NoRoute, match=r"to 192\.0\.2\.77:9( from 127\.0\.0\.1)?: .*; nothing was sent"),
    ):
        client.call("192.0.2.77:9", b"x", timeout_s=0.01)


def test_an_open_client_that_is_closed_ends_its_calls() -> None:
    async def main() -> None:
        async with Client(NOBODY, timeout_s=30) as client:
            call = asyncio.create_task(client.call(b"x"))
            await asyncio.sleep(0.01)
            client.close()
            with pytest.raises(CallCancelled, match="the client was closed"):
                await asyncio.wait_for(call, 5)

    asyncio.run(main())


def test_a_read_that_waits_to_ask_again_ends_with_its_client_as_others_do() -> None:
    service = Service()
    service.handler()(bytes.upper)  # refuses linearizable reads

    async def main() -> None:
        async with LocalServer(service) as server:
            async with Client(server.address, timeout_s=30) as client:
                calls = [asyncio.create_task(client.call(b"x", policy=REPLICATED_READ)) for _ in range(20)]
                await asyncio.sleep(0.05)  # most of them are in a pause of up to 32 ms
            for call in calls:
                with pytest.raises(CallCancelled):
                    await asyncio.wait_for(call, 5)

    asyncio.run(main())


def test_a_client_can_be_closed_after_its_loop_has_ended() -> None:
    async def enter() -> Client:
        return await Client(NOBODY).__aenter__()

    before = descriptors_count()
    client = asyncio.run(enter())
    asyncio.run(client.__aexit__(None, None, None))
    assert descriptors_count() == before


def test_a_forked_child_has_none_of_its_parents_clients() -> None:
    """Parent and child would take each other's answers, and have one number in a session for two requests."""
    with open_port(PortSpec("uv", "127.0.0.1")) as port, BlockingClient() as client:
        poller = PollClient(port)
        sessions = client.session(NOBODY), poller.session(NOBODY)
        uses: list[Callable[[], object]] = [
            lambda: client.call(NOBODY, b"x"),
            lambda: sessions[0].call(b"x"),
            lambda: poller.call(NOBODY, b"x", print),
            lambda: sessions[1].call(b"x", print),
            poller.poll_once,
        ]
        child = os.fork()
        if not child:
            refused = 0
            try:
                for use in uses:
                    try:
                        use()
                    except ValueError as error:
                        refused += "belongs to the process that this one was forked from" in str(error)
                with BlockingClient() as own:
                    try:
                        own.call(NOBODY, b"x", timeout_s=0.01)
                    except CallTimeout:
                        refused += 1
            finally:
                os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == len(uses) + 1
        with pytest.raises(CallTimeout):
            client.call(NOBODY, b"x", timeout_s=0.01)
        poller.close()
