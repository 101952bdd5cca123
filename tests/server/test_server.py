"""Services: every form of handler, refusals, bounds, drains; over the in-memory network and over sockets."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r2p2 import (
    DROP,
    BlockingClient,
    CallDropped,
    CallError,
    CallTimeout,
    Client,
    LocalCluster,
    LocalServer,
    NoRoute,
    PollClient,
    Replies,
    Requests,
    RequestTooLarge,
    TooManyCalls,
)
from r2p2.address import format_ip, parse_address
from r2p2.apps.synthetic import Spin, Stss, stss_request
from r2p2.driver import Pollable
from r2p2.engine import DONE_DROPPED, DONE_OK
from r2p2.errors import ReplyCountError, UserError
from r2p2.memory import MemoryNetwork
from r2p2.ports import OpenPort, PortSpec, drive, open_port, start_driver
from r2p2.requests import SpecialReply
from r2p2.server import AnsweredTwiceError, Deferred, Server, ServerConfig, Service
from tests.engine.support import SERVER, Caller


def wait_for(done: Callable[[], bool], *pollables: Pollable) -> None:
    """Polls until it is done; ten seconds at most."""
    end = time.monotonic() + 10
    while not done():
        assert time.monotonic() < end, "ten seconds are over"
        for pollable in pollables:
            pollable.poll_once()


class Pair:
    """A server of a service and a caller, in memory."""

    def __init__(self, service: Service, config: ServerConfig | None = None) -> None:
        self.network = MemoryNetwork(1, packets_max=4096)
        self.server = Server(service, self.network.open(*SERVER), config)
        self.caller = Caller(self.network)
        self.tag = 0

    def ask(self, payload: bytes, policy: int = 1) -> tuple[int, bytes] | None:
        self.tag += 1
        self.caller.call(self.tag, payload, policy=policy)
        self.run()
        return self.caller.ended.get(self.tag)

    def run(self) -> None:
        self.network.run([self.server, self.caller], 100_000)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()
        self.caller.engine.close()
        self.network.close()


def test_handlers_by_policy() -> None:
    service = Service()

    @service.handler(0)
    def any_server(request: bytes) -> bytes:
        return b"0 " + request

    @service.handler(1)
    def this_server(request: bytes) -> bytes:
        return b"1 " + request

    with Pair(service) as pair:
        assert pair.ask(b"x", policy=0) == (DONE_OK, b"0 x")
        assert pair.ask(b"x", policy=1) == (DONE_OK, b"1 x")
        assert pair.ask(b"x", policy=2) == (DONE_DROPPED, b"")


def test_requests_of_one_policy_come_as_a_batch() -> None:
    service, seen = Service(), []

    @service.batch_handler(0)
    def batch(requests: Requests) -> list[bytes]:
        seen.append(list(requests))
        return [b"batch " + request for request in requests]

    @service.handler(1)
    def one(request: bytes) -> bytes:
        return b"one " + request

    def ask(*calls: tuple[bytes, int]) -> list[tuple[int, bytes]]:
        tags = range(pair.tag + 1, pair.tag + 1 + len(calls))
        for tag, (payload, policy) in zip(tags, calls, strict=True):
            pair.caller.call(tag, payload, policy=policy)
        pair.tag = tags[-1]
        pair.run()
        return [pair.caller.ended[tag] for tag in tags]

    with Pair(service) as pair:
        assert ask((b"a", 0), (b"b", 0)) == [(DONE_OK, b"batch a"), (DONE_OK, b"batch b")]
        assert seen == [[b"a", b"b"]]
        assert ask((b"a", 1), (b"b", 1)) == [(DONE_OK, b"one a"), (DONE_OK, b"one b")]
        mixed = ask((b"a", 0), (b"b", 1), (b"c", 0))
        assert mixed == [(DONE_OK, b"batch a"), (DONE_OK, b"one b"), (DONE_OK, b"batch c")]


def test_a_batch_of_one_is_answered_as_a_whole_one_is() -> None:
    """Beside requests of another policy a batch handler gets its own one at a time."""
    service, answers = (
        Service(),
        iter([Replies.pack([DROP]), Replies.pack([b"laid out"]), iter([b"one"]), [b"1", b"2"]]),
    )
    service.batch_handler(0)(lambda requests: next(answers))
    service.handler(1)(bytes.upper)
    with Pair(service) as pair:
        for expected in ((DONE_DROPPED, b""), (DONE_OK, b"laid out"), (DONE_OK, b"one")):
            pair.caller.call(2 * pair.tag, b"a", policy=0)
            pair.caller.call(2 * pair.tag + 1, b"b", policy=1)
            pair.run()
            assert pair.caller.ended[2 * pair.tag] == expected
            assert pair.caller.ended[2 * pair.tag + 1] == (DONE_OK, b"B")
            pair.tag += 1
        pair.caller.call(100, b"a", policy=0)
        pair.caller.call(101, b"b", policy=1)
        with pytest.raises(ReplyCountError, match="the application gave 2 replies to 1 requests"):
            pair.run()


def test_a_policy_without_a_handler_is_refused() -> None:
    service = Service()
    service.handler(0)(bytes.upper)
    with Pair(service) as pair:
        assert pair.ask(b"x", policy=1) == (DONE_DROPPED, b"")
        assert pair.server.counters["drops_no_handler"] == 1


def test_one_request_refused_and_failing() -> None:
    service = Service()

    @service.handler()
    def moody(request: bytes) -> bytes | SpecialReply:
        if request == b"no":
            return DROP
        return b"%d" % (100 // int(request))

    with Pair(service) as pair:
        assert pair.ask(b"4") == (DONE_OK, b"25")
        assert pair.ask(b"no") == (DONE_DROPPED, b"")
        assert pair.ask(b"0") == (DONE_OK, b"-ERR ZeroDivisionError\r\n")
        assert pair.server.counters["handler_errors"] == 1


RETURNED = {
    b"nothing": None,
    b"text": "text",
    b"large": bytes(371_857),
    b"no": DROP,
    b"bytearray": bytearray(b"ok"),
    b"ok": b"ok",
}
ANSWERED = {
    b"nothing": (DONE_OK, b"-ERR TypeError\r\n"),
    b"text": (DONE_OK, b"-ERR TypeError\r\n"),
    b"large": (DONE_OK, b"-ERR ReplyTooLarge\r\n"),
    b"no": (DONE_DROPPED, b""),
    b"bytearray": (DONE_OK, b"ok"),
    b"ok": (DONE_OK, b"ok"),
}


def test_what_is_no_reply_is_an_error_of_that_request_and_the_server_goes_on() -> None:
    service = Service()
    service.handler()(RETURNED.__getitem__)
    with Pair(service) as pair:
        assert {request: pair.ask(request) for request in RETURNED} == ANSWERED
        assert pair.server.counters["handler_errors"] == 3


@pytest.mark.parametrize("policies", [(), (0, 1), (1,)])
def test_what_is_no_reply_of_a_batch_is_an_error_and_the_server_goes_on(policies: tuple[int, ...]) -> None:
    service = Service()
    service.batch_handler(*policies)(lambda requests: [RETURNED[request] for request in requests])
    with Pair(service) as pair:
        assert {request: pair.ask(request) for request in RETURNED} == ANSWERED


def test_a_coroutine_whose_result_is_no_reply_is_answered_and_over() -> None:
    service = Service()

    @service.handler()
    async def returned(request: bytes) -> object:
        await asyncio.sleep(0)
        return RETURNED[request]

    async def ask_all(pair: Pair) -> dict[bytes, tuple[int, bytes] | None]:
        answers = {}
        for request in RETURNED:
            pair.ask(request)
            await asyncio.sleep(0.01)
            pair.run()
            answers[request] = pair.caller.ended.get(pair.tag)
        return answers

    with Pair(service) as pair:
        assert asyncio.run(ask_all(pair)) == ANSWERED
        assert pair.server.deferred_count == 0


def test_a_handler_that_fails_after_its_answer_does_not_end_the_server() -> None:
    service = Service()

    @service.deferred_handler()
    def hasty(request: bytes, deferred: Deferred) -> None:
        deferred.reply(request)
        raise ValueError

    with Pair(service) as pair:
        assert [pair.ask(b"a"), pair.ask(b"b")] == [(DONE_OK, b"a"), (DONE_OK, b"b")]
        assert pair.server.counters["handler_errors"] == 2
        assert pair.server.deferred_count == 0


def test_a_batch_handler_sees_batches() -> None:
    service = Service()
    sizes = []

    @service.batch_handler()
    def reverse(requests: Requests) -> list[bytes]:
        sizes.append(len(requests))
        return [request[::-1] for request in requests]

    with Pair(service) as pair:
        for tag in range(100, 120):
            pair.caller.call(tag, b"ab%d" % tag)
        pair.run()
        assert len(pair.caller.ended) == 20
        assert max(sizes) > 1


def test_deferred_replies_in_any_order_once_each_and_bounded() -> None:
    service = Service()
    kept: dict[bytes, Deferred] = {}

    @service.deferred_handler()
    def keep(request: bytes, deferred: Deferred) -> None:
        if request == b"broken":
            raise ValueError
        kept[request] = deferred

    with Pair(service, ServerConfig(deferred_max=3)) as pair:
        assert pair.ask(b"a") is None
        assert pair.ask(b"b") is None
        assert pair.ask(b"broken") == (DONE_OK, b"-ERR ValueError\r\n")
        assert pair.ask(b"c") is None
        assert pair.ask(b"one too many") == (DONE_DROPPED, b"")
        assert pair.server.counters["drops_deferred_full"] == 1
        kept[b"b"].reply(b"B")
        kept[b"a"].drop()
        pair.run()
        assert pair.caller.ended[2] == (DONE_OK, b"B")
        assert pair.caller.ended[1] == (DONE_DROPPED, b"")
        with pytest.raises(AnsweredTwiceError):
            kept[b"b"].reply(b"again")
        assert pair.server.deferred_count == 1


@pytest.mark.parametrize("wrong", [None, "text", bytearray(b"x"), 5])
def test_what_is_no_reply_leaves_a_deferred_request_open(wrong: Any) -> None:
    service, kept = Service(), []
    service.deferred_handler()(lambda request, deferred: kept.append(deferred))
    with Pair(service) as pair:
        assert pair.ask(b"a") is None
        with pytest.raises(TypeError, match=f"a reply is bytes, not {type(wrong).__name__}"):
            kept[0].reply(wrong)
        assert not kept[0].is_answered
        kept[0].reply(b"A")
        pair.run()
        assert pair.caller.ended == {1: (DONE_OK, b"A")}


def test_a_drain_refuses_what_is_new_and_finishes_what_is_old() -> None:
    service = Service()
    kept: list[Deferred] = []
    service.deferred_handler()(lambda request, deferred: kept.append(deferred))
    with Pair(service) as pair:
        assert pair.ask(b"old") is None
        pair.server.drain()
        assert not pair.server.drained
        assert pair.ask(b"new") == (DONE_DROPPED, b"")
        kept[0].reply(b"done")
        pair.run()
        assert pair.caller.ended[1] == (DONE_OK, b"done")
        assert pair.server.drained


def test_closing_refuses_what_is_still_at_work() -> None:
    service = Service()
    kept: list[Deferred] = []
    service.deferred_handler(0)(lambda request, deferred: kept.append(deferred))
    failed: list[object] = []

    @service.handler(1)
    async def for_ever(request: bytes) -> bytes:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if request == b"b":
                raise
        return b"too late"

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
        with Pair(service) as pair:
            assert [pair.ask(b"a", 0), pair.ask(b"b", 1), pair.ask(b"c", 0), pair.ask(b"d", 1)] == [None] * 4
            kept[1].reply(b"C")
            await asyncio.sleep(0)
            pair.server.close()
            pair.server.close()
            pair.network.run([pair.caller], 100_000)
            dropped = (DONE_DROPPED, b"")
            assert pair.caller.ended == {1: dropped, 2: dropped, 3: (DONE_OK, b"C"), 4: dropped}
            assert pair.server.deferred_count == 0
            with pytest.raises(AnsweredTwiceError):
                kept[0].reply(b"late")
            await asyncio.sleep(0.01)

    asyncio.run(main())
    gc.collect()
    assert failed == []


def test_what_a_service_cannot_do_is_said_at_once() -> None:
    with pytest.raises(UserError, match="policy 2"):
        Service().handler(2)
    for decorator in (Service().handler, Service().batch_handler, Service().deferred_handler):
        with pytest.raises(UserError, match=r"got the function upper itself \(Write it with \(\)"):
            decorator(bytes.upper)  # type: ignore[arg-type]
    with MemoryNetwork() as network, pytest.raises(UserError, match="no handlers"):
        Server(Service(), network.open(*SERVER))


@pytest.mark.parametrize(
    ("app", "request_", "reply"),
    [
        (Spin(), b"1000", b"1000"),
        (Spin(), b"soon", b"-ERR bad request\r\n"),
        (Spin(), b"9999999999", b"-ERR bad request\r\n"),
        (Stss(), stss_request(1000, 5000, 100), bytes(5000)),
        (Stss(), b"short", b"-ERR bad request\r\n"),
        (Stss(), stss_request(0, 371_833), b"-ERR bad request\r\n"),
    ],
)
def test_synthetic_services(app: Spin | Stss, request_: bytes, reply: bytes) -> None:
    assert app.query(request_) == reply
    replies = app.apply(Requests.of([request_, request_]))
    assert isinstance(replies, list)
    assert replies == [reply, reply]


# ---- over sockets ----


def address_of(port: OpenPort) -> str:
    return f"127.0.0.1:{port.local_port}"


def test_coroutines_answer_side_by_side() -> None:
    service = Service()
    both = asyncio.Event()
    waiting = []

    @service.handler()
    async def meet(request: bytes) -> bytes:
        waiting.append(request)
        if len(waiting) == 2:
            both.set()
        await both.wait()
        if request == b"bad":
            raise KeyError(request)
        return request * 2

    async def main() -> None:
        with open_port(PortSpec("uv", "127.0.0.1")) as port:
            server = Server(service, port.address, keep=port)
            driver = start_driver(server, port)
            server.wake = driver.wake
            async with Client(address_of(port), bind="127.0.0.1") as client:
                replies = await client.call_many([b"x", b"bad"], policy=1)
            assert replies == [b"xx", b"-ERR KeyError\r\n"]
            driver.stop()
            server.close()

    asyncio.run(main())


def test_stop_drains_then_ends() -> None:
    service = Service()
    stop = threading.Event()

    @service.handler()
    async def slow(request: bytes) -> bytes:
        stop.set()
        await asyncio.sleep(0.1)
        return b"finished"

    with open_port(PortSpec("uv", "127.0.0.1")) as port:
        server = Server(service, port.address, keep=port)
        thread = threading.Thread(
            target=drive, args=(port, server, stop), kwargs={"drainable": server, "drain_seconds": 5}
        )
        thread.start()

        async def main() -> bytes:
            async with Client(address_of(port), bind="127.0.0.1") as client:
                return await client.call(b"x", policy=1, timeout_s=5)

        assert asyncio.run(main()) == b"finished"
        thread.join(10)
        assert not thread.is_alive()
        server.close()


def test_a_clients_failures_are_told_apart() -> None:
    async def main() -> None:
        async with Client("127.0.0.1:1", bind="127.0.0.1", timeout_s=0.05) as client:
            with pytest.raises(CallTimeout, match=r"no answer from 127\.0\.0\.1:1 after"):
                await client.call(b"x")
            with pytest.raises(RequestTooLarge):
                await client.call(bytes(370_407))
            with pytest.raises(NoRoute):
                await client.call(b"x", target="255.255.255.255:9")
            call = asyncio.ensure_future(client.call(b"x", timeout_s=5))
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(main())


def test_more_calls_than_rids_need_more_ports() -> None:
    """70,000 calls wait at once: two local ports do it, one says that it cannot."""

    async def main(ports_count: int) -> int:
        async with Client("127.0.0.1:1", bind="127.0.0.1", timeout_s=30, ports_count=ports_count) as client:
            calls = [asyncio.ensure_future(client.call(b"x")) for _ in range(70_000)]
            await asyncio.sleep(0)
            failed = sum(call.done() and isinstance(call.exception(), TooManyCalls) for call in calls)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            return failed

    assert asyncio.run(main(2)) == 0
    assert asyncio.run(main(1)) == 70_000 - 65_535


def test_a_local_cluster_goes_on_without_its_leader() -> None:
    async def main() -> None:
        async with LocalCluster(Spin, size=3) as cluster, cluster.client(timeout_s=0.3) as client:
            assert await client.call(b"10") == b"10"
            leader = cluster.leader
            assert leader is not None
            cluster.stop_member(leader)
            for _ in range(20):
                try:
                    assert await client.call(b"20") == b"20"
                    break
                except (CallTimeout, CallDropped):
                    continue
            else:
                raise AssertionError("no answer after the leader was stopped")

    asyncio.run(main())


def test_addresses() -> None:
    assert format_ip(0x7F000001) == "127.0.0.1"
    for text in ("[::1]:8000", "::1", "10.0.0.1:80:80"):
        with pytest.raises(UserError, match="is no IPv4 address with a port"):
            parse_address(text)
    with pytest.raises(TypeError, match=r"an address is text, as in '127\.0\.0\.1:8000', not int"):
        Client(8000)  # type: ignore[arg-type]


def test_a_local_server_that_cannot_begin_leaves_nothing_open() -> None:
    service = Service()

    async def main() -> None:
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(UserError, match="the service has no handlers"):
            await LocalServer(service).__aenter__()
        service.handler()(bytes.upper)
        with pytest.raises(UserError, match="'localhost' is not an IPv4 address"):
            await LocalServer(service, ip="localhost").__aenter__()
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    asyncio.run(main())


@pytest.mark.parametrize("backend", ["uv", "portable"])
def test_a_poll_mode_client_is_called_back(backend: str) -> None:
    """Server and client polled by one loop, over each kernel backend."""
    service = Service()
    service.handler()(bytes.upper)
    with open_port(PortSpec(backend, "127.0.0.1")) as there, open_port(PortSpec(backend, "127.0.0.1")) as here:
        server, client = Server(service, there.address, keep=there), PollClient(here)
        got: dict[str, bytes | CallError] = {}

        def again(reply: bytes | CallError) -> None:
            got["first"] = reply
            client.call(address_of(there), b"second" * 1000, lambda second: got.update(second=second))

        client.call(address_of(there), b"first", again)
        client.call("127.0.0.1:1", b"x", lambda error: got.update(nobody=error), timeout_s=0.03)
        while client.waiting_count:
            client.poll_once()
            server.poll_once()
        assert got["first"] == b"FIRST"
        assert got["second"] == b"SECOND" * 1000
        assert isinstance(got["nobody"], CallTimeout)
        client.close()
        server.close()


def test_a_callback_that_raises_costs_the_others_nothing_and_one_may_close() -> None:
    service = Service()
    service.handler()(bytes.upper)
    with open_port(PortSpec("uv", "127.0.0.1")) as there, open_port(PortSpec("uv", "127.0.0.1")) as here:
        server, client = Server(service, there.address, keep=there), PollClient(here)
        got: list[object] = []

        def broken(reply: bytes | CallError) -> None:
            got.append(reply)
            raise RuntimeError("of the caller")

        def closing(reply: bytes | CallError) -> None:
            got.append(reply)
            client.close()

        for callback in (broken, got.append, closing, got.append):
            client.call(address_of(there), b"x", callback)
        raised = 0
        for _ in range(200):
            try:
                client.poll_once()
            except RuntimeError:
                raised += 1
            server.poll_once()
            if not client.waiting_count:
                break
            time.sleep(0.005)  # all answers come at once
        assert (got, raised) == ([b"X"] * 3, 1)
        server.close()


def test_a_late_answer_to_who_had_the_port_before_goes_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    service, kept = Service(), []

    @service.deferred_handler()
    def later(request: bytes, deferred: Deferred) -> None:
        kept.append((deferred, request))

    drawn = iter((40_000, 50_000))
    monkeypatch.setattr("r2p2.client.secrets.randbits", lambda bits: next(drawn))
    with open_port(PortSpec("uv", "127.0.0.1")) as port, open_port(PortSpec("uv", "127.0.0.1")) as clients_port:
        server = Server(service, port.address, keep=port)
        replies: list[bytes | CallError] = []
        clients: list[PollClient] = []
        for number in range(2):
            client = PollClient(clients_port)
            client.call(f"127.0.0.1:{port.local_port}", b"%d" % number, replies.append, timeout_s=10)
            clients.append(client)
            wait_for(lambda: len(kept) == len(clients), client, server)
            if number == 0:
                client.close()
        for deferred, request in kept:
            deferred.reply(request)
        wait_for(lambda: bool(replies), client, server)
        assert replies == [b"1"]
        client.close()
        server.close()


# ---- what no call can be made with ----

WRONG_CALLS = [
    ({"payload": "text"}, TypeError, "a payload is bytes, not str"),
    ({"payload": bytearray(b"x")}, TypeError, "a payload is bytes, not bytearray"),
    ({"payload": None}, TypeError, "a payload is bytes, not NoneType"),
    ({"timeout_s": float("inf")}, ValueError, "timeout_s is inf"),
    ({"timeout_s": float("nan")}, ValueError, "timeout_s is nan"),
    ({"timeout_s": 1e12}, ValueError, "both below a million seconds"),
    ({"timeout_s": 0}, ValueError, "timeout_s is 0"),
    ({"retry_s": -1.0}, ValueError, "retry_s is -1.0"),
    ({"policy": 7}, ValueError, r"policy is 7, not 0\.\.3"),
    ({"policy": -1}, ValueError, r"policy is -1, not 0\.\.3"),
]


@pytest.mark.parametrize(("wrong", "error", "text"), WRONG_CALLS, ids=lambda value: str(value)[:40])
def test_what_no_call_can_be_made_with_is_said_in_the_callers_words(
    wrong: dict[str, Any], error: type[Exception], text: str
) -> None:
    call = {"payload": b"x"} | wrong

    async def main() -> None:
        async with Client("127.0.0.1:9") as client:
            with pytest.raises(error, match=text):
                await client.call(**call)
            if "retry_s" not in wrong and "policy" not in wrong:
                async with Client("127.0.0.1:9", session=True) as in_session:
                    with pytest.raises(error, match=text):
                        await in_session.call(**call)

    asyncio.run(main())
    with BlockingClient() as blocking, pytest.raises(error, match=text):
        blocking.call("127.0.0.1:9", **call)
    with open_port(PortSpec("uv", "127.0.0.1", 0)) as port:
        client = PollClient(port)
        with pytest.raises(error, match=text):
            client.call("127.0.0.1:9", callback=print, **call)
        client.close()


def test_a_client_that_is_not_open_says_so() -> None:
    async def main() -> None:
        client = Client("127.0.0.1:9", session=True)
        with pytest.raises(ValueError, match="this client is not open: async with"):
            await client.call(b"x")
        async with client:
            pass
        for policy in (1, 2, 3):
            with pytest.raises(ValueError, match="this client is closed"):
                await client.call(b"x", policy=policy)

    asyncio.run(main())
    with BlockingClient() as blocking:
        session = blocking.session("127.0.0.1:9")
    with pytest.raises(ValueError, match="this client is closed"):
        blocking.call("127.0.0.1:9", b"x")
    with pytest.raises(ValueError, match="this client is closed"):
        session.call(b"x")
    with open_port(PortSpec("uv", "127.0.0.1", 0)) as port:
        client = PollClient(port)
        poll_session = client.session("127.0.0.1:9")
        client.close()
        with pytest.raises(ValueError, match="this client is closed"):
            client.call("127.0.0.1:9", b"x", print)
        with pytest.raises(ValueError, match="this client is closed"):
            poll_session.call(b"x", print)
