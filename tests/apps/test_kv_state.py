"""The store as replicated state: time from the log, batches, watches, scans, snapshots; nothing depends on borders."""

from __future__ import annotations

import time
import tracemalloc
from array import array
from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from typing import Any

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2p2 import limits
from r2p2.apps.kv import KeyValue, encode_command
from r2p2.apps.kv._plain import matching, places
from r2p2.requests import Replies, Requests
from tests.apps import glob_model
from tests.apps.redis_server import ERRORS_AS_TEXT

T0 = 1_700_000_000_000


def apply(kv: KeyValue, *requests: bytes, at: int = 0) -> list[bytes]:
    replies = kv.apply(Requests.of(requests, time_ms=at))
    packed = replies if isinstance(replies, Replies) else Replies.pack(replies)
    assert len(packed.lengths) == len(requests) and sum(packed.lengths) == len(packed.slab)
    return list(Requests(packed.slab, memoryview(packed.lengths), bytes(len(requests))))


def whole(kv: KeyValue) -> bytes:
    """Its snapshot."""
    return b"".join(kv.snapshot())


def ask(kv: KeyValue, *words: Any, at: int = 0) -> Any:
    (reply,) = apply(kv, encode_command(*words), at=at)
    reader = hiredis.Reader(replyError=ERRORS_AS_TEXT)
    reader.feed(reply)
    return reader.gets()


def test_a_key_ends_by_the_logs_time_alone() -> None:
    kv = KeyValue()
    assert ask(kv, "SET", "k", "v", "PX", 100, at=T0) == b"OK"
    assert ask(kv, "GET", "k", at=T0 + 100) == b"v"
    assert ask(kv, "PTTL", "k", at=T0 + 100) == 0
    assert ask(kv, "DBSIZE", at=T0 + 101) == 0
    assert ask(kv, "GET", "k", at=T0 + 101) is None
    assert ask(kv, "APPEND", "k", "w", at=T0 + 101) == 1
    assert ask(kv, "TTL", "k", at=T0 + 101) == -1


def test_time_never_goes_back() -> None:
    kv = KeyValue()
    ask(kv, "SET", "k", "v", "PX", 100, at=T0)
    ask(kv, "PING", at=T0 + 500)
    assert ask(kv, "GET", "k", at=T0) is None


def test_a_plain_set_takes_the_deadline_away_also_in_a_batch_of_sets() -> None:
    kv = KeyValue()
    ask(kv, "SET", "k", "v", "PX", 100, at=T0)
    apply(kv, *[encode_command("SET", "k", "w")] * 3, at=T0 + 50)
    assert ask(kv, "GET", "k", at=T0 + 1000) == b"w"


def test_ended_keys_leave_the_memory_a_bounded_number_at_a_time() -> None:
    kv = KeyValue()
    apply(kv, *[encode_command("SET", i, "v", "PX", 100) for i in range(1000)], at=T0)
    steps = 0
    while kv.data:
        assert ask(kv, "DBSIZE", at=T0 + 101) == 0
        steps += 1
        assert len(kv.data) == max(0, 1000 - steps * (limits.KV_SWEEP_MAX + 1))
    assert not kv.store.expires and steps > 10


def test_stale_deadlines_are_bounded() -> None:
    kv = KeyValue()
    for i in range(10_000):
        ask(kv, "SET", "k", "v", "PX", 1_000_000 + i, at=T0)
    assert len(kv.store._deadlines) < 2000


key = st.sampled_from(["a", "b", "c", "d"])
word = st.sampled_from(["1", "2", "xy"])
one = st.one_of(
    st.tuples(st.just("SET"), key, word),
    st.tuples(st.just("SET"), key, word),
    st.tuples(st.just("SET"), key, word, st.just("PX"), st.integers(1, 300)),
    st.tuples(st.sampled_from(["GET", "DEL", "TTL", "INCR", "PERSIST", "GETDEL", "R2P2.WATCH"]), key),
    st.tuples(st.just("PEXPIRE"), key, st.integers(-5, 300)),
    st.tuples(st.sampled_from(["DBSIZE", "FLUSHALL", "PING"])),
    st.tuples(st.just("SCAN"), st.just("0"), st.just("COUNT"), st.integers(1, 5)),
    st.tuples(st.just("KEYS"), st.just("*")),
    st.tuples(
        *map(st.just, ("R2P2.BATCH", "IFUNWRITTEN", "a")), st.integers(1, 5), *map(st.just, ("DO", "2", "INCR", "a"))
    ),
    st.tuples(st.just("R2P2.PIPELINE"), st.just(2), st.just("GET"), key, st.just(3), st.just("SET"), key, word),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 120), st.lists(one, max_size=6)), max_size=12), st.data())
def test_neither_borders_nor_sweeps_nor_snapshots_show(log: list[Any], data: st.DataObject) -> None:
    """One replica applies request by request; the other in batches, sweeps at whim, and is restored now and then."""
    plain, other = KeyValue(), KeyValue()
    now = T0
    for passed, commands in log:
        now += passed
        requests = [encode_command(*words) for words in commands]
        expected = [reply for request in requests for reply in apply(plain, request, at=now)]
        got: list[bytes] = []
        while len(got) < len(requests):
            n = data.draw(st.integers(1, len(requests) - len(got)))
            got += apply(other, *requests[len(got) : len(got) + n], at=now)
            if data.draw(st.booleans()):
                other.store._sweep(data.draw(st.integers(1, 10)))
            if data.draw(st.booleans()):
                restored = KeyValue()
                restored.restore(whole(other))
                assert whole(restored) == whole(other)
                other = restored
        assert got == expected
        assert plain.state_digest() == other.state_digest()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 120), one), max_size=40), st.data())
def test_a_snapshot_is_of_the_moment_it_was_asked_for(log: list[Any], data: st.DataObject) -> None:
    """Whatever is applied between two pieces, whenever ended keys leave the memory, however many are on their way."""
    kv, now = KeyValue(), T0
    under_way: list[tuple[str, list[bytes], Iterator[bytes]]] = []

    def end(which: int) -> None:
        digest, taken, pieces = under_way.pop(which)
        restored = KeyValue()
        restored.restore(b"".join([*taken, *pieces]))
        assert restored.state_digest() == digest

    for passed, words in log:
        now += passed
        apply(kv, encode_command(*words), at=now)
        kv.store._sweep(data.draw(st.integers(0, 3)))
        if len(under_way) < 3 and data.draw(st.integers(0, 3)) == 0:
            under_way.append((kv.state_digest(), [], kv.snapshot()))
        for _, taken, pieces in under_way:
            taken += islice(pieces, data.draw(st.integers(0, 2)))
        if under_way and data.draw(st.integers(0, 5)) == 0:
            end(data.draw(st.integers(0, len(under_way) - 1)))
        elif under_way and data.draw(st.integers(0, 9)) == 0:
            under_way.pop()  # given up
    while under_way:
        end(0)


def test_no_piece_of_a_large_snapshot_is_large() -> None:
    kv = KeyValue()
    for i in range(20_000):
        kv.store.set(b"%d" % i, b"v" * 30)
    for i in range(0, 20_000, 3):
        kv.store.expire_at(b"%d" % i, T0)
    pieces = list(kv.snapshot())
    assert max(map(len, pieces)) <= 32 * 1024 and len(pieces) > 100
    restored = KeyValue()
    restored.restore(b"".join(pieces))
    assert restored.state_digest() == kv.state_digest() and restored.store.expires == kv.store.expires


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-1],
        lambda b: b + b"x",
        lambda b: b[:10],
        lambda b: b"XXXX" + b[4:],
        lambda b: b[:30] + b"\xff" + b[31:],
    ],
)
def test_a_damaged_snapshot_is_refused_and_changes_nothing(damage: Any) -> None:
    kv = KeyValue()
    ask(kv, "MSET", "a", "1", "b", "2", at=T0)
    ask(kv, "EXPIRE", "a", "10", at=T0)
    ask(kv, "R2P2.WATCH", "a", "b", at=T0)
    before = whole(kv)
    with pytest.raises(ValueError, match="snapshot"):
        kv.restore(damage(before))
    assert whole(kv) == before


# ---- batches ----


def test_a_batch_is_done_whole_or_not_at_all() -> None:
    kv = KeyValue()
    ask(kv, "SET", "stock", "1")
    buy = ("R2P2.BATCH", "IF", "stock", "1", "IFABSENT", "order", "DO", 2, "DECR", "stock", 3, "SET", "order", "me")
    assert ask(kv, *buy) == [0, b"OK"]
    assert ask(kv, *buy) is None
    assert ask(kv, "MGET", "stock", "order") == [b"0", b"me"]
    assert ask(kv, "R2P2.BATCH", "IFPRESENT", "order", "DO", 2, "INCR", "order", 2, "GET", "order") == [
        "ERR value is not an integer or out of range",
        b"me",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("R2P2.BATCH", "IF", "a"),
        ("R2P2.BATCH", "IF", "a", "1"),
        ("R2P2.BATCH", "DO", 3, "GET", "a"),
        ("R2P2.BATCH", "DO", 0),
        ("R2P2.BATCH", "DO", "x", "GET"),
        ("R2P2.BATCH", "WHEN", "a", "DO"),
        ("R2P2.BATCH", "DO", 3, "SET", "a", "1", 1, "FLY"),
        ("R2P2.BATCH", "DO", 3, "SET", "a", "1", 1, "GET"),
        ("R2P2.BATCH", "DO", 3, "SET", "a", "1", 4, "R2P2.BATCH", "DO", "1", "PING"),
        ("R2P2.BATCH", "DO", *[1, "PING"] * (limits.KV_BATCH_COMMANDS_MAX + 1)),
        ("R2P2.PIPELINE", "x", "y"),
        ("R2P2.PIPELINE", 5, "SET", "a", "1"),
    ],
)
def test_a_wrong_batch_does_nothing(words: tuple[Any, ...]) -> None:
    kv = KeyValue()
    assert ask(kv, *words).startswith("ERR ")
    assert kv.data == {}


def test_a_batch_whose_replies_are_too_large_says_so_in_their_place() -> None:
    kv = KeyValue()
    ask(kv, "SET", "big", b"x" * 200_000)
    get: list[str | int] = [2, "GET", "big"]
    (reply,) = apply(kv, encode_command("R2P2.BATCH", "DO", *get * 3, 2, "INCR", "n"))
    assert len(reply) <= limits.REPLICATED_REPLY_BYTES_MAX
    assert ask(kv, "R2P2.BATCH", "DO", *get * 2, 2, "INCR", "n")[1:] == [
        "ERR the reply is larger than the 371832 bytes of a response",
        2,
    ]


def test_a_pipeline_stops_before_a_reply_that_does_not_fit() -> None:
    kv = KeyValue()
    ask(kv, "MSET", "a", b"x" * 200_000, "b", b"y" * 200_000)
    assert len(ask(kv, "R2P2.PIPELINE", 2, "INCR", "n", 2, "GET", "a", 2, "GETDEL", "b", 2, "INCR", "n")) == 2
    assert ask(kv, "MGET", "n") == [b"1"]
    assert ask(kv, "EXISTS", "b") == 1
    assert ask(kv, "R2P2.PIPELINE", 1, "FLY", 2, "R2P2.WATCH", "a", 1, "PING") == [
        "ERR unknown command 'FLY', with args beginning with: ",
        "ERR R2P2.WATCH is not allowed inside a batch",
        b"PONG",
    ]


@pytest.mark.parametrize(
    "write",
    [
        ("SET", "k", "same"),
        ("DEL", "k"),
        ("EXPIRE", "k", 5),
        ("APPEND", "k", ""),
        ("FLUSHALL",),
        ("MSET", "x", 1, "k", 2),
    ],
)
def test_a_watch_ends_with_any_write_to_the_key(write: tuple[Any, ...]) -> None:
    kv = KeyValue()
    ask(kv, "SET", "k", "same", at=T0)
    (number,) = ask(kv, "R2P2.WATCH", "k", at=T0)
    unwritten = ("R2P2.BATCH", "IFUNWRITTEN", "k", number, "DO", 1, "PING")
    ask(kv, "GET", "k", at=T0)
    assert ask(kv, *unwritten, at=T0) == [b"PONG"]
    ask(kv, *write, at=T0)
    ask(kv, "SET", "k", "same", at=T0)
    assert ask(kv, *unwritten, at=T0) is None
    assert ask(kv, "R2P2.WATCH", "k", at=T0) != [number]


def test_a_watch_ends_with_its_key_and_holds_for_one_that_is_absent() -> None:
    kv = KeyValue()
    ask(kv, "SET", "k", "v", "PX", 100, at=T0)
    first, second = ask(kv, "R2P2.WATCH", "k", "none", at=T0)
    assert ask(kv, "R2P2.BATCH", "IFUNWRITTEN", "k", first, "DO", 1, "PING", at=T0 + 101) is None
    assert ask(kv, "R2P2.BATCH", "IFUNWRITTEN", "none", second, "DO", 1, "PING", at=T0 + 101) == [b"PONG"]


def test_watches_are_bounded_and_the_oldest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KV_WATCHED_MAX", 3)
    kv = KeyValue()
    numbers = [ask(kv, "R2P2.WATCH", name)[0] for name in "abcd"]
    held = [ask(kv, "R2P2.BATCH", "IFUNWRITTEN", k, n, "DO", 1, "PING") for k, n in zip("abcd", numbers, strict=True)]
    assert held == [None, [b"PONG"], [b"PONG"], [b"PONG"]]


# ---- scans ----


def scan_all(kv: KeyValue, *options: Any, between: Any = None) -> list[bytes]:
    found: list[bytes] = []
    cursor = b"0"
    while True:
        cursor, some = ask(kv, "SCAN", cursor, *options)
        found += some
        if cursor == b"0":
            return found
        if between is not None:
            between()


def test_a_scan_lists_every_key_that_is_there_all_along_once() -> None:
    kv = KeyValue()
    apply(kv, *[encode_command("SET", f"stay{i}", "v") for i in range(500)])
    coming = iter(range(10_000))

    def churn() -> None:
        i = next(coming)
        apply(kv, *[encode_command("SET", f"new{i}-{n}", "v") for n in range(20)], encode_command("DEL", f"new{i}-3"))

    found = scan_all(kv, "COUNT", 7, between=churn)
    assert sorted(k for k in found if k.startswith(b"stay")) == sorted(b"stay%d" % i for i in range(500))
    assert len(set(found)) == len(found)


def test_scan_options_and_long_keys() -> None:
    kv = KeyValue()
    ask(kv, "MSET", "a1", 1, "a2", 2, "b1", 3)
    assert sorted(scan_all(kv, "MATCH", "a*", "COUNT", 1)) == [b"a1", b"a2"]
    assert scan_all(kv, "TYPE", "list") == []
    long_keys = [b"%d" % i + b"x" * 100_000 for i in range(9)]
    for long_key in long_keys:
        ask(kv, "SET", long_key, "")
    assert set(scan_all(kv, "COUNT", 1000)) == {b"a1", b"a2", b"b1", *long_keys}


def test_an_idle_scan_is_given_up() -> None:
    kv = KeyValue()
    ask(kv, "SET", "a", 1)
    ask(kv, "SCAN", 0)
    assert not kv.store.is_plain
    assert kv.store.scan_index is not None
    kv.store.scan_index.idle_batches = 100_000
    ask(kv, "PING")
    assert kv.store.is_plain


def test_a_scan_that_nobody_goes_on_with_holds_no_keys_that_are_gone() -> None:
    kv = KeyValue()
    ask(kv, "SET", "stays", 1)
    ask(kv, "SCAN", 0, "COUNT", 1)
    for i in range(500):
        apply(
            kv, *(encode_command(*words) for j in range(20) for words in (("SET", f"{i}.{j}", 1), ("DEL", f"{i}.{j}")))
        )
    assert kv.store.scan_index is None or len(kv.store.scan_index) < 2000
    assert ask(kv, "SCAN", 0) == [b"0", [b"stays"]]


PATTERN_PIECES = [b"*", b"?", b"[ab]", b"[^a]", b"[a-c", b"[]", b"[^]", b"\\", b"a", b"b", b"ab", b"-]", b"a" * 70]

KEY_PIECES = [b"", b"a", b"b", b"ab", b"abc", b"a" * 69 + b"b", b"a" * 200, b"]", b"-", b"\\"]


@settings(max_examples=1500, deadline=None)
@given(
    st.lists(st.sampled_from(PATTERN_PIECES), max_size=14).map(b"".join),
    st.lists(
        st.sampled_from([b"", b"a", b"b", b"ab", b"abc", b"a" * 69 + b"b", b"a" * 200, b"]", b"-", b"\\"]), max_size=6
    ),
    st.binary(max_size=5),
)
def test_patterns_match_what_regular_expressions_say(pattern: bytes, pieces: list[bytes], other: bytes) -> None:
    keys = [b"".join(pieces), b"".join(reversed(pieces)), other, *pieces]
    expression = glob_model.compiled(pattern)
    assert matching(pattern, keys) == [key for key in keys if expression.fullmatch(key)]


def test_patterns_are_found_over_the_words_of_the_search() -> None:
    """Pieces of every length around a word's 64 sets, at any place, and just not."""
    for length in (1, 8, 9, 63, 64, 65, 127, 128, 129, 500, 1020):
        piece = b"?" * (length - 1) + b"x"
        for place in (length, length + 1, 3000):
            key = b"y" * (place - 1) + b"x" + b"y" * 10
            assert matching(b"*%b*" % piece, [key]) == [key]
            assert matching(b"*%b*" % piece, [key[: place - 1] + b"y" * 11, b"x" * (length - 1)]) == []


def test_the_worst_patterns_take_a_few_ms_for_the_longest_key() -> None:
    key = b"a" * 369_000
    for pattern in (
        *(
            b"*" + b"a" * 1000 + b"b*",
            b"*" + b"[ab]" * 200 + b"c*",
            b"*" + b"?" * 1000 + b"c*",
            b"*" + b"??????a?" * 100 + b"c*",
        ),
        *(b"*?" * 500 + b"c", b"*a" * 500 + b"c", b"*" + b"?" * 8 + b"c*", b"*" + b"a" * 250 + b"b*"),
    ):
        began = time.process_time()
        assert matching(pattern, [key] * 4) == []
        assert time.process_time() - began < 0.4, pattern


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=10), st.binary(min_size=120, max_size=135), st.just(b"k" * 256)), max_size=40)
)
def test_the_order_of_scans_is_that_of_the_hash(keys: list[bytes]) -> None:
    def place(key: bytes) -> int:
        return int.from_bytes(blake2b(key, digest_size=8).digest(), "big") or 1

    packed, found = places(keys)
    expected = sorted({(place(key), key) for key in keys})
    assert list(zip(array("Q", packed), found, strict=True)) == expected


def test_long_keys_have_the_place_of_their_hash() -> None:
    for length in (0, 1, 127, 128, 129, 255, 256, 257, 1000, 370_000):
        (place,) = array("Q", places([b"x" * length])[0])
        assert place == int.from_bytes(blake2b(b"x" * length, digest_size=8).digest(), "big")
    with pytest.raises(TypeError, match="a key is a int, not bytes"):
        places([b"a", 1])  # type: ignore[list-item]


def test_patterns_and_keys_that_are_none_are_errors() -> None:
    with pytest.raises(ValueError, match="1025 bytes; at most 1024"):
        matching(b"a" * 1025, [])
    with pytest.raises(TypeError, match="a key is a str, not bytes"):
        matching(b"a", [b"a", "a"])  # type: ignore[list-item]
    assert matching(b"*", {b"a": 1, b"b": 2}) == [b"a", b"b"] and matching(b"*", (key for key in (b"c",))) == [b"c"]


def test_long_patterns_cost_no_long_time() -> None:
    kv = KeyValue()
    ask(kv, "SET", "k", "v")
    began = time.process_time()
    for pattern in (b"[\x00-\xff]" * 74_000, b"[^a]" * 92_000, b"a" * 370_000, b"*?" * 185_000):
        assert ask(kv, "KEYS", pattern) == "ERR a pattern has at most 1024 bytes"
        assert ask(kv, "SCAN", 0, "MATCH", pattern) == "ERR a pattern has at most 1024 bytes"
        ask(kv, "KEYS", pattern[:1020])
        ask(kv, "SCAN", 0, "MATCH", pattern[:1020])
    assert time.process_time() - began < 1
    assert ask(kv, "KEYS", b"*" * 1024) == [b"k"]


# ---- bounds and reads ----


def test_replies_and_values_stay_within_a_response() -> None:
    kv = KeyValue()
    ask(kv, "SET", "big", b"x" * 300_000)
    assert ask(kv, "APPEND", "big", b"x" * 100_000).startswith("ERR string exceeds maximum allowed size")
    assert ask(kv, "SETRANGE", "big", 370_406, "x").startswith("ERR string exceeds maximum allowed size")
    assert ask(kv, "MGET", "big", "big").startswith("ERR the reply is larger")
    assert len(ask(kv, "GET", "big")) == 300_000


def test_a_short_request_does_not_have_gigabytes_made_for_a_reply_that_is_refused() -> None:
    kv = KeyValue()
    ask(kv, "SET", "big", b"x" * 300_000)
    apply(kv, *(encode_command("SET", b"%d" % i + b"k" * 30_000, 1) for i in range(300)))
    tracemalloc.start()
    try:
        for words in (("MGET", *["big"] * 30_000), ("KEYS", "*"), ("R2P2.BATCH", "DO", 300, "MGET", *["big"] * 299)):
            assert "the reply is larger" in str(ask(kv, *words))
        assert tracemalloc.get_traced_memory()[1] < 6 << 20
    finally:
        tracemalloc.stop()


def test_one_request_goes_through_many_keys_a_few_times_only() -> None:
    """Each of these costs what the store holds, not what the request does: thousands would cost minutes."""
    kv = KeyValue()
    ask(kv, "SET", "a", 1)
    most = limits.KV_SWEEPING_MAX
    for words in (["DBSIZE"], ["KEYS", "x*"], ["SCAN", "0", "MATCH", "x*"], ["FLUSHALL"], ["FLUSHDB"]):
        several = [word for _ in range(most + 1) for word in (len(words), *words)]
        # A pipeline stops before the one too many, and whoever sent it goes on from there.
        assert len(ask(kv, "R2P2.PIPELINE", 2, "GET", "a", *several, 2, "GET", "a")) == 1 + most
        refused = ask(kv, "R2P2.BATCH", "DO", *several)
        assert refused == "ERR more than 8 of SCAN, KEYS, DBSIZE, FLUSHALL and FLUSHDB in one batch"
        assert len(ask(kv, "R2P2.BATCH", "DO", *several[len(words) + 1 :])) == most
    assert ask(kv, "R2P2.PIPELINE", *[1, "DBSIZE"] * most) == [0] * most


def test_a_step_of_a_scan_goes_through_so_many_bytes_of_keys() -> None:
    kv = KeyValue()
    keys = {b"%d" % i + b"k" * 100_000 for i in range(50)}
    apply(kv, *(encode_command("SET", key, 1) for key in keys))
    for options in (["MATCH", "*"], ["TYPE", "none"]):
        cursor, found, steps = b"0", [], 0
        while steps == 0 or cursor != b"0":
            cursor, step = ask(kv, "SCAN", cursor, "COUNT", 4096, *options)
            found += step
            steps += 1
        assert steps >= 50 * 100_000 // (limits.KV_SCAN_BYTES_MAX + 100_000)
        assert sorted(found) == (sorted(keys) if options[0] == "MATCH" else [])


def test_queries_read_batches_of_reads() -> None:
    kv = KeyValue()
    ask(kv, "SET", "a", 1, "PX", 50, at=T0)
    assert kv.query(encode_command("R2P2.PIPELINE", 2, "GET", "a", 2, "TTL", "x")) == b"*2\r\n$1\r\n1\r\n:-2\r\n"
    assert kv.query(encode_command("R2P2.BATCH", "IF", "a", 1, "DO", 2, "GET", "a")) == b"*1\r\n$1\r\n1\r\n"
    for words in (
        ("R2P2.PIPELINE", 2, "GET", "a", 2, "INCR", "a"),
        ("R2P2.BATCH", "IFUNWRITTEN", "a", 1, "DO", 2, "GET", "a"),
        ("R2P2.WATCH", "a"),
        ("APPEND", "a", "x"),
    ):
        assert kv.query(encode_command(*words)).startswith(b"-READONLY"), words
