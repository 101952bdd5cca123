"""Which commands a replicated Redis takes, and why not the others.

A command is let in because somebody has looked at it: what it does to the data depends on the data alone. A newer Redis
has commands this table does not know; they are refused, since one that depends on a clock would make replicas differ in
silence. What the server itself says of a command (COMMAND) is held against the table at the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from r2p2.apps.kv.resp import error, unknown_command

__all__ = ["READS", "REFUSED", "WRITES", "ServerCommand", "is_write", "refusal"]

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
        return words_count == self.arity if self.arity >= 0 else words_count >= -self.arity


def is_write(name: bytes) -> bool:
    """Whether a command, in any spelling, has to go through the log; what is unknown is refused wherever it goes."""
    return name.upper() in WRITES


def refusal(words: list[bytes]) -> bytes:
    """The error reply to a command that is not let in."""
    reason = REFUSED.get(words[0].upper())
    if reason is None:
        return unknown_command(words)
    return error(b"'%b' is refused: %b" % (words[0].lower(), reason))
