"""Which commands a replicated Redis takes, and why not the others.

A command is let in because somebody has looked at it: what it does to the data depends on the data alone. A newer Redis
has commands this table does not know; they are refused, since one that depends on a clock would make replicas differ in
silence. What the server itself says of a command (COMMAND) is held against the table at the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from r2p2.apps.kv.resp import error, unknown_command, wrong_number

__all__ = ["ARITY", "READS", "REFUSED", "WRITES", "ServerCommand", "is_write", "refusal", "words_error"]

_STRINGS: Final = (
    "APPEND DECR DECRBY GETDEL GETEX GETSET INCR INCRBY INCRBYFLOAT MSET MSETNX PSETEX SET SETEX SETNX SETRANGE "
    "BITFIELD BITOP SETBIT PFADD PFMERGE "
    # It keeps the count it made inside the key: a read that is a write.
    "PFCOUNT"
)
_KEYS: Final = (
    "COPY DEL EXPIRE EXPIREAT PERSIST PEXPIRE PEXPIREAT RENAME RENAMENX RESTORE SORT UNLINK FLUSHALL FLUSHDB "
    # Of the adapter itself.
    "R2P2.BATCH R2P2.BATCH3 R2P2.PIPELINE R2P2.PIPELINE3 R2P2.RESP3 R2P2.WATCH"
)
_COLLECTIONS: Final = (
    "HDEL HINCRBY HINCRBYFLOAT HMSET HSET HSETNX "
    "LINSERT LMOVE LMPOP LPOP LPUSH LPUSHX LREM LSET LTRIM RPOP RPOPLPUSH RPUSH RPUSHX "
    "SADD SDIFFSTORE SINTERSTORE SMOVE SREM SUNIONSTORE "
    "ZADD ZDIFFSTORE ZINCRBY ZINTERSTORE ZMPOP ZPOPMAX ZPOPMIN ZRANGESTORE ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK "
    "ZREMRANGEBYSCORE ZUNIONSTORE "
    "GEOADD GEORADIUS GEORADIUSBYMEMBER GEOSEARCHSTORE XADD XDEL XSETID XTRIM"
)
WRITES: Final = frozenset(f"{_STRINGS} {_KEYS} {_COLLECTIONS}".encode().split())
"""Commands that may change data, in capitals: they go through the log."""

READS: Final = frozenset(
    (
        b"GET GETRANGE LCS MGET STRLEN SUBSTR BITCOUNT BITFIELD_RO BITPOS GETBIT "
        b"DBSIZE DUMP EXISTS EXPIRETIME KEYS PEXPIRETIME PTTL SCAN SORT_RO TOUCH TTL TYPE "
        b"HEXISTS HGET HGETALL HKEYS HLEN HMGET HSCAN HSTRLEN HVALS "
        b"LINDEX LLEN LPOS LRANGE "
        b"SCARD SDIFF SINTER SINTERCARD SISMEMBER SMEMBERS SMISMEMBER SSCAN SUNION "
        b"ZCARD ZCOUNT ZDIFF ZINTER ZINTERCARD ZLEXCOUNT ZMSCORE ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREVRANGE "
        b"ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION "
        b"GEODIST GEOHASH GEOPOS GEORADIUS_RO GEORADIUSBYMEMBER_RO GEOSEARCH "
        b"XINFO XLEN XRANGE XREAD XREVRANGE COMMAND ECHO PING"
    ).split()
)
"""Commands that change nothing, in capitals."""

_CHANCE: Final = b"it draws lots, and every replica would draw its own"
_CLOCK: Final = b"it depends on the clock of a replica's machine"
_WAITS: Final = b"it waits, and the log cannot"
_CONNECTION: Final = b"it is about a connection, and the log has none"
_TRANSACTION: Final = b"send the commands as one R2P2.BATCH"
_SCRIPT: Final = b"a script may do what commands may not"
_SERVER: Final = b"it is about a server, and there are several"
_SUBSCRIPTION: Final = b"messages to subscribers are not in the log"

REFUSED: Final[dict[bytes, bytes]] = {
    name.encode(): reason
    for reason, names in (
        (_CHANCE, "SPOP SRANDMEMBER HRANDFIELD ZRANDMEMBER RANDOMKEY"),
        (_CLOCK, "TIME OBJECT XACK XAUTOCLAIM XCLAIM XGROUP XPENDING XREADGROUP LASTSAVE"),
        (_WAITS, "BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN WAIT WAITAOF"),
        (_CONNECTION, "ASKING AUTH CLIENT HELLO MONITOR QUIT READONLY READWRITE RESET SELECT"),
        (_TRANSACTION, "DISCARD EXEC MULTI UNWATCH WATCH"),
        (_SCRIPT, "EVAL EVALSHA EVALSHA_RO EVAL_RO FCALL FCALL_RO FUNCTION SCRIPT"),
        (
            _SERVER,
            "ACL BGREWRITEAOF BGSAVE CLUSTER CONFIG DEBUG FAILOVER INFO LATENCY LOLWUT MEMORY MIGRATE MODULE MOVE "
            "PFDEBUG PFSELFTEST PSYNC REPLCONF REPLICAOF RESTORE-ASKING ROLE SAVE SHUTDOWN SLAVEOF SLOWLOG SWAPDB SYNC",
        ),
        (
            _SUBSCRIPTION,
            "PSUBSCRIBE PUBLISH PUBSUB PUNSUBSCRIBE SPUBLISH SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE UNSUBSCRIBE",
        ),
    )
    for name in names.split()
}
"""Why a command of Redis is refused, by its name in capitals."""
assert not WRITES & READS
assert not (WRITES | READS) & REFUSED.keys()


# Of Redis 7.0, as COMMAND has them: so many words, the name included; below 0: at least so many.
_ARITIES: Final = (
    (1, "DBSIZE"),
    (-1, "COMMAND FLUSHALL FLUSHDB PING"),
    (
        2,
        "COMMAND|COUNT COMMAND|HELP DECR DUMP ECHO EXPIRETIME GET GETDEL HGETALL HKEYS HLEN HVALS INCR "
        "KEYS LLEN PERSIST PEXPIRETIME PTTL SCARD SMEMBERS STRLEN TTL TYPE XINFO|HELP XLEN ZCARD",
    ),
    (
        -2,
        "BITCOUNT BITFIELD BITFIELD_RO COMMAND|DOCS COMMAND|INFO COMMAND|LIST DEL EXISTS GEOHASH GEOPOS "
        "GETEX LPOP MGET PFADD PFCOUNT PFMERGE RPOP SCAN SDIFF SINTER SORT SORT_RO SUNION TOUCH UNLINK "
        "XINFO ZPOPMAX ZPOPMIN",
    ),
    (
        3,
        "APPEND DECRBY GETBIT GETSET HEXISTS HGET HSTRLEN INCRBY INCRBYFLOAT LINDEX RENAME RENAMENX "
        "RPOPLPUSH SETNX SISMEMBER XINFO|GROUPS ZRANK ZREVRANK ZSCORE",
    ),
    (
        -3,
        "BITPOS COPY EXPIRE EXPIREAT HDEL HMGET HSCAN LCS LPOS LPUSH LPUSHX MSET MSETNX PEXPIRE PEXPIREAT "
        "RPUSH RPUSHX SADD SDIFFSTORE SET SINTERCARD SINTERSTORE SMISMEMBER SREM SSCAN SUNIONSTORE XDEL "
        "XINFO|STREAM XSETID ZDIFF ZINTER ZINTERCARD ZMSCORE ZREM ZSCAN ZUNION",
    ),
    (
        4,
        "GETRANGE HINCRBY HINCRBYFLOAT HSETNX LRANGE LREM LSET LTRIM PSETEX SETBIT SETEX SETRANGE SMOVE "
        "SUBSTR XINFO|CONSUMERS ZCOUNT ZINCRBY ZLEXCOUNT ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE",
    ),
    (
        -4,
        "BITOP COMMAND|GETKEYS COMMAND|GETKEYSANDFLAGS GEODIST HMSET HSET LMPOP RESTORE XRANGE XREAD "
        "XREVRANGE XTRIM ZADD ZDIFFSTORE ZINTERSTORE ZMPOP ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZREVRANGE "
        "ZREVRANGEBYLEX ZREVRANGEBYSCORE ZUNIONSTORE",
    ),
    (5, "LINSERT LMOVE"),
    (-5, "GEOADD GEORADIUSBYMEMBER GEORADIUSBYMEMBER_RO XADD ZRANGESTORE"),
    (-6, "GEORADIUS GEORADIUS_RO"),
    (-7, "GEOSEARCH"),
    (-8, "GEOSEARCHSTORE"),
)
ARITY: Final[dict[bytes, int]] = {name.encode(): arity for arity, names in _ARITIES for name in names.split()}
"""By name in capitals; those that have subcommands are there with each of them, too."""
_FAMILIES: Final = frozenset(name.partition(b"|")[0] for name in ARITY if b"|" in name)
_SHOWN_BYTES_MAX: Final = 128


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """What the running server says of a command it has and that the table lets in.

    Attributes:
        arity: words, the name included; below 0: at least so many.
        keys: where keys are among the words: first, last (below 0: from the end), step; None: not to be told so simply.
    """

    arity: int
    keys: tuple[int, int, int] | None

    def takes(self, words_count: int) -> bool:
        """Whether the command may have so many words."""
        return _takes(self.arity, words_count)


def _takes(arity: int, words_count: int) -> bool:
    return words_count == arity if arity >= 0 else words_count >= -arity


def is_write(name: bytes) -> bool:
    """Whether a command, in any spelling, has to go through the log; what is unknown is refused wherever it goes."""
    return name.upper() in WRITES


def refusal(words: list[bytes]) -> bytes:
    """The error reply to a command that is not let in."""
    reason = REFUSED.get(words[0].upper())
    if reason is None:
        return unknown_command(words)
    return error(b"'%b' is refused: %b" % (words[0].lower(), reason))


def words_error(words: list[bytes]) -> bytes | None:
    """The error by which Redis refuses a command that is let in without a look at the data: a wrong number of words, or
    a subcommand it does not have.
    """
    name = words[0].upper()
    if not _takes(ARITY[name], len(words)):
        return wrong_number(name)
    if name not in _FAMILIES or len(words) < 2:
        return None
    full = b"%b|%b" % (name, words[1].upper())
    if full not in ARITY:
        return error(b"unknown subcommand '%b'. Try %b HELP." % (words[1][:_SHOWN_BYTES_MAX], name))
    return None if _takes(ARITY[full], len(words)) else wrong_number(full)
