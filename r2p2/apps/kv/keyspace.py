"""Commands on keys as such: what is there, how many, which, gone.

KEYS lists in order of the keys' bytes. SCAN goes through the keys in order of a hash of theirs, and its cursor is a
place among the hashes: so it needs no state, and a key that is there all along is listed, whatever else comes and goes.
RANDOMKEY is left out: chance would differ between replicas.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Final

from r2p2.apps.kv.glob import compiled
from r2p2.apps.kv.registry import command
from r2p2.apps.kv.resp import NOT_AN_INTEGER, OK, SYNTAX, TOO_LARGE, array_of, bulk, error, integer, parse_int64
from r2p2.apps.kv.scan import PLACE_MAX
from r2p2.apps.kv.store import Store

_CURSOR: Final = re.compile(rb"([+-]?[0-9]+)?")
_SCAN_COUNT: Final = 10
# A step of SCAN holds up the node for a few milliseconds at most.
_SCAN_COUNT_MAX: Final = 4096


def _remove(store: Store, words: list[bytes]) -> bytes:
    removed = 0
    for key in words[1:]:
        if store.get_to_write(key) is not None:
            store.remove(key)
            removed += 1
    return integer(removed)


@command("DEL", 2, writes=True, keys=(1, -1, 1))
def del_(store: Store, words: list[bytes]) -> bytes:
    """DEL key ..."""
    return _remove(store, words)


@command("UNLINK", 2, writes=True, keys=(1, -1, 1))
def unlink(store: Store, words: list[bytes]) -> bytes:
    """UNLINK key ...: DEL."""
    return _remove(store, words)


def _count(store: Store, words: list[bytes]) -> bytes:
    return integer(sum(store.get(key) is not None for key in words[1:]))


@command("EXISTS", 2, keys=(1, -1, 1))
def exists(store: Store, words: list[bytes]) -> bytes:
    """EXISTS key ...: how many are there; one named twice counts twice."""
    return _count(store, words)


@command("TOUCH", 2, keys=(1, -1, 1))
def touch(store: Store, words: list[bytes]) -> bytes:
    """TOUCH key ...: EXISTS, since nothing is kept of when a key was used."""
    return _count(store, words)


@command("TYPE", 2, 2, keys=(1, 1, 1))
def type_(store: Store, words: list[bytes]) -> bytes:
    """TYPE key: string or none."""
    return b"+none\r\n" if store.get(words[1]) is None else b"+string\r\n"


@command("DBSIZE", 1, 1)
def dbsize(store: Store, words: list[bytes]) -> bytes:
    """DBSIZE: how many keys are there."""
    return integer(store.count())


def _flush(store: Store, words: list[bytes]) -> bytes:
    if len(words) == 2 and words[1].upper() not in (b"SYNC", b"ASYNC"):
        return SYNTAX
    store.clear()
    return OK


@command("FLUSHALL", 1, writes=True)
def flushall(store: Store, words: list[bytes]) -> bytes:
    """FLUSHALL [SYNC | ASYNC]."""
    return _flush(store, words) if len(words) < 3 else SYNTAX


@command("FLUSHDB", 1, writes=True)
def flushdb(store: Store, words: list[bytes]) -> bytes:
    """FLUSHDB [SYNC | ASYNC]: FLUSHALL, since there is one database."""
    return _flush(store, words) if len(words) < 3 else SYNTAX


@command("KEYS", 2, 2)
def keys(store: Store, words: list[bytes]) -> bytes:
    """KEYS pattern; an error when a response cannot carry them all."""
    matches = compiled(words[1]).fullmatch
    found = sorted(key for key in store.live_keys() if matches(key))
    return array_of(map(bulk, found), len(found))


@command("SCAN", 2)
def scan(store: Store, words: list[bytes]) -> bytes:
    """SCAN cursor [MATCH pattern] [COUNT n] [TYPE type]."""
    text = words[1]
    cursor = int(text or b"0") if len(text) <= 20 and _CURSOR.fullmatch(text) else None
    if cursor is None or abs(cursor) > PLACE_MAX:
        return error(b"invalid cursor")
    cursor %= PLACE_MAX + 1
    count: int | None = _SCAN_COUNT
    pattern: bytes | None = None
    wanted = b"string"
    options = words[2:]
    while options:
        name, rest = options[0].upper(), options[1:]
        if not rest or name not in (b"MATCH", b"COUNT", b"TYPE"):
            return SYNTAX
        if name == b"COUNT":
            count = parse_int64(rest[0])
            if count is None:
                return NOT_AN_INTEGER
            if count < 1:
                return SYNTAX
        elif name == b"MATCH":
            pattern = rest[0]
        else:
            wanted = rest[0].lower()
        options = rest[1:]
    assert count is not None
    return _scan(store, cursor, min(count, _SCAN_COUNT_MAX), pattern, wanted == b"string")


def _scan(store: Store, cursor: int, count: int, pattern: bytes | None, strings: bool) -> bytes:
    ahead = store.scan_after(cursor)
    step = list(islice(ahead, count))
    following = 0
    if len(step) == count:
        # Keys with one hash are not parted: those that share the last one's come along.
        for item in ahead:
            if item[0] != step[-1][0]:
                following = step[-1][0]
                break
            step.append(item)
    found = [key for _, key in step if strings and (pattern is None or compiled(pattern).fullmatch(key))]
    reply = array_of([bulk(b"%d" % following), array_of(map(bulk, found), len(found))], 2)
    # Long keys: what a response cannot carry is left for the next step.
    fits = not reply.startswith(b"-") and TOO_LARGE not in reply[-len(TOO_LARGE) :]
    return reply if fits or count == 1 else _scan(store, cursor, count // 2, pattern, strings)
