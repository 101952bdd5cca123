"""What the gateway answers by itself: greetings, settings, and questions about commands and the gateway.

As little as redis-cli, redis-benchmark and the usual libraries need to work. Leaves to others: transactions
(`connection.py`), data (the cluster).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from r2p2 import limits
from r2p2.apps.kv._plain import matching
from r2p2.apps.kv.registry import COMMANDS, Command, find
from r2p2.apps.kv.resp import (
    NIL,
    NIL_ARRAY,
    NOT_AN_INTEGER,
    OK,
    PATTERN_TOO_LONG,
    SYNTAX,
    bulk,
    error,
    integer,
    parse_int64,
    wrong_number,
)

__all__ = ["LOCAL", "ClientState", "LocalCommand", "run_local"]

NAME_BYTES_MAX: Final = 128


@dataclass(slots=True)
class ClientState:
    """What a connection knows of itself, and of its gateway."""

    client_id: int
    address: str
    info: Callable[[], Mapping[str, Mapping[str, object]]]
    name: bytes = b""
    protocol: int = 2
    library: dict[bytes, bytes] = field(default_factory=dict)


Handler: TypeAlias = Callable[[ClientState, list[bytes]], bytes]


@dataclass(frozen=True, slots=True)
class LocalCommand:
    """A command of the gateway's own: words it takes at least and at most, the name included, and its handler."""

    least: int
    most: int
    run: Handler


LOCAL: Final[dict[bytes, LocalCommand]] = {}
"""By name in capitals."""


def _local(name: str, least: int, most: int = 1 << 30) -> Callable[[Handler], Handler]:
    def put(handler: Handler) -> Handler:
        LOCAL[name.encode()] = LocalCommand(least, most, handler)
        return handler

    return put


def _array(items: list[bytes]) -> bytes:
    return b"*%d\r\n%b" % (len(items), b"".join(items))


def _map(state: ClientState, items: list[bytes]) -> bytes:
    """Names and values in turn: a map in RESP3, an array in RESP2."""
    return b"%%%d\r\n%b" % (len(items) // 2, b"".join(items)) if state.protocol == 3 else _array(items)


def _unknown(words: list[bytes]) -> bytes:
    return error(b"unknown subcommand '%b'. Try %b HELP." % (words[1][:NAME_BYTES_MAX], words[0].upper()))


_BAD_NAME: Final = error(b"Client names cannot contain spaces, newlines or special characters.")


def _is_name(text: bytes) -> bool:
    return all(33 <= byte <= 126 for byte in text)


@_local("PING", 1, 2)
def _ping(state: ClientState, words: list[bytes]) -> bytes:
    return bulk(words[1]) if len(words) == 2 else b"+PONG\r\n"


@_local("ECHO", 2, 2)
def _echo(state: ClientState, words: list[bytes]) -> bytes:
    return bulk(words[1])


_WRONG_PASSWORD: Final = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"


@_local("SELECT", 2, 2)
def _select(state: ClientState, words: list[bytes]) -> bytes:
    number = parse_int64(words[1])
    if number is None:
        return NOT_AN_INTEGER
    return OK if number == 0 else error(b"DB index is out of range")


@_local("AUTH", 2, 3)
def _auth(state: ClientState, words: list[bytes]) -> bytes:
    """As a Redis without a password: its one user may have any."""
    if len(words) == 3:
        return OK if words[1] == b"default" else _WRONG_PASSWORD
    return error(
        b"AUTH <password> called without any password configured for the default user. "
        b"Are you sure your configuration is correct?"
    )


@_local("HELLO", 1)
def _hello(state: ClientState, words: list[bytes]) -> bytes:
    version = parse_int64(words[1]) if len(words) > 1 else state.protocol
    if version is None:
        return error(b"Protocol version is not an integer or out of range")
    if version not in (2, 3):
        return b"-NOPROTO unsupported protocol version\r\n"
    at = 2
    while at < len(words):
        if words[at].upper() == b"SETNAME" and at + 1 < len(words):
            if not _is_name(words[at + 1]):
                return _BAD_NAME
            state.name = words[at + 1][:NAME_BYTES_MAX]
            at += 2
        elif words[at].upper() == b"AUTH" and at + 2 < len(words):
            if (refused := _auth(state, words[at : at + 3])) != OK:
                return refused
            at += 3
        else:
            return error(b"Syntax error in HELLO option '%b'" % words[at][:NAME_BYTES_MAX])
    state.protocol = version
    pairs = (
        b"server",
        b"redis",
        b"version",
        b"7.0.0",
        b"proto",
        state.protocol,
        b"id",
        state.client_id,
        b"mode",
        b"standalone",
    )
    fields = [integer(item) if isinstance(item, int) else bulk(item) for item in (*pairs, b"role", b"master")]
    return _map(state, [*fields, bulk(b"modules"), b"*0\r\n"])


_CLIENT_WORDS: Final = {
    **{b"ID": 2, b"GETNAME": 2, b"SETNAME": 3, b"SETINFO": 4, b"INFO": 2, b"GETREDIR": 2},
    **{b"REPLY": 3, b"NO-EVICT": 3, b"NO-TOUCH": 3},
}
_NO_TRACKING: Final = error(b"this gateway does not tell clients what others change: CLIENT TRACKING is not there")
_NO_SILENCE: Final = error(b"this gateway answers every command: CLIENT REPLY is ON")


@_local("CLIENT", 2)
def _client(state: ClientState, words: list[bytes]) -> bytes:
    what = words[1].upper()
    if what in _CLIENT_WORDS and len(words) != _CLIENT_WORDS[what]:
        return wrong_number(b"client|%b" % what)
    if what == b"ID":
        return integer(state.client_id)
    if what == b"GETNAME":
        return bulk(state.name) if state.name else NIL
    if what == b"SETNAME":
        if not _is_name(words[2]):
            return _BAD_NAME
        state.name = words[2][:NAME_BYTES_MAX]
        return OK
    if what == b"SETINFO":
        if words[2].upper() not in (b"LIB-NAME", b"LIB-VER"):
            return error(b"Unrecognized option '%b'" % words[2][:NAME_BYTES_MAX])
        if not _is_name(words[3]):
            return error(b"%b cannot contain spaces, newlines or special characters." % words[2].lower())
        state.library[words[2].upper()] = words[3][:NAME_BYTES_MAX]
        return OK
    if what in (b"INFO", b"LIST"):
        shown = (str(state.client_id).encode(), state.address.encode(), state.name, str(state.protocol).encode())
        library = (state.library.get(b"LIB-NAME", b""), state.library.get(b"LIB-VER", b""))
        return bulk(b"id=%b addr=%b name=%b db=0 resp=%b lib-name=%b lib-ver=%b\n" % (*shown, *library))
    if what == b"GETREDIR":
        return integer(-1)
    if what in (b"NO-EVICT", b"NO-TOUCH", b"REPLY", b"TRACKING") and len(words) > 2:
        return _switch(what, words[2].upper())
    return _unknown(words)


def _switch(what: bytes, value: bytes) -> bytes:
    """What clients switch on or off at their start: what a gateway has none of may be off."""
    if value not in (b"ON", b"OFF") and (what, value) != (b"REPLY", b"SKIP"):
        return SYNTAX
    if what == b"REPLY" and value != b"ON":
        return _NO_SILENCE
    return _NO_TRACKING if (what, value) == (b"TRACKING", b"ON") else OK


def _describe(command: Command) -> bytes:
    """A command as Redis's COMMAND shows it: name, count of words, flags, keys, and no more."""
    arity = command.least if command.least == command.most else -command.least
    flags = [b"+write\r\n" if command.writes else b"+readonly\r\n"]
    keys = [integer(place) for place in command.keys]
    return _array([bulk(command.name.lower()), integer(arity), _array(flags), *keys, b"*0\r\n"])


@_local("COMMAND", 1)
def _command(state: ClientState, words: list[bytes]) -> bytes:
    table = [COMMANDS[name] for name in sorted(COMMANDS) if name.isupper()]
    what = words[1].upper() if len(words) > 1 else b""
    if what == b"":
        return _array([_describe(command) for command in table])
    if what == b"COUNT":
        if len(words) > 2:
            return wrong_number(b"command|count")
        return integer(len(table))
    if what == b"INFO":
        chosen = [find(name) for name in words[2:]] if len(words) > 2 else list(table)
        return _array([NIL_ARRAY if command is None else _describe(command) for command in chosen])
    if what == b"LIST":
        return _array([bulk(command.name.lower()) for command in table])
    if what == b"DOCS":
        return _map(state, [])
    return _unknown(words)


_SETTINGS: Final = {
    **{b"save": b"", b"appendonly": b"no", b"databases": b"1", b"maxmemory": b"0", b"timeout": b"0"},
    **{b"maxmemory-policy": b"noeviction", b"notify-keyspace-events": b"", b"replica-read-only": b"yes"},
}


@_local("CONFIG", 2)
def _config(state: ClientState, words: list[bytes]) -> bytes:
    what = words[1].upper()
    if what == b"GET":
        if len(words) == 2:
            return wrong_number(b"config|get")
        if any(len(word) > limits.KV_PATTERN_BYTES_MAX for word in words[2:]):
            return PATTERN_TOO_LONG
        names = {name for word in words[2:] for name in matching(word.lower(), _SETTINGS)}
        found = [item for item in _SETTINGS.items() if item[0] in names]
        return _map(state, [bulk(text) for item in found for text in item])
    if what == b"SET":
        return error(b"this is a gateway: its settings are arguments of `r2p2 gateway`")
    return _unknown(words)


@_local("ROLE", 1, 1)
def _role(state: ClientState, words: list[bytes]) -> bytes:
    """Of a master without replicas: whoever asks wants to know where to write."""
    return _array([bulk(b"master"), integer(0), _array([])])


@_local("CLUSTER", 2)
@_local("READONLY", 1, 1)
@_local("READWRITE", 1, 1)
@_local("ASKING", 1, 1)
def _cluster(state: ClientState, words: list[bytes]) -> bytes:
    """Clients that can do both ask whether there is a Redis Cluster, and know this answer."""
    return error(b"This instance has cluster support disabled")


@_local("INFO", 1)
def _info(state: ClientState, words: list[bytes]) -> bytes:
    wanted = {word.decode("ascii", "replace").lower() for word in words[1:]} - {"all", "default", "everything"}
    lines = []
    for section, values in state.info().items():
        if not wanted or section.lower() in wanted:
            lines += [f"# {section}", *(f"{name}:{value}" for name, value in values.items()), ""]
    return bulk("\r\n".join(lines).encode())


def run_local(state: ClientState, words: list[bytes]) -> bytes | None:
    """The reply; None: not a command of the gateway's own."""
    command = LOCAL.get(words[0].upper())
    if command is None:
        return None
    if not command.least <= len(words) <= command.most:
        return wrong_number(words[0])
    return command.run(state, words)
