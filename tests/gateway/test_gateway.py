"""The gateway with a cluster behind it, in one event loop: order, transactions, failures, bounds, its end."""

from __future__ import annotations

import asyncio
import random
import socket

import hiredis
import pytest

from r2p2 import limits
from r2p2.apps.kv import encode_command
from r2p2.errors import UserError
from r2p2.gateway import Gateway, GatewayConfig
from tests.apps.redis_server import ERRORS_AS_TEXT, redis_server
from tests.gateway.support import REPLY_SECONDS, Raw, gateway_of


def parsed_all(data: bytes) -> list[object]:
    reader = hiredis.Reader(replyError=ERRORS_AS_TEXT)
    reader.feed(data)
    return [reader.gets()]


def test_a_pipeline_is_answered_in_order_and_goes_in_few_requests() -> None:
    async def main() -> None:
        async with gateway_of() as (_, gateway):
            client = await Raw.open(gateway)
            commands = [encode_command("INCR", "n") for _ in range(500)] + [encode_command("GET", "n")]
            replies = await client.ask(b"".join(commands), 501)
            assert replies == [*range(1, 501), b"500"]
            assert gateway.counters["pipelines"] <= 3
            assert gateway.counters["commands"] == 501

    asyncio.run(main())


def test_random_pipelines_answer_as_one_command_at_a_time_would() -> None:
    """Reads and writes of one client are executed in its order although reads do not go through the log."""

    async def main() -> None:
        chance = random.Random(7)
        async with gateway_of(3) as (_, gateway):
            client = await Raw.open(gateway)
            model: dict[str, int] = {}
            for _ in range(60):
                sent: list[bytes] = []
                expected: list[object] = []
                for _ in range(chance.randrange(1, 30)):
                    key = chance.choice("abc")
                    if chance.random() < 0.5:
                        model[key] = model.get(key, 0) + 1
                        sent.append(encode_command("INCR", key))
                        expected.append(model[key])
                    else:
                        sent.append(encode_command("GET", key))
                        expected.append(str(model[key]).encode() if key in model else None)
                assert await client.ask(b"".join(sent), len(sent)) == expected

    asyncio.run(main())


def test_errors_stand_in_their_place() -> None:
    async def main() -> None:
        async with gateway_of() as (_, gateway):
            client = await Raw.open(gateway)
            text = b"SET k v\r\nINCR k\r\nFLY high\r\nGET\r\nECHO hi\r\nSELECT 1\r\nGET k\r\n"
            assert await client.ask(text, 7) == [
                b"OK",
                "ERR value is not an integer or out of range",
                "ERR unknown command 'FLY', with args beginning with: 'high' ",
                "ERR wrong number of arguments for 'get' command",
                b"hi",
                "ERR DB index is out of range",
                b"v",
            ]

    asyncio.run(main())


def test_a_broken_protocol_is_answered_after_what_came_before_and_cut_off() -> None:
    async def main() -> None:
        async with gateway_of() as (_, gateway):
            client = await Raw.open(gateway)
            assert await client.ask(encode_command("SET", "k", "v") + b"*1\r\n$x\r\n", 2) == [
                b"OK",
                "ERR Protocol error: invalid bulk length",
            ]
            assert await client.is_closed()
            assert gateway.counters["errors_protocol"] == 1

    asyncio.run(main())


def test_resp3_differs_in_nil_alone() -> None:
    async def main() -> None:
        async with gateway_of() as (_, gateway):
            client = await Raw.open(gateway)
            (greeting,) = await client.ask(b"HELLO 3\r\n")
            assert isinstance(greeting, dict) and greeting[b"proto"] == 3
            tricky = b"$-1\r\n*-1\r\n"
            await client.ask(encode_command("SET", "k", tricky))
            client.writer.write(encode_command("MGET", "none", "k", "none") + encode_command("GET", "none"))
            expected = b"*3\r\n_\r\n$%d\r\n%b\r\n_\r\n_\r\n" % (len(tricky), tricky)
            assert await client.read_exactly(len(expected)) == expected
            assert await client.ask(b"HELLO 4\r\nHELLO x\r\n", 2) == [
                "NOPROTO unsupported protocol version",
                "ERR Protocol version is not an integer or out of range",
            ]

    asyncio.run(main())


def test_large_values_pass_and_larger_ones_are_refused_without_harm() -> None:
    async def main() -> None:
        async with gateway_of() as (_, gateway):
            client = await Raw.open(gateway)
            large = b"\r\n" * 185_000
            sets = [encode_command("SET", f"k{i}", large) for i in range(4)]
            assert await client.ask(b"".join(sets), 4) == [b"OK"] * 4
            gets = [encode_command("GET", f"k{i}") for i in range(4)]
            # No response carries two of them: the pipeline goes on where it stopped.
            assert await client.ask(b"".join(gets), 4) == [large] * 4
            (refused,) = await client.ask(encode_command("SET", "k", b"x" * 400_000))
            assert str(refused).startswith("ERR a request of 4000")
            (refused,) = await client.ask(encode_command("SET", "k", b"x" * (limits.REQUEST_BYTES_MAX - 20)))
            assert str(refused).startswith("ERR a request of 3704")
            assert await client.ask(encode_command("EXISTS", "k")) == [0]

    asyncio.run(main())


def test_transactions() -> None:
    async def main() -> None:
        async with gateway_of() as (_, gateway):
            one, two = await Raw.open(gateway), await Raw.open(gateway)
            assert await one.ask(b"MULTI\r\nINCR n\r\nGET n\r\nEXEC\r\n", 4) == [b"OK", b"QUEUED", b"QUEUED", [1, b"1"]]
            # A write by another, even of the same value, has the transaction fail.
            await one.ask(b"WATCH n\r\n")
            await two.ask(b"SET n 1\r\n")
            assert await one.ask(b"MULTI\r\nINCR n\r\nEXEC\r\n", 3) == [b"OK", b"QUEUED", None]
            await one.ask(b"WATCH n other\r\n")
            assert await one.ask(b"MULTI\r\nINCR n\r\nEXEC\r\n", 3) == [b"OK", b"QUEUED", [2]]
            await one.ask(b"WATCH n\r\nSET n 5\r\nUNWATCH\r\n", 3)
            assert await one.ask(b"MULTI\r\nGET n\r\nEXEC\r\n", 3) == [b"OK", b"QUEUED", [b"5"]]
            await one.ask(b"MULTI\r\nSET n 9\r\nDISCARD\r\n", 3)
            assert await one.ask(b"GET n\r\nMULTI\r\nEXEC\r\n", 3) == [b"5", b"OK", []]
            assert (await one.ask(b"MULTI\r\nFLY\r\nSET n 9\r\nEXEC\r\n", 4))[3] == (
                "EXECABORT Transaction discarded because of previous errors."
            )
            assert await one.ask(b"EXEC\r\nDISCARD\r\nMULTI\r\nMULTI\r\nWATCH a\r\nEXEC\r\n", 6) == [
                "ERR EXEC without MULTI",
                "ERR DISCARD without MULTI",
                b"OK",
                "ERR MULTI calls can not be nested",
                "ERR WATCH inside MULTI is not allowed",
                [],
            ]
            assert await one.ask(b"MULTI\r\nSET a 1\r\nINCR a\r\nAPPEND a x\r\nINCR a\r\nEXEC\r\n", 6) == [
                b"OK",
                *[b"QUEUED"] * 4,
                [b"OK", 2, 2, "ERR value is not an integer or out of range"],
            ]

    asyncio.run(main())


CONNECTIONS = [
    "CLIENT SETNAME me|RESET|CLIENT GETNAME",
    "RESET x|CLIENT ID x|CLIENT GETNAME x|CLIENT SETNAME|CLIENT SETNAME a b|CLIENT NONE|CLIENT|COMMAND COUNT x",
    "HELLO 2 SETNAME me|HELLO 2 SETNAME {space}|CLIENT GETNAME|CLIENT SETNAME {space}|CLIENT GETNAME",
    "MULTI|SET a 1|EXEC x|GET a|EXEC",
    "MULTI|SET a 1|DISCARD x|GET a|EXEC|GET a",
    "MULTI|MULTI x|SET a 1|EXEC|GET a",
    "WATCH a|MULTI|EXEC x|SET a 2|MULTI|GET a|EXEC",
    "MULTI|RESET x|SET a 1|EXEC|MULTI|SET a 1|RESET|EXEC|GET a",
]


ODD = [
    b"\n",
    b"PING\n",
    b"PING\r\n\r\nPING\r\n",
    b"*0\r\n*-1\r\n*-5\r\n",
    b"*1\r\n$-1\r\nPING\r\n",
    b"*1\r\n$0\r\n\r\n",
    b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$0\r\n\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n",
    b"*1\r\n*1\r\n$4\r\nPING\r\n",
    b"*-1\r\n",
    b"*2147483648\r\n",
    b"*99999999999999999999\r\n",
    b"*1\r\n$536870913\r\n",
    b"*a\r\n",
    b"*\r\n",
    b"*+1\r\n",
    b"*1\r\n:1\r\n",
    b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n",
    b"*1\r\n$4\r\nPI\0G\r\n",
    b'GET "\\x41\\n"\r\n',
    b"GET 'a\r\n",
    b"SET \xff\xfe \x80\r\nGET \xff\xfe\r\n",
    encode_command("SET", b"\0\r\n\xff", b"\r\n\0\r\n"),
    encode_command("GET", b"\0\r\n\xff"),
    b"A" * 70_000,
    b"*" + b"1" * 70_000,
    b"%1\r\n",
    b"~1\r\n",
    b"_\r\n",
    b"+PING\r\n",
    b"$4\r\nPING\r\n",
    b"PING a b\r\n",
    b"ping\tx\r\n",
    b"MULTI\r\nPING\r\n*1\r\n$-1\r\n",
    b"QUIT\r\nPING\r\n",
    b"MULTI\r\nGET\r\nEXEC\r\n",
    b"SET a\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET a 1\r\n",
    b"Host: x\r\nSET a 1\r\n",
    b"EXISTS a\r\n",
]


@pytest.mark.needs("redis")
def test_odd_bytes_are_answered_as_by_redis_to_the_last() -> None:
    """What comes back until the connection is closed, or until an ECHO behind them is answered."""
    end = b"\r\nECHO the-end\r\n"

    def of_redis(path: str, data: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(REPLY_SECONDS)
            client.connect(path)
            client.sendall(data + end)
            got = b""
            while b"the-end\r\n" not in got and (piece := client.recv(1 << 16)):
                got += piece
            return got

    async def of_gateway(gateway: Gateway, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(data + end)
        got = b""
        async with asyncio.timeout(REPLY_SECONDS):
            while b"the-end\r\n" not in got and (piece := await reader.read(1 << 16)):
                got += piece
        writer.close()
        return got

    async def main() -> None:
        with redis_server() as redis:
            async with gateway_of() as (_, gateway):
                for data in ODD:
                    assert await of_gateway(gateway, data) == of_redis(redis.path, data), data[:40]

    asyncio.run(main())


FIRST_WORDS = {
    # What clients send when they connect, and what the answer must be for them to go on.
    "CLIENT SETINFO LIB-NAME redis-py": b"OK",
    "CLIENT SETINFO LIB-VER 5.0": b"OK",
    "CLIENT SETINFO LIB-NOT x": "ERR Unrecognized option 'LIB-NOT'",
    "CLIENT NO-EVICT ON": b"OK",
    "CLIENT NO-TOUCH off": b"OK",
    "CLIENT NO-EVICT maybe": "ERR syntax error",
    "CLIENT REPLY ON": b"OK",
    "CLIENT REPLY SKIP": "ERR this gateway answers every command: CLIENT REPLY is ON",
    "CLIENT TRACKING OFF": b"OK",
    "CLIENT TRACKING ON": "ERR this gateway does not tell clients what others change: CLIENT TRACKING is not there",
    "CLIENT GETREDIR": -1,
    "CLIENT MAINT_NOTIFICATIONS ON": "ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.",
    "CLUSTER SLOTS": "ERR This instance has cluster support disabled",
    "CLUSTER": "ERR wrong number of arguments for 'cluster' command",
    "READONLY": "ERR This instance has cluster support disabled",
    "ROLE": [b"master", 0, []],
    "SELECT 0": b"OK",
    "AUTH default any": b"OK",
    "AUTH me any": "WRONGPASS invalid username-password pair or user is disabled.",
    "HELLO 2 AUTH me any": "WRONGPASS invalid username-password pair or user is disabled.",
    "CONFIG GET": "ERR wrong number of arguments for 'config|get' command",
    "CONFIG GET maxmemory-policy": [b"maxmemory-policy", b"noeviction"],
    "CONFIG GET notify-keyspace-events": [b"notify-keyspace-events", b""],
    "INFO replication": b"# Replication\r\nrole:master\r\nconnected_slaves:0\r\n",
    "INFO persistence": b"# Persistence\r\nloading:0\r\n",
    "INFO keyspace": b"# Keyspace\r\n",
}


def test_what_clients_send_when_they_connect() -> None:
    async def main() -> None:
        async with gateway_of() as (_, gateway):
            client = await Raw.open(gateway)
            for text, expected in FIRST_WORDS.items():
                assert await client.ask(encode_command(*text.split())) == [expected], text
            (shown,) = await client.ask(b"CLIENT INFO\r\n")
            assert b" lib-name=redis-py lib-ver=5.0\n" in bytes(shown)  # type: ignore[call-overload]
            (greeting,) = await client.ask(b"HELLO 3 AUTH default any SETNAME me\r\n")
            assert isinstance(greeting, dict) and greeting[b"proto"] == 3
            assert await client.ask(b"CLIENT GETNAME\r\nCOMMAND DOCS\r\nROLE\r\n", 3) == [b"me", {}, [b"master", 0, []]]

    asyncio.run(main())


@pytest.mark.needs("redis")
def test_connections_and_broken_transactions_are_answered_as_by_redis() -> None:
    async def main() -> None:
        async with gateway_of() as (_, gateway):
            for line in CONNECTIONS:
                client = await Raw.open(gateway)
                await client.ask(b"FLUSHALL\r\n")
                with redis_server() as redis:
                    for text in line.split("|"):
                        command = encode_command(*(word.format(space="a b\nc") for word in text.split()))
                        (expected,), (got,) = parsed_all(redis.raw(command)), await client.ask(command)
                        is_greeting = isinstance(got, list) and b"proto" in got
                        assert is_greeting or text == "CLIENT ID" or got == expected, (line, text)

    asyncio.run(main())


def test_what_a_gateway_answers_itself_may_not_stand_in_a_transaction_and_watches_are_bounded() -> None:
    async def main() -> None:
        async with gateway_of() as (_, gateway):
            client = await Raw.open(gateway)
            assert await client.ask(b"MULTI\r\nSELECT 0\r\nCLIENT ID\r\nEXEC\r\n", 4) == [
                b"OK",
                "ERR SELECT is not allowed between MULTI and EXEC",
                "ERR CLIENT is not allowed between MULTI and EXEC",
                "EXECABORT Transaction discarded because of previous errors.",
            ]
            # What is watched goes with the transaction, in one request.
            keys = [b"%d" % i + b"k" * 100_000 for i in range(4)]
            for key in keys[:3] * 2:
                assert await client.ask(encode_command("WATCH", key)) == [b"OK"]
            (refused,) = await client.ask(encode_command("WATCH", keys[3]))
            assert refused == "ERR the keys that are watched fit in a request of 370382 bytes"
            assert await client.ask(b"UNWATCH\r\n" + encode_command("WATCH", keys[3]), 2) == [b"OK"] * 2

    asyncio.run(main())


def test_a_member_stopped_is_gone_around_and_nothing_acknowledged_is_lost() -> None:
    async def main() -> None:
        async with gateway_of(3, timeout_s=1.0) as (cluster, gateway):
            client = await Raw.open(gateway)
            leader = cluster.leader
            assert leader is not None
            assert await client.ask(b"INCR n\r\n") == [1]
            cluster.stop_member(leader)
            acknowledged = 1
            async with asyncio.timeout(30):
                while acknowledged < 5:
                    (reply,) = await client.ask(b"INCR n\r\n")
                    if isinstance(reply, int):
                        acknowledged += 1
                    else:
                        assert str(reply).startswith(("TIMEOUT no answer from", "TRYAGAIN the cluster refused"))
            (value,) = await client.ask(b"GET n\r\n")
            assert isinstance(value, bytes) and int(value) >= acknowledged

    asyncio.run(main())


def test_a_cluster_that_is_gone_is_told_in_time() -> None:
    async def main() -> None:
        async with Gateway(GatewayConfig(["127.0.0.1:1"], port=0, timeout_s=0.2)) as gateway:
            client = await Raw.open(gateway)
            assert await client.ask(b"SET k v\r\nGET k\r\nPING\r\n", 3) == [
                *["TIMEOUT no answer from the cluster in 200 ms: it may or may not have been executed"] * 2,
                b"PONG",
            ]
            assert await client.ask(b"GET k\r\n") == [
                "TIMEOUT no answer from the cluster in 200 ms: nothing was changed"
            ]

    asyncio.run(main())


def test_a_client_that_does_not_read_is_not_read_from() -> None:
    async def main() -> None:
        async with gateway_of() as (_, gateway):
            client = await Raw.open(gateway)
            value = b"x" * 100_000
            await client.ask(encode_command("SET", "k", value))
            get = encode_command("GET", "k")
            count = 0
            async with asyncio.timeout(60):
                while not gateway.counters["paused"]:
                    client.writer.write(get * 2000)
                    count += 2000
                    await asyncio.sleep(0)
            (connection,) = gateway._connections
            assert connection._queue_bytes <= 2 * limits.GATEWAY_QUEUE_BYTES_MAX
            assert connection._transport is not None
            assert connection._transport.get_write_buffer_size() <= 2 * limits.MESSAGE_BYTES_MAX
            # It reads at last, and gets every reply.
            for _ in range(300):
                assert await client.reply() == value
            client.writer.transport.abort()

    asyncio.run(main())


def test_many_clients_and_one_too_many() -> None:
    async def main() -> None:
        async with gateway_of(clients_max=100) as (_, gateway):
            clients = [await Raw.open(gateway) for _ in range(100)]
            replies = await asyncio.gather(*(client.ask(b"INCR n\r\n") for client in clients))
            assert sorted(reply[0] for reply in replies) == list(range(1, 101))  # type: ignore[type-var]
            extra = await Raw.open(gateway)
            assert await extra.reply() == "ERR max number of clients reached"
            assert await extra.is_closed()
            assert await clients[0].ask(b"QUIT\r\n") == [b"OK"]
            assert await clients[0].is_closed()
            async with asyncio.timeout(10):
                while gateway.connections_count == 100:
                    await asyncio.sleep(0)
            assert await (await Raw.open(gateway)).ask(b"PING\r\n") == [b"PONG"]

    asyncio.run(main())


def test_what_is_under_way_is_answered_at_the_end() -> None:
    async def main() -> None:
        async with gateway_of() as (_, gateway):
            client = await Raw.open(gateway)
            client.writer.write(encode_command("SET", "k", "v") * 50)
            async with asyncio.timeout(10):
                while not gateway.counters["commands"]:
                    await asyncio.sleep(0)
            await gateway.__aexit__(None, None, None)
            assert [await client.reply() for _ in range(50)] == [b"OK"] * 50
            assert await client.is_closed()
            await gateway.__aenter__()

    asyncio.run(main())


def test_an_address_in_use_is_a_users_error() -> None:
    async def main() -> None:
        async with gateway_of() as (_, gateway):
            with pytest.raises(UserError, match=r"cannot listen on 127\.0\.0\.1"):
                await Gateway(GatewayConfig(["127.0.0.1:1"], port=gateway.port)).__aenter__()

    asyncio.run(main())
