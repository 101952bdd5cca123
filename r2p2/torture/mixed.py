"""Commands on all of Redis's types, drawn from a seed: strings, hashes, lists, sets, sorted sets, streams, deadlines.

Few keys, so that commands meet: types that do not fit, keys that end, renames onto each other. Leaves to others: what
became of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

__all__ = ["mixed_command"]

_KEYS_COUNT: Final = 12
_Words: TypeAlias = Sequence[str | int]
_Maker: TypeAlias = Callable[[random.Random, str, str, int], _Words]

_MAKERS: Final[tuple[_Maker, ...]] = (
    lambda rng, a, b, n: ("SET", f"any:{a}", n, "PX", rng.randrange(1, 3000)),
    lambda rng, a, b, n: ("SET", f"any:{a}", n, *rng.choice((("NX",), ("KEEPTTL",), ("XX", "GET"), ("EXAT", 1)))),
    lambda rng, a, b, n: ("GETEX", f"any:{a}", "EX", rng.randrange(1, 4)),
    lambda rng, a, b, n: ("PEXPIRE", f"any:{a}", rng.randrange(-10, 3000), *rng.choice(((), ("NX",), ("GT",)))),
    lambda rng, a, b, n: ("PERSIST", f"any:{a}"),
    lambda rng, a, b, n: (rng.choice(("TTL", "PTTL", "PEXPIRETIME")), f"any:{a}"),
    lambda rng, a, b, n: (rng.choice(("RENAME", "RENAMENX", "COPY")), f"any:{a}", f"any:{b}"),
    lambda rng, a, b, n: ("DEL", f"any:{a}", f"any:{b}"),
    lambda rng, a, b, n: ("INCRBYFLOAT", f"float:{a}", f"{n / 8}"),
    lambda rng, a, b, n: ("HSET", f"hash:{a}", f"f{n}", n, f"g{n % 9}", "v" * (n % 99)),
    lambda rng, a, b, n: ("HINCRBY", f"hash:{a}", f"f{n % 9}", n),
    lambda rng, a, b, n: ("HDEL", f"hash:{a}", f"f{n}", f"f{n % 9}"),
    lambda rng, a, b, n: (rng.choice(("LPUSH", "RPUSH")), f"list:{a}", n, n + 1),
    lambda rng, a, b, n: (rng.choice(("LPOP", "RPOP")), f"list:{a}", 2),
    lambda rng, a, b, n: ("LMOVE", f"list:{a}", f"list:{b}", "LEFT", "RIGHT"),
    lambda rng, a, b, n: ("SADD", f"set:{a}", n, rng.choice(("x", "y", n + 1))),
    lambda rng, a, b, n: ("SREM", f"set:{a}", n, "x"),
    lambda rng, a, b, n: (rng.choice(("SINTERSTORE", "SUNIONSTORE", "SDIFFSTORE")), "set:0", f"set:{a}", f"set:{b}"),
    lambda rng, a, b, n: ("SORT", f"set:{a}", "ALPHA", "STORE", f"list:{b}"),
    lambda rng, a, b, n: ("ZADD", f"zset:{a}", f"{n / 4}", f"m{n % 40}"),
    lambda rng, a, b, n: ("ZPOPMIN", f"zset:{a}"),
    lambda rng, a, b, n: ("ZUNIONSTORE", "zset:0", 2, f"zset:{a}", f"zset:{b}", "WEIGHTS", "0.3", "0.7"),
    lambda rng, a, b, n: ("XADD", f"stream:{a}", "MAXLEN", "~", 40, "*", "field", n),
    lambda rng, a, b, n: ("SETBIT", f"bits:{a}", n, n % 2),
    lambda rng, a, b, n: ("PFADD", f"hll:{a}", n, n * 7),
    lambda rng, a, b, n: ("PFCOUNT", f"hll:{a}", f"hll:{b}"),
    lambda rng, a, b, n: ("GEOADD", f"geo:{a}", f"{n / 10}", f"{n / 20}", f"p{n % 30}"),
    lambda rng, a, b, n: ("EXPIRE", f"{rng.choice(('hash', 'list', 'set', 'zset', 'stream'))}:{a}", 2),
    lambda rng, a, b, n: ("SPOP", f"set:{a}"),
    lambda rng, a, b, n: ("EVAL", "return redis.call('TIME')", 0),
    lambda rng, a, b, n: (
        "R2P2.BATCH",
        "IFPRESENT",
        f"any:{a}",
        "DO",
        2,
        "INCR",
        f"any:{b}",
        3,
        "APPEND",
        f"any:{a}",
        n,
    ),
    lambda rng, a, b, n: (
        "R2P2.PIPELINE",
        2,
        "HGETALL",
        f"hash:{a}",
        4,
        "SETEX",
        f"any:{b}",
        1,
        n,
        2,
        "GET",
        f"any:{b}",
    ),
)


def mixed_command(rng: random.Random) -> _Words:
    """The next one."""
    maker = rng.choice(_MAKERS)
    return maker(rng, str(rng.randrange(_KEYS_COUNT)), str(rng.randrange(_KEYS_COUNT)), rng.randrange(500))
