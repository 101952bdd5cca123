"""Commands on keys as such: what is there, how many, which, gone.

KEYS lists in order of the keys' bytes. SCAN goes through the keys in order of a hash of theirs, and its cursor is a
place among the hashes: so it needs no state, and a key that is there all along is listed, whatever else comes and goes.
RANDOMKEY is left out: chance would differ between replicas.
"""

from __future__ import annotations

import re
from typing import Final

from r2p2 import limits
from r2p2.apps.kv._plain import matching
from r2p2.apps.kv.registry import command
from r2p2.apps.kv.resp import EMPTY, OK, PATTERN_TOO_LONG, SYNTAX, TOO_LARGE, array_of, bulk, error, integer
from r2p2.apps.kv.scan import PLACE_MAX, ScanOptions, scan_options, scan_step
from r2p2.apps.kv.store import Store

# As strtoull reads one, and with it Redis 7.0: maybe with a sign, and nothing at all is 0.
_CURSOR: Final = re.compile(rb"([+-]?[0-9]+)?")
# More keys than a response carries, were they empty.
_KEYS_MAX: Final = limits.REPLICATED_REPLY_BYTES_MAX // len(EMPTY)


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


@command("DBSIZE", 1, 1, sweeping=True)
def dbsize(store: Store, words: list[bytes]) -> bytes:
    """DBSIZE: how many keys are there."""
    return integer(store.count())


def _flush(store: Store, words: list[bytes]) -> bytes:
    if len(words) == 2 and words[1].upper() not in (b"SYNC", b"ASYNC"):
        return SYNTAX
    store.clear()
    return OK


@command("FLUSHALL", 1, writes=True, sweeping=True)
def flushall(store: Store, words: list[bytes]) -> bytes:
    """FLUSHALL [SYNC | ASYNC]."""
    return _flush(store, words) if len(words) < 3 else SYNTAX


@command("FLUSHDB", 1, writes=True, sweeping=True)
def flushdb(store: Store, words: list[bytes]) -> bytes:
    """FLUSHDB [SYNC | ASYNC]: FLUSHALL, since there is one database."""
    return _flush(store, words) if len(words) < 3 else SYNTAX


@command("KEYS", 2, 2, sweeping=True)
def keys(store: Store, words: list[bytes]) -> bytes:
    """KEYS pattern; an error when a response cannot carry them all."""
    if len(words[1]) > limits.KV_PATTERN_BYTES_MAX:
        return PATTERN_TOO_LONG
    found = matching(words[1], store.live_keys())
    if len(found) > _KEYS_MAX:
        return TOO_LARGE  # and need not be sorted
    return array_of(map(bulk, sorted(found)), len(found))


@command("SCAN", 2, sweeping=True)
def scan(store: Store, words: list[bytes]) -> bytes:
    """SCAN cursor [MATCH pattern] [COUNT n] [TYPE type]."""
    text = words[1]
    cursor = int(text or b"0") if len(text) <= 20 and _CURSOR.fullmatch(text) else None
    if cursor is None or abs(cursor) > PLACE_MAX:
        return error(b"invalid cursor")
    cursor %= PLACE_MAX + 1
    options = scan_options(words[2:])
    return options if isinstance(options, bytes) else _scan(store, cursor, options, options.count)


def _scan(store: Store, cursor: int, options: ScanOptions, count: int) -> bytes:
    step, following = scan_step(store.scan_after(cursor), count)
    strings = options.type_name in (None, b"string")
    found = options.matching(step) if strings else []
    reply = array_of([bulk(b"%d" % following), array_of(map(bulk, found), len(found))], 2)
    # Long keys: what a response cannot carry is left for the next step.
    fits = not reply.startswith(b"-") and TOO_LARGE not in reply[-len(TOO_LARGE) :]
    return reply if fits or count == 1 else _scan(store, cursor, options, count // 2)
