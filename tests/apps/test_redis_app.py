"""A redis-server as the state machine: equal replicas whatever the batches, time by the log, refusals, failures."""

from __future__ import annotations

import os
import random
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import hiredis
import pytest

from r2p2.app import StateMachine
from r2p2.apps.kv import KeyValue, encode_command
from r2p2.apps.redis import RedisServer, Settings
from r2p2.apps.redis.commands import ARITY, READS, REFUSED, WRITES, words_error
from r2p2.apps.redis.link import Link, RedisFailed
from r2p2.errors import UserError
from r2p2.requests import Replies, Requests
from r2p2.torture.mixed import mixed_command
from tests.apps.redis_server import ERRORS_AS_TEXT, redis_server

pytestmark = pytest.mark.needs("redis")

START_MS = 1_700_000_000_000


@pytest.fixture
def app() -> Iterator[RedisServer]:
    with closing(RedisServer()) as app:
        yield app


def parsed(reply: bytes) -> Any:
    reader = hiredis.Reader(replyError=ERRORS_AS_TEXT)
    reader.feed(reply)
    return reader.gets()


def raw(app: StateMachine, *commands: str | list[Any], at_ms: int = 0) -> list[bytes]:
    """The replies to commands in one batch, as bytes."""
    split = [command.split() if isinstance(command, str) else command for command in commands]
    replies = app.apply(Requests.of([encode_command(*words) for words in split], time_ms=START_MS + at_ms))
    if isinstance(replies, Replies):
        ends = [sum(replies.lengths[: i + 1]) for i in range(len(replies.lengths))]
        return [replies.slab[end - length : end] for end, length in zip(ends, replies.lengths, strict=True)]
    assert all(isinstance(reply, bytes) for reply in replies)
    return list(replies)  # type: ignore[arg-type]


def run(app: StateMachine, *commands: str | list[Any], at_ms: int = 0) -> list[Any]:
    return [parsed(reply) for reply in raw(app, *commands, at_ms=at_ms)]


# ---- the table ----


def test_every_command_of_the_server_has_been_decided_on(app: RedisServer) -> None:
    """A Redis with more commands is no failure of ours, but of 7.0 none is left to chance."""
    said = {name.upper(): flags for name, _, flags, *_ in parsed(app.query(encode_command("COMMAND")))}
    if app._server.version.startswith("7.0."):
        assert said.keys() <= WRITES | READS | REFUSED.keys(), said.keys() - WRITES - READS - REFUSED.keys()
    assert not [name for name in READS & said.keys() if "write" in said[name]]
    assert not [name for name in (READS | WRITES) & said.keys() if {"admin", "pubsub"} & set(said[name])]
    # Everything that may write, and is let in, goes through the log.
    assert not [name for name in said if "write" in said[name] and name in READS]


def test_the_counts_of_words_are_the_servers(app: RedisServer) -> None:
    """The gateway holds commands against them before the cluster hears of any; a newer server may take more."""
    said = {}
    for name, arity, *_, subcommands in parsed(app.query(encode_command("COMMAND"))):
        for each, words in ((name, arity), *((sub[0], sub[1]) for sub in subcommands)):
            if name.upper() in WRITES | READS:
                said[each.upper()] = words
    assert {name for name in ARITY if b"|" not in name} == {
        name for name in WRITES | READS if not name.startswith(b"R2P2.")
    }
    if app._server.version.startswith("7.0."):
        assert said == ARITY
    with redis_server() as redis:
        for text in ("GET", "GET a b", "xinfo", "XINFO foo a", "xinfo stream", "Command COUNT x", "COMMAND FOO"):
            assert words_error([word.encode() for word in text.split()]) == redis.raw(encode_command(*text.split()))
        assert words_error([b"XINFO", b"Stream", b"a"]) is words_error([b"ping"]) is None


def test_refused_commands_do_not_reach_redis_and_say_why(app: RedisServer) -> None:
    run(app, "SADD s a b c", "RPUSH l a b")
    before = app.state_digest()
    for name, reason in REFUSED.items():
        (reply,) = run(app, [name, "s", "1"])
        assert reply == f"ERR '{name.decode().lower()}' is refused: {reason.decode()}"
    assert run(app, "spop s", "FLY high", "GET", "XREAD BLOCK 0 STREAMS x 0", "COPY s t DB 1", "HSCAN h 7") == [
        "ERR 'spop' is refused: it draws lots, and every replica would draw its own",
        "ERR unknown command 'FLY', with args beginning with: 'high' ",
        "ERR wrong number of arguments for 'get' command",
        "ERR 'xread' with BLOCK is refused: it waits, and the log cannot",
        "ERR there is one database",
        "ERR invalid cursor",
    ]
    assert app.state_digest() == before
    broken = app.apply(Requests.of([b"GET a\r\n", encode_command("GET", "a"), b"", b"*1\r\n$4\r\nPING\r\n*1"]))
    error = b"-ERR Protocol error: not one RESP command\r\n"
    assert broken == [error, b"$-1\r\n", error, error]


# ---- replicas ----


def batches(rng: random.Random, commands: list[tuple[int, list[Any]]]) -> Iterator[Requests]:
    """The commands in batches that end anywhere, but where the time goes on."""
    at = 0
    while at < len(commands):
        end = at + 1
        limit = at + rng.randrange(1, 40)
        while end < min(limit, len(commands)) and commands[end][0] == commands[at][0]:
            end += 1
        payloads = [encode_command(*words) for _, words in commands[at:end]]
        yield Requests.of(payloads, time_ms=commands[at][0])
        at = end


def test_replicas_with_other_batches_and_one_restored_midway_hold_the_same() -> None:
    rng = random.Random(11)
    now, commands = START_MS, []
    for _ in range(4000):
        now += rng.choice((0, 0, 0, 0, 0, 0, 0, 0, 30, 200))
        commands.append((now, list(mixed_command(rng))))
    half = len(commands) // 2
    with closing(RedisServer()) as one, closing(RedisServer()) as two, closing(RedisServer()) as late:
        assert len({one.pid, two.pid, late.pid}) == 3
        for seed, replica in ((1, one), (2, two)):
            for batch in batches(random.Random(seed), commands[:half]):
                replica.apply(batch)
        assert one.state_digest() == two.state_digest() != late.state_digest()
        run(late, "SET left over", "SET other x EX 1")
        late.restore(b"".join(two.snapshot()))
        assert late.state_digest() == one.state_digest()
        for seed, replica in ((3, one), (4, two), (5, late)):
            for batch in batches(random.Random(seed), commands[half:]):
                replica.apply(batch)
        assert one.state_digest() == two.state_digest() == late.state_digest()
        keys = sorted(parsed(one.query(encode_command("KEYS", "*"))))
        assert len(keys) > 40
        shown = [[replica.query(encode_command("PEXPIRETIME", key)) for key in keys] for replica in (one, two, late)]
        assert shown[0] == shown[1] == shown[2]
        assert len(set(shown[0])) > 1  # some end, some do not
        # Time alone ends them, at the same command everywhere.
        for replica in (one, two, late):
            raw(replica, "PING", at_ms=now - START_MS + 10_000)
        assert one.state_digest() == two.state_digest() == late.state_digest()
        assert len(parsed(one.query(encode_command("KEYS", "*")))) < len(keys)


SORTED = [
    "SORT s BY none_* ALPHA STORE d",
    "SORT z DESC BY none_* LIMIT 0 5 GET # ALPHA STORE d",
    "SORT l BY none_* ALPHA STORE d",
    "SORT s BY none_* STORE d",
    "SORT s BY nosort STORE d",
    "SORT s ALPHA LIMIT 0 5 STORE d",
    "SORT z BY nosort ALPHA STORE d",
    "SORT none BY none_* ALPHA STORE d",
    "SORT s BY none_* ALPHA STORE",
]


def test_what_is_sorted_and_stored_has_one_order_on_all_replicas() -> None:
    """Redis compares nothing but the weights that BY and ALPHA find, so what has the same stands as in its hash table,
    whose order is drawn at the server's start.
    """
    members = [f"m{i}" for i in range(1000)]
    with closing(RedisServer()) as one, closing(RedisServer()) as two:
        answers = []
        for replica in (one, two):
            run(replica, ["SADD", "s", *members], ["RPUSH", "l", *members])
            run(replica, ["ZADD", "z", *(word for i, member in enumerate(members) for word in (i, member))])
            answers.append([[*run(replica, text), replica.state_digest()] for text in SORTED])
        assert answers[0] == answers[1]
        (of_a_set, _), (of_a_sorted_set, _), *others = answers[0]
        assert (
            of_a_set
            == of_a_sorted_set
            == (
                "ERR 'sort' of a set by BY and ALPHA with STORE is refused: "
                "equal weights would leave each replica an order of its own"
            )
        )
        assert [answer for answer, _ in others] == [1000, 1000, 1000, 5, 1000, 0, "ERR syntax error"]


def test_a_snapshot_that_is_damaged_is_not_taken(app: RedisServer) -> None:
    run(app, "SET k v")
    before = app.state_digest()
    good = b"".join(app.snapshot())
    flipped = bytes([*good[:-5], good[-5] ^ 1, *good[-4:]])
    for bad in (b"", b"x" * 100, good[:-1], good + b"x", flipped):
        with pytest.raises(ValueError, match="a snapshot"):
            app.restore(bad)
    assert app.state_digest() == before
    app.restore(good)
    assert app.state_digest() == before


# ---- time ----


def test_keys_end_by_the_logs_time_alone(app: RedisServer) -> None:
    assert run(app, "SET a 1 EX 10", "SET b 1 PX 500", "SETEX c 1 x", "SET d 1", "TTL a", "PTTL b", "TTL d") == [
        *[b"OK"] * 4,
        *(10, 500, -1),
    ]
    assert run(app, "EXISTS a b c d", at_ms=500) == [4]
    assert run(app, "EXISTS a b c d", "DBSIZE", at_ms=501) == [3, 3]
    assert run(app, "GETEX a EX 100", "PERSIST c", "PEXPIREAT d 1", "DBSIZE", at_ms=900) == [b"1", 1, 1, 2]
    keys, when, never = run(app, "KEYS *", "PEXPIRETIME a", "TTL c", at_ms=50_000)
    assert (sorted(keys), when, never) == ([b"a", b"c"], START_MS + 100_900, -1)
    # A deadline goes along with a rename and with a copy, and out of a dump with RESTORE.
    assert run(app, "RENAME a b", "COPY b e", "DUMP b", at_ms=50_000)[:2] == [b"OK", 1]
    (dump,) = raw(app, "DUMP b", at_ms=50_000)
    assert run(app, ["RESTORE", "f", 1000, parsed(dump)], "PTTL f", "EXISTS b e f", at_ms=50_000) == [b"OK", 1000, 3]
    assert run(app, "EXISTS b e f", at_ms=51_001) == [2]
    assert run(app, "EXISTS b e f", at_ms=100_900) == [2]
    assert run(app, "EXISTS b e f", "DBSIZE", at_ms=100_901) == [0, 1]


def test_it_says_when_the_next_key_ends_so_that_time_goes_on(app: RedisServer) -> None:
    assert app.next_deadline_ms() is None
    run(app, "SET a 1 PX 900", "SET b 1 PX 300", "SET c 1 PX 100", "DEL c")
    assert app.next_deadline_ms() == START_MS + 101  # c's reminder: a look too many
    assert app.apply(Requests.of([], time_ms=START_MS + 101)) == []
    assert app.next_deadline_ms() == START_MS + 301
    app.apply(Requests.of([], time_ms=START_MS + 301))
    assert parsed(app.query(encode_command("KEYS", "*"))) == [b"a"]
    run(app, "PERSIST a", at_ms=301)
    app.apply(Requests.of([], time_ms=START_MS + 901))
    assert app.next_deadline_ms() is None and parsed(app.query(encode_command("EXISTS", "a"))) == 1


def test_an_id_that_redis_would_make_of_its_clock_is_the_logs(app: RedisServer) -> None:
    (first, second) = run(app, "XADD s * a 1", "XADD s NOMKSTREAM MAXLEN ~ 1 LIMIT 5 * a 2", at_ms=5)
    assert (first, second) == (b"%d-0" % (START_MS + 5), b"%d-1" % (START_MS + 5))
    assert run(app, "XLEN s", "XADD s 1-1 a b") == [
        1,
        "ERR The ID specified in XADD is equal or smaller than the target stream top item",
    ]


TRIMS = ["MAXLEN ~ 5", "MINID = 1-1", "maxlen 5", "LIMIT 5", "limit 0", "LIMIT -1", "LIMIT x", "NOMKSTREAM", "~"]


def test_options_of_streams_are_refused_as_redis_refuses_them(app: RedisServer) -> None:
    rng = random.Random(8)
    refused = taken = 0
    with redis_server() as redis:
        for _ in range(3000):
            options = [word for text in rng.choices(TRIMS, k=rng.randrange(5)) for word in text.split()]
            words = ["XTRIM", "s", *options] if rng.random() < 0.4 else ["XADD", "s", *options, "*", "f", "v"]
            redis.raw(encode_command("DEL", "s"))
            expected = redis.raw(encode_command(*words))
            (got,) = raw(app, ["UNLINK", "s"], words)[1:]
            if expected.startswith(b"-"):
                assert got == expected, words
                refused += 1
            else:
                assert got[:1] == expected[:1], words
                taken += 1
                # Wherever among the options it stands, the id is made of the log's time.
                assert not got.startswith(b"$1") or parsed(got) == b"%d-0" % START_MS, words
    assert min(refused, taken) > 300


ANY_WORDS = """
a b c h l s z x none 0 -1 3000000 3.5 foo NX XX GT LT CH INCR GET EX PX EXAT PXAT KEEPTTL PERSIST WITHSCORES LIMIT COUNT
MATCH * [a] STORE BY ASC ALPHA REPLACE LEFT RIGHT MIN MAX AGGREGATE SUM WEIGHTS BYSCORE BYLEX REV [a (1 +inf - + STREAMS
$ MAXLEN ~ ANY WITHDIST FROMMEMBER BYRADIUS km LEN IDX u8 i16 SET INCRBY SAT RANK
"""
AT_THE_START = [
    *("FLUSHALL", "SET a 5", "SET b foo", "HSET h a 1 b 2", "RPUSH l 1 2 3", "SADD s 1 2 3", "ZADD z 1 a 2 b 3 c"),
    *("XADD x 1-1 f v", "GEOADD c 1 1 a"),
]
# Answered in another way, as docs/redis.md has it: times, cursors, and what is about a server.
OTHERWISE = {b"COMMAND", b"COPY", b"DBSIZE", b"HSCAN", b"SCAN", b"SSCAN", b"XADD", b"XINFO", b"ZSCAN"}
WITHOUT_ORDER = {
    b"HGETALL",
    b"HKEYS",
    b"HVALS",
    b"KEYS",
    b"SDIFF",
    b"SINTER",
    b"SMEMBERS",
    b"SORT",
    b"SORT_RO",
    b"SUNION",
}


def test_any_words_are_answered_as_by_redis(app: RedisServer) -> None:
    """Every command with words drawn at random: mostly refused, by the same error, and what is not, does the same."""
    rng = random.Random(17)
    names = sorted(name for name in ARITY if b"|" not in name and name not in OTHERWISE)
    taken = 0
    with redis_server() as redis:
        for step in range(6000):
            now_ms = int(time.time() * 1000) - START_MS
            if step % 50 == 0:
                for text in AT_THE_START:
                    redis.raw(encode_command(*text.split()))
                raw(app, *AT_THE_START, at_ms=now_ms)
            name = rng.choice(names)
            count = abs(ARITY[name]) - 1 + (rng.randrange(5) if ARITY[name] < 0 else 0)
            words: list[Any] = [rng.choice((name, name.lower())), *rng.choices(ANY_WORDS.split(), k=count)]
            if count and rng.random() < 0.7:
                words[1] = rng.choice("abchlszx")
            expected, (got,) = redis.raw(encode_command(*words)), raw(app, words, at_ms=now_ms)
            taken += not expected.startswith(b"-")
            if name.endswith((b"TTL", b"EXPIRETIME")) and expected[1:2].isdigit():
                assert abs(parsed(got) - parsed(expected)) < 60_000, words
            elif name in WITHOUT_ORDER:
                assert sorted(got) == sorted(expected), words
            else:
                assert got == expected, words
    assert taken > 1500


WORDS = [
    *("SET {k} {v} EX 9 EX {n}", "SET {k} {v} PX 1 NX PX {n}", "SET {k} {v} EX 5 GET EX x", "GETEX {k} EX 1 EX {n}"),
    *("SET {k} {v}", "SET {k} {v} EX {n}", "SET {k} {v} PX {n} NX", "SET {k} {v} KEEPTTL", "SET {k} {v} XX GET"),
    *("SET {k} {v} EXAT {at}", "SET {k} {v} PXAT {pat} GET", "SET {k} {v} EX 1 PX 2", "SET {k} {v} KEEPTTL EX 3"),
    *("SET {k} {v} EX x", "SET {k} {v} EX -1", "SET {k} {v} PX 9223372036854775807", "SET {k} {v} EX", "SET {k} v NO"),
    *("GETEX {k}", "GETEX {k} EX {n}", "GETEX {k} PERSIST", "GETEX {k} PXAT {pat}", "GETEX {k} PERSIST EX 1"),
    *("SETEX {k} {n} {v}", "PSETEX {k} {n} {v}", "SETEX {k} 0 {v}", "SETEX {k} x {v}", "SETNX {k} {v}"),
    *("EXPIRE {k} {n}", "PEXPIRE {k} {n} {c}", "EXPIREAT {k} {at} {c}", "PEXPIREAT {k} {pat}", "EXPIRE {k} x"),
    *("EXPIRE {k} -1", "PEXPIRE {k} 0 {c}", "EXPIRE {k} 9223372036854775807", "EXPIRE {k} 5 NX GT", "EXPIRE {k}"),
    *("TTL {k}", "PTTL {k}", "EXPIRETIME {k}", "PEXPIRETIME {k}", "PERSIST {k}", "GET {k}", "GETDEL {k}"),
    *("DEL {k} {k}", "EXISTS {k} {k}", "APPEND {k} {v}", "INCR {k}", "MSET {k} 1 {k} 2", "GETSET {k} {v}", "DBSIZE"),
    *("R2P2.BATCH IFPRESENT {k} DO 2 INCR {k}", "R2P2.BATCH IF {k} 1 DO 3 SET {k} 2", "R2P2.BATCH IF {k} DO"),
    *("R2P2.BATCH IFABSENT {k} DO 5 SET {k} 1 PX {n} 2 GET {k}", "R2P2.BATCH DO 2 INCR {k} 1 GET", "FLUSHALL bad"),
    *("R2P2.PIPELINE 2 GET {k} 2 INCR {k} 5 SET {k} {v} EX 1 1 GET 2 TTL {k}", "MSETNX {k} 1 {k} 2"),
]


def filled(rng: random.Random, text: str, now_ms: int) -> str:
    """The command with something drawn for each of its blanks."""
    chosen: dict[str, Callable[[], object]] = {
        "{v}": lambda: rng.choice((1, 2, 17, "x", "yy")),
        "{n}": lambda: rng.choice((1, 2, 5, 900, 2000)),
        "{at}": lambda: now_ms // 1000 + rng.randrange(-3, 9),
        "{pat}": lambda: now_ms + rng.randrange(-900, 5000),
        "{c}": lambda: rng.choice(("NX", "XX", "GT", "LT", "bad")),
        "{k}": lambda: rng.choice("abcdef"),
    }
    for name, draw in chosen.items():
        while name in text:
            text = text.replace(name, str(draw()), 1)
    return text


def test_strings_and_deadlines_answer_as_the_stores_do(app: RedisServer) -> None:
    """The store of this package answers as Redis does (test_kv_redis.py), and by the log's time: so must Redis itself
    behind the log, deadlines, conditions, errors and transactions alike.
    """
    rng = random.Random(5)
    store = KeyValue()
    at_ms, compared = 0, 0
    for _ in range(1500):
        at_ms += rng.choice((0, 1, 400, 1000, 3000))
        lines = [filled(rng, rng.choice(WORDS), START_MS + at_ms) for _ in range(rng.randrange(1, 6))]
        assert raw(app, *lines, at_ms=at_ms) == raw(store, *lines, at_ms=at_ms), (at_ms, lines)
        compared += len(lines)
    assert compared > 3000
    assert sorted(parsed(app.query(encode_command("KEYS", "*")))) == sorted(store.store.live_keys())


# ---- scans, batches, sizes, reads ----


def test_a_scan_goes_on_at_another_replica_and_lists_what_stays(app: RedisServer) -> None:
    with closing(RedisServer()) as other:
        for replica in (app, other):
            run(replica, *(f"SET key{i} v" for i in range(300)), "HSET hash f 1 g 2", *("RPUSH list x",) * 3)
        found: list[bytes] = []
        cursor, turn = b"0", 0
        while True:
            replica = (app, other)[turn % 2]
            cursor, keys = parsed(replica.query(encode_command("SCAN", cursor, "COUNT", 20)))
            found += keys
            turn += 1
            for each in (app, other):  # keys come and go meanwhile
                run(each, f"SET new{turn} v", f"DEL key{turn}", f"RENAME key{299 - turn} renamed{turn}")
            if cursor == b"0":
                break
        assert len(found) == len(set(found))
        stayed = {b"key%d" % i for i in range(turn + 1, 299 - turn)} | {b"hash", b"list"}
        assert stayed <= set(found)
        assert parsed(app.query(encode_command("SCAN", 0, "TYPE", "hash", "COUNT", 1000)))[1] == [b"hash"]
        assert parsed(app.query(encode_command("SCAN", 0, "MATCH", "l*", "COUNT", 1000)))[1] == [b"list"]
    run(app, ["SADD", "big", *range(2000)], ["HSET", "bighash", *range(2000)])
    cursor, members = parsed(app.query(encode_command("SSCAN", "big", 0, "COUNT", 5)))
    assert (cursor, len(members)) == (b"0", 2000)
    assert len(parsed(app.query(encode_command("HSCAN", "bighash", 0, "MATCH", "1*")))[1]) > 100


def test_replies_no_response_carries_are_an_error_and_a_pipeline_goes_on(app: RedisServer) -> None:
    large = b"x" * 200_000
    run(app, ["SET", "a", large], ["APPEND", "a", large], ["SET", "b", large], ["SET", "c", large])
    assert run(app, "GET a", "STRLEN a") == [
        "ERR the command was executed, but its reply is larger than the 371832 bytes of a response",
        400_000,
    ]
    pipeline = ["R2P2.PIPELINE", 2, "GET", "b", 2, "GET", "c", 2, "INCR", "n"]
    assert run(app, pipeline, "GET n") == [[large], None]  # what comes behind has not been executed
    pipeline = ["R2P2.PIPELINE", 3, "GETSET", "b", 1, 3, "GETSET", "c", 2, 2, "INCR", "n"]
    assert run(app, pipeline, "STRLEN c", "GET n") == [[large], 200_000, None]
    (replies,) = run(app, ["R2P2.PIPELINE", 2, "GETDEL", "a", 2, "INCR", "n"])
    assert replies[0].startswith("ERR the command was executed") and replies[1] == 1


LONG_ANSWERS = [
    ["INCRBYFLOAT", "f", "1e4900"],
    ["HINCRBYFLOAT", "h", "f", "-1e4900"],
    ["BITFIELD", "b", *["INCRBY", "u60", "0", str(1 << 56)] * 2000],
    ["EXPIRE", "f", "100", "x" * 30_000],
    ["INCR", "n"],
]


def test_a_pipeline_ends_before_a_write_whose_answer_may_not_fit(app: RedisServer) -> None:
    """What it answers of writes is what they answer one by one, none of it lost to the others."""
    rng = random.Random(9)
    commands: list[list[str]] = []
    while len(commands) < 1500:
        commands += [rng.choice(LONG_ANSWERS)] * rng.choice((1, 3, 150))
    with closing(RedisServer()) as other:
        expected = [parsed(raw(other, words)[0]) for words in commands]
        replies: list[Any] = []
        lengths = []
        while len(replies) < len(commands):
            left, size = [], 0
            for words in commands[len(replies) :]:
                size += sum(len(word) + 16 for word in words) + 16
                if size > 350_000:
                    break
                left.append(words)
            (got,) = run(app, ["R2P2.PIPELINE", *(word for words in left for word in (len(words), *words))])
            assert got == expected[len(replies) : len(replies) + len(got)]
            replies += got
            lengths.append(len(got))
        assert app.state_digest() == other.state_digest()
    assert max(lengths) > 50
    # In a transaction there is no going on; an error, which says that nothing was done, stays one.
    (got,) = run(app, ["R2P2.BATCH", "DO", *[3, "INCRBYFLOAT", "f", "1"] * 80, *[4, *LONG_ANSWERS[3]], 2, "INCR", "n"])
    assert str(got[79]).startswith("ERR the command was executed") and str(got[80]).startswith("ERR Unsupported option")


def test_a_scan_holds_no_keys_that_are_gone(app: RedisServer) -> None:
    run(app, "SET stays 1", "SCAN 0 COUNT 1")
    for i in range(100):
        commands = [words for j in range(700) for words in (["SET", f"{i}.{j}", "1"], ["UNLINK", f"{i}.{j}"])]
        raw(app, *commands)
    index = app._scanner._index
    assert index is None or len(index) < 67_000
    assert run(app, "SCAN 0") == [[b"0", [b"stays"]]]


LARGE_WORDS = [
    *(
        "RPUSH {l} {v}",
        "LPUSH {l} {v} {v}",
        "LPOP {l}",
        "RPOP {l}",
        "LPOP {l} 2",
        "LMOVE l m LEFT RIGHT",
        "lmove m l right left",
    ),
    *(
        "RPOPLPUSH l m",
        "LMPOP 2 l m LEFT COUNT 2",
        "SORT l ALPHA",
        "SORT l ALPHA STORE m",
        "LRANGE {l} 0 1",
        "LINDEX l 0",
    ),
    *(
        "GETSET {k} {v}",
        "SET {k} {v} GET",
        "GETDEL {k}",
        "GETEX {k}",
        "GET {k}",
        "SET {k} {v}",
        "APPEND {k} x",
        "STRLEN {k}",
    ),
    *(
        "ZADD z {n} {v}",
        "ZPOPMIN z",
        "ZPOPMAX z",
        "ZPOPMIN z 2",
        "ZRANGE z 0 1",
        "INCR n",
        "LPOP a",
        "GETDEL l",
        "LPOP",
        "FLY",
    ),
]


def test_pipelines_answer_and_do_what_their_commands_do_one_by_one(app: RedisServer) -> None:
    """Sent again from where each ends, as a gateway does it: no reply is lost that a response could carry."""
    rng = random.Random(3)

    def drawn() -> list[Any]:
        chosen = {"{l}": rng.choice("lm"), "{k}": rng.choice("ab"), "{n}": rng.randrange(9)}
        words = [chosen.get(word, word) for word in rng.choice(LARGE_WORDS).split()]
        return [rng.choice((b"s", b"x" * 30_000, b"y" * 170_000)) if word == "{v}" else word for word in words]

    carried = 0
    with closing(RedisServer()) as other:
        for _ in range(150):
            commands: list[list[Any]] = []
            while len(commands) < 12 and sum(len(str(words)) for words in commands) < 150_000:
                commands.append(drawn())
            expected = [raw(other, words)[0] for words in commands]
            replies: list[bytes] = []
            while len(replies) < len(commands):
                left = commands[len(replies) :]
                (reply,) = raw(app, ["R2P2.PIPELINE", *(word for words in left for word in (len(words), *words))])
                got = parsed(reply)
                assert 0 < len(got) <= len(left)
                replies += got
                carried += len(got) > 1
            for words, reply, single in zip(commands, replies, expected, strict=True):
                if b"larger than" in single:
                    assert "larger than" in str(reply)
                else:
                    assert reply == parsed(single), [word[:20] if isinstance(word, bytes) else word for word in words]
            assert app.state_digest() == other.state_digest()
    assert carried > 100


def test_a_pipeline_of_reads_is_not_made_in_vain(app: RedisServer) -> None:
    """Whoever sends a pipeline goes on from where the reply ended: what was read beyond it was read for nothing."""
    run(app, *(["SET", f"k{i}", b"x" * 300_000] for i in range(4)))
    before = int(parsed(app._link.one("INFO", "stats")).decode().split("total_commands_processed:")[1].split()[0])
    pipeline = ["R2P2.PIPELINE", *(word for i in range(1000) for word in (2, "GET", f"k{i % 4}"))]
    assert len(parsed(app.query(encode_command(*pipeline)))) == 1
    after = int(parsed(app._link.one("INFO", "stats")).decode().split("total_commands_processed:")[1].split()[0])
    assert after - before < 50


LONG_PATTERNS = [
    "*" + "[a-c]" * 13 + "*",
    "*" + "?" * 70,
    "a" * 66 + "*",
    "*a" * 33 + "*",
    "[^a]" + "?" * 60 + "*",
    "*" * 70,
]


def test_long_patterns_are_matched_as_redis_matches_them(app: RedisServer) -> None:
    rng = random.Random(4)
    names = ["".join(rng.choices("abc", k=rng.choice((1, 13, 60, 70, 100)))) for _ in range(300)] + ["a" * 80, "b" * 65]
    run(app, *(["SET", name, 1] for name in names))
    run(app, ["SADD", "{s}", *names], ["HSET", "{h}", *(word for name in names for word in (name, "v" + name))])
    run(app, ["ZADD", "{z}", *(word for i, name in enumerate(names) for word in (i / 2, name))])
    for pattern in LONG_PATTERNS:
        expected = parsed(app._link.one("KEYS", pattern))
        assert expected and sorted(run(app, ["KEYS", pattern])[0]) == sorted(expected), pattern
        for scan, key in (("SSCAN", "{s}"), ("HSCAN", "{h}"), ("zscan", "{z}")):
            direct = app._link.one(scan, key, 0, "MATCH", pattern, "COUNT", 1 << 30)
            assert raw(app, [scan, key, 0, "COUNT", 5, "MATCH", pattern]) == [direct], (scan, pattern)
            direct = app._link3.one(scan, key, 0, "MATCH", pattern, "COUNT", 1 << 30)
            assert raw(app, ["R2P2.RESP3", scan, key, 0, "MATCH", pattern]) == [direct], (scan, pattern)
    wrong = "WRONGTYPE Operation against a key holding the wrong kind of value"
    assert run(app, ["SSCAN", "{h}", 0, "MATCH", LONG_PATTERNS[0]]) == [wrong]


def test_no_pattern_and_no_list_of_names_keeps_a_server_at_work_for_long(app: RedisServer) -> None:
    """A pattern of 100 KB and a key of 360 KB took the server more than a minute, of each member that was asked."""
    long = "a" * 360_000
    run(app, ["SET", long, 1], ["SADD", "s", long], ["HSET", "h", "big", "x" * 300_000])
    began = time.process_time() + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    pattern = "*" + "a" * 1000 + "b*"
    for words in (["KEYS", pattern], ["SCAN", 0, "MATCH", pattern], ["SSCAN", "s", 0, "MATCH", pattern]):
        assert long.encode() not in str(run(app, words)).encode()
        assert run(app, [*words[:-1], "*" + "a" * 100_000 + "b*"]) == ["ERR a pattern has at most 1024 bytes"]
    assert "larger than" in run(app, ["HMGET", "h", *["big"] * 30_000])[0]
    assert time.process_time() - began < 5
    memory = parsed(app._link.one("INFO", "memory")).decode()
    assert int(memory.split("used_memory_peak:")[1].split()[0]) < 100 << 20


def test_a_transaction_does_not_hold_all_its_replies_at_once(app: RedisServer) -> None:
    run(app, ["SET", "big", "x" * 300_000])
    tracemalloc.start()
    try:
        (replies,) = run(app, ["R2P2.BATCH", "DO", *[2, "GET", "big"] * 1500, 2, "INCR", "n"])
        assert tracemalloc.get_traced_memory()[1] < 150 << 20
    finally:
        tracemalloc.stop()
    assert len(replies) == 1501 and replies[-1] == 1 and len(replies[0]) < 300_000


def test_names_that_come_again_are_answered_again(app: RedisServer) -> None:
    run(app, "SET a 1", "HSET h f 2 g $-1", ["SET", "b", "x\r\n$5\r\n"], "RPUSH l 1")
    for text in ("MGET a b a none b a l none", "HMGET h f g f x f x", "mget a a", "HMGET a f f", "HMGET none f f"):
        assert raw(app, text, f"R2P2.RESP3 {text}") == [app._link.one(*text.split()), app._link3.one(*text.split())]


def test_reads_do_not_write_and_resp3_is_answered_when_asked_for(app: RedisServer) -> None:
    run(app, "HSET h a 1", "PFADD p x")
    for words in ("SET a 1", "PFCOUNT p", "R2P2.WATCH a", "R2P2.PIPELINE 3 SET a 1", "R2P2.RESP3 INCR a"):
        assert parsed(app.query(encode_command(*words.split()))) == "READONLY send writes with the replicated policy"
    assert app.query(encode_command("R2P2.PIPELINE", 2, "HGETALL", "h")) == b"*1\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n"
    assert app.query(encode_command("R2P2.PIPELINE3", 2, "HGETALL", "h")) == b"*1\r\n%1\r\n$1\r\na\r\n$1\r\n1\r\n"
    assert app.query(encode_command("R2P2.RESP3", "HGETALL", "h")) == b"%1\r\n$1\r\na\r\n$1\r\n1\r\n"
    assert raw(app, "R2P2.RESP3 GET none", "GET none", "R2P2.RESP3 R2P2.RESP3 GET a") == [
        b"_\r\n",
        b"$-1\r\n",
        b"-ERR R2P2.RESP3 is not allowed inside a batch\r\n",
    ]
    assert raw(app, "R2P2.BATCH3 DO 2 HGETALL h") == [b"*1\r\n%1\r\n$1\r\na\r\n$1\r\n1\r\n"]


def test_a_watch_ends_with_a_write_to_its_key(app: RedisServer) -> None:
    def holds(*numbers: int) -> list[bool]:
        conditions = [word for key, number in zip("ab", numbers, strict=False) for word in ("IFUNWRITTEN", key, number)]
        return [reply is not None for reply in run(app, ["R2P2.BATCH", *conditions, "DO", 1, "PING"])]

    run(app, "SADD a 1", "SADD b 1")
    assert run(app, "R2P2.WATCH a b", "R2P2.WATCH a") == [[1, 2], [1]]
    assert holds(1, 2) == [True]
    run(app, "SMEMBERS a", "SADD c 1", "SADD b 1")  # a write that changes nothing is one
    assert holds(1) == [True] and holds(1, 2) == [False]
    snapshot = b"".join(app.snapshot())
    run(app, "ZUNIONSTORE z 2 x y")  # its keys are not so simply told, so it may have been any
    assert holds(1) == [False]
    app.restore(snapshot)
    assert holds(1) == [True]
    run(app, "PEXPIRE a 10", "R2P2.WATCH a")
    assert run(app, "R2P2.WATCH a", at_ms=1) == [[3]]
    run(app, "PING", at_ms=11)
    assert holds(3) == [False]


# ---- failures ----


def test_a_server_that_ends_ends_the_member(app: RedisServer) -> None:
    assert app.pid is not None
    os.kill(app.pid, signal.SIGKILL)
    with pytest.raises(RedisFailed, match=r"has ended with exit code -9"):
        run(app, "GET a")
    with pytest.raises(RedisFailed):
        app.query(encode_command("GET", "a"))


def test_a_server_out_of_memory_ends_the_member() -> None:
    with (
        closing(RedisServer(Settings(arguments=("--maxmemory", "1mb")))) as app,
        pytest.raises(RedisFailed, match=r"cannot do what the others' can: OOM"),
    ):
        run(app, ["SET", "a", "x" * 100])


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Where a socket fits in: its name holds 107 bytes, and pytest's own folders have long names."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_a_socket_whose_name_is_too_long_is_the_users_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("n" * 100)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(UserError, match="more than 107 bytes") as caught:
        RedisServer()
    assert "TMPDIR" in caught.value.remedy
    assert not list(folder.iterdir())


def test_the_child_has_no_port_leaves_nothing_and_ends_with_its_parent(short_path: Path) -> None:
    script = (
        "import os, sys; from r2p2.apps.redis import RedisServer; a = RedisServer();"
        "print(a.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(short_path)},
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        (folder,) = short_path.iterdir()
        assert folder.stat().st_mode & 0o077 == 0
        sockets = subprocess.run(["ss", "-Hlntp"], capture_output=True, text=True, check=False).stdout
        assert f"pid={pid}," not in sockets
        watched = os.pidfd_open(pid)
        parent.kill()
        parent.wait(20)
        assert select.select([watched], [], [], 20)[0]  # the child has ended
        os.close(watched)
    old = tempfile.tempdir
    tempfile.tempdir = str(short_path)
    try:
        with closing(RedisServer()):
            # The folder of the killed process is swept by the next that starts.
            assert [path for path in short_path.iterdir() if path != folder] and not folder.exists()
    finally:
        tempfile.tempdir = old
    assert not list(short_path.iterdir())


def test_attached_servers_must_be_such_as_replicas_may_have(tmp_path: Path) -> None:
    with closing(RedisServer()) as inner:
        path = str(inner._server.dump_path.parent / "redis.sock")
        with closing(Link(path, 20.0)) as link:
            link.one("SET", "old", "data")
            with pytest.raises(UserError, match="holds data"):
                RedisServer(Settings(attach=path))
            link.one("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
            with pytest.raises(UserError, match=r"evicts keys \(allkeys-lru\)"):
                RedisServer(Settings(attach=path, flush=True))
            link.one("CONFIG", "SET", "maxmemory", "0")
            with closing(RedisServer(Settings(attach=path, flush=True))) as app:
                assert app.pid is None
                assert run(app, "GET old", "SET a 1 EX 5", "TTL a") == [None, b"OK", 5]
                snapshot, digest = b"".join(app.snapshot()), app.state_digest()
                run(app, "FLUSHALL")
                app.restore(snapshot)
                assert app.state_digest() == digest
            assert link.one("PING") == b"+PONG\r\n"  # it goes on
    for settings, told in (
        (Settings(attach="nowhere"), "neither a unix socket's path nor HOST:PORT"),
        (Settings(attach=str(tmp_path / "none")), "no redis-server at"),
        (Settings(program="no-such-redis"), "cannot be started"),
        (Settings(arguments=("--no-such-option", "1")), "exit code 1"),
    ):
        with pytest.raises(UserError, match=told):
            RedisServer(settings)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2P2_REDIS_ATTACH", "127.0.0.1:7")
    monkeypatch.setenv("R2P2_REDIS_SERVER", "valkey-server")
    monkeypatch.setenv("R2P2_REDIS_ARGUMENTS", "--io-threads 2 --dbfilename 'a b'")
    monkeypatch.setenv("R2P2_REDIS_FLUSH", "yes")
    assert Settings.from_environment() == Settings(
        "127.0.0.1:7", "valkey-server", ("--io-threads", "2", "--dbfilename", "a b"), True
    )
    monkeypatch.setenv("R2P2_REDIS_FLUSH", "maybe")
    with pytest.raises(UserError, match="R2P2_REDIS_FLUSH is 'maybe'"):
        Settings.from_environment()
    monkeypatch.setenv("R2P2_REDIS_FLUSH", "")
    monkeypatch.setenv("R2P2_REDIS_ARGUMENTS", "'open")
    with pytest.raises(UserError, match="R2P2_REDIS_ARGUMENTS"):
        Settings.from_environment()
