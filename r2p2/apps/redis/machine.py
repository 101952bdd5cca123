"""A redis-server as a replicated application: batches of RESP requests in, its replies out.

A batch goes to the server in one write, and its replies are read in order and given back as they are. What a command
needs besides stands in `plan.py`. State that is not Redis's: the log's time, and the watches of transactions.

Only what is in the log writes, and only what the data decides: then the servers of all replicas hold the same. A server
that fails ends its member (:class:`~r2p2.apps.redis.link.RedisFailed`).
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain, pairwise
from typing import Any, Final

import hiredis

from r2p2 import limits
from r2p2.app import StateMachine
from r2p2.apps.kv.batches import split_commands, split_conditions
from r2p2.apps.kv.resp import NIL_ARRAY, SYNTAX, array_of, error, integer, parse_int64, wrong_number
from r2p2.apps.redis.child import Server, Settings, parse
from r2p2.apps.redis.commands import READS, WRITES, ServerCommand, refusal
from r2p2.apps.redis.deadlines import SHIFT_MS
from r2p2.apps.redis.dump import PIECE_BYTES, Dump
from r2p2.apps.redis.link import Link, RedisFailed, encode
from r2p2.apps.redis.pipeline import EXECUTED_TOO_LARGE, HEADER_BYTES, REPLY_BYTES_MAX, cut_to_fit, run_pipeline
from r2p2.apps.redis.plan import PLANS, Alone, Plan, Step, Time
from r2p2.apps.redis.scan import Scanner
from r2p2.engine import resp_first_broken
from r2p2.requests import ReplySequence, Requests

__all__ = ["RedisServer"]

_MAGIC: Final = b"R2RS"
_VERSION: Final = 2
# Magic, version, now_ms, the last watch's number, watched keys, bytes of the dump. Behind these, the watches and the
# dump: a BLAKE2b-128 of all that.
_HEADER: Final = struct.Struct(">4sIQQQQ")
_CHECK_BYTES: Final = 16
_WATCH: Final = struct.Struct(">QI")
_BROKEN: Final = b"-ERR Protocol error: not one RESP command\r\n"
_READONLY: Final = b"-READONLY send writes with the replicated policy\r\n"
_OWN: Final = {
    b"R2P2.BATCH": 2,
    b"R2P2.BATCH3": 2,
    b"R2P2.PIPELINE": 3,
    b"R2P2.PIPELINE3": 3,
    b"R2P2.RESP3": 2,
    b"R2P2.WATCH": 2,
}
"""Commands of the adapter itself, and the words they have at least."""
_RESP3: Final = b"R2P2.RESP3"
# Commands of a transaction that Redis is sent at once; nobody else sends it any meanwhile.
_PORTION: Final = 128
# Keys asked after at once.
_KEYS_AT_ONCE: Final = 4096


class RedisServer(StateMachine):
    """A redis-server behind :class:`~r2p2.app.StateMachine`.

    Args:
        settings: which one; by default from the environment (docs/redis.md).

    Raises:
        UserError: it cannot be started, or is none that replicas may have.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._server = Server(settings or Settings.from_environment())
        self._link, self._link3 = self._server.link, self._server.link3
        try:
            self._commands = self._learn_commands()
        except BaseException:
            self._server.close()
            raise
        self._time = Time()
        self._scanner = Scanner()
        self._watched: dict[bytes, int] = {}
        self._watch_number = 0
        self._reader = hiredis.Reader()
        self._reminders_max = limits.REDIS_REMINDERS_SLACK_COUNT
        self._digest = ""  # of the state as it is; "": it has changed since

    @property
    def pid(self) -> int | None:
        """Of the child; None: the server was there already."""
        return self._server.pid

    def _learn_commands(self) -> dict[bytes, ServerCommand]:
        """The commands that are let in and that the server has, by name in capitals and in small letters."""
        found = {}
        for name, arity, flags, first, last, step, *_ in parse(self._link.one("COMMAND")):
            capitals = name.upper()
            said = {str(flag, "ascii") if isinstance(flag, bytes) else str(flag) for flag in flags}
            if capitals not in WRITES | READS or (capitals in READS and "write" in said):
                continue
            keys = (first, last, step) if first and "movablekeys" not in said else None
            found[capitals] = found[capitals.lower()] = ServerCommand(arity, keys)
        return found

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """A failure inside gets what the server said last."""
        try:
            yield
        except RedisFailed as failed:
            raise self._server.why(failed) from failed

    # ---- batches ----

    def apply(self, requests: Requests) -> ReplySequence:
        """Executes a batch at the time it carries."""
        with self._explained():
            if requests.time_ms > self._time.now_ms:
                self._time.now_ms = requests.time_ms
                self._end_keys()
            self._scanner.turn()
            self._digest = ""
            return self._execute_all(requests, self._commands_of(requests))

    def next_deadline_ms(self) -> int | None:
        """When the next key may end: time goes on to there without requests, too."""
        return self._time.deadlines.next_ms

    def query(self, request: bytes) -> bytes:
        """A command that does not write, from this replica's own server and at the time of the last batch applied."""
        return self.query_batch(Requests.of([request]))[0]

    def query_batch(self, requests: Requests) -> list[bytes]:
        """Answers a group of linearizable reads."""
        with self._explained():
            commands = self._commands_of(requests)
            for i, words in enumerate(commands):
                if isinstance(words, list) and not self._reads_only(words):
                    commands[i] = _READONLY
            return self._execute_all(requests, commands)

    def _commands_of(self, requests: Requests) -> list[list[bytes] | bytes]:
        """The words of each request, or the error reply to one that is no command."""
        count = len(requests)
        if resp_first_broken(requests) == count:
            self._reader.feed(requests.slab)
            gets = self._reader.gets
            return [gets() for _ in range(count)]
        return [self._words(request) for request in requests]

    def _words(self, request: bytes) -> list[bytes] | bytes:
        if resp_first_broken(Requests.of([request])) != 1:
            return _BROKEN
        reader = hiredis.Reader()
        reader.feed(request)
        command: Any = reader.gets()
        return list(command)

    def _reads_only(self, words: list[bytes]) -> bool:
        name = words[0].upper()
        if name not in WRITES:
            return True
        if name == b"R2P2.WATCH" or name not in _OWN:
            return False
        if name == _RESP3:
            return len(words) == 1 or words[1].upper() not in WRITES
        at = 1
        if name in (b"R2P2.BATCH", b"R2P2.BATCH3"):
            parsed = split_conditions(words)
            if parsed is None or any(condition[0].upper() == b"IFUNWRITTEN" for condition in parsed[0]):
                return False
            at = parsed[1]
        commands = split_commands(words, at)
        return isinstance(commands, bytes) or not any(inner[0].upper() in WRITES for inner in commands)

    def _execute_all(self, requests: Requests, commands: Sequence[list[bytes] | bytes]) -> list[bytes]:
        """One reply for each request, none larger than a response."""
        ends = list(accumulate(requests.lengths, initial=0))
        slab = requests.slab
        raws = [slab[start:end] for start, end in pairwise(ends)]
        replies = self._execute(commands, raws)
        return [reply if len(reply) <= REPLY_BYTES_MAX else EXECUTED_TOO_LARGE for reply in replies]

    def _execute(
        self, commands: Sequence[list[bytes] | bytes], raws: Sequence[bytes] | None = None, link: Link | None = None
    ) -> list[bytes]:
        """Executes commands in order, as many at once as no answer is needed between; ``raws``: their bytes."""
        replies: list[bytes] = []
        asked = first_link = link or self._link
        pending: list[bytes] = []  # what Redis is to be sent
        steps: list[tuple[int, Step | None]] = []  # place in `replies`, and what its answer needs
        for i, words in enumerate(commands):
            wanted = first_link
            is_raw = raws is not None
            if isinstance(words, list) and len(words) > 1 and words[0].upper() == _RESP3:
                words, wanted, is_raw = words[1:], self._link3, False
            if wanted is not asked:
                self._flush(asked, pending, steps, replies)
                asked = wanted
            plan: Plan = words if isinstance(words, bytes) else self._plan(words)
            if plan is None:
                assert isinstance(words, list)
                pending.append(raws[i] if is_raw and raws is not None else encode(*words))
                steps.append((len(replies), None))
                replies.append(b"")
            elif isinstance(plan, Step):
                pending.append(plan.payload)
                steps.append((len(replies), plan))
                replies.append(b"")
            elif isinstance(plan, Alone):
                self._flush(asked, pending, steps, replies)
                replies.append(plan.run(asked))
            else:
                replies.append(plan)
        self._flush(asked, pending, steps, replies)
        return replies

    def _flush(
        self, link: Link, pending: list[bytes], steps: list[tuple[int, Step | None]], replies: list[bytes]
    ) -> None:
        if not pending:
            return
        answers = link.ask(b"".join(pending), sum(1 if step is None else step.count for _, step in steps))
        at = 0
        for place, step in steps:
            if step is None:
                replies[place] = answers[at]
                at += 1
                continue
            replies[place] = answers[at] if step.finish is None else step.finish(answers[at : at + step.count])
            at += step.count
        pending.clear()
        steps.clear()

    def _plan(self, words: list[bytes]) -> Plan:
        """What becomes of a command."""
        found = self._commands.get(words[0]) or self._commands.get(words[0].upper())
        if found is None:
            return self._plan_own(words)
        if not found.takes(len(words)):
            return wrong_number(words[0])
        name = words[0].upper()
        if (self._watched or self._scanner.is_active) and name in WRITES:
            self._written(found, words)
        if name == b"SCAN":
            return Alone(lambda link: self._scan(words))
        planner = PLANS.get(name)
        return None if planner is None else planner(self._time, words)

    def _plan_own(self, words: list[bytes]) -> Plan:
        name = words[0].upper()
        if name not in _OWN:
            return refusal(words)
        if len(words) < _OWN[name]:
            return wrong_number(words[0])
        if name == _RESP3:
            return _not_inside(words[0])
        if name == b"R2P2.WATCH":
            return self._watch(words)
        run = self._batch if name.startswith(b"R2P2.BATCH") else self._pipeline
        link = self._link3 if name.endswith(b"3") else self._link
        return Alone(lambda _: run(words, link))

    # ---- several in one request, as docs/kv.md has them ----

    def _inner_error(self, words: list[bytes]) -> bytes | None:
        """Why a command may not stand in a batch."""
        found = self._commands.get(words[0].upper())
        if found is None:
            return refusal(words) if words[0].upper() not in _OWN else _not_inside(words[0])
        return None if found.takes(len(words)) else wrong_number(words[0])

    def _batch(self, words: list[bytes], link: Link) -> bytes:
        parsed = split_conditions(words)
        if parsed is None:
            return SYNTAX
        conditions, at = parsed
        commands = split_commands(words, at)
        if isinstance(commands, bytes):
            return commands
        for inner in commands:
            if (wrong := self._inner_error(inner)) is not None:
                return wrong
        if not all(self._holds(condition) for condition in conditions):
            return NIL_ARRAY
        room = REPLY_BYTES_MAX - HEADER_BYTES - len(EXECUTED_TOO_LARGE) * len(commands)
        fitting = []
        # In portions: thousands of long replies, of which a response carries the first, are not in memory all at once.
        portions = (commands[at : at + _PORTION] for at in range(0, len(commands), _PORTION))
        for reply in chain.from_iterable(self._execute(portion, link=link) for portion in portions):
            room_now = max(room, len(EXECUTED_TOO_LARGE))
            fitting.append(reply if len(reply) <= room_now else cut_to_fit(reply, room_now))
            room -= max(len(fitting[-1]) - len(EXECUTED_TOO_LARGE), 0)
        return array_of(fitting, len(fitting))

    def _holds(self, condition: list[bytes]) -> bool:
        name, key = condition[0].upper(), condition[1]
        if name == b"IF":
            value = condition[2]
            return self._link.one("GET", key) == b"$%d\r\n%b\r\n" % (len(value), value)
        if name == b"IFUNWRITTEN":
            number = parse_int64(condition[2])
            return number is not None and self._watched.get(key) == number
        return (self._link.one("EXISTS", key) == b":0\r\n") == (name == b"IFABSENT")

    def _pipeline(self, words: list[bytes], link: Link) -> bytes:
        commands = split_commands(words, 1)
        if isinstance(commands, bytes):
            return commands
        replies = run_pipeline(commands, link, lambda part: self._execute(part, link=link), self._inner_error)
        return array_of(replies, len(replies))

    def _watch(self, words: list[bytes]) -> bytes:
        """Writes that stand before it and have not been answered yet have ended their watches already."""
        numbers = []
        for key in words[1:]:
            number = self._watched.get(key)
            if number is None:
                self._watch_number += 1
                number = self._watched[key] = self._watch_number
                if len(self._watched) > limits.KV_WATCHED_MAX:
                    del self._watched[next(iter(self._watched))]
            numbers.append(integer(number))
        return array_of(numbers, len(numbers))

    def _written(self, command: ServerCommand, words: list[bytes]) -> None:
        """Watches of the keys end, and a scan learns of them; keys that cannot be told may have been any."""
        if command.keys is None:
            self._watched.clear()
            self._scanner.forget()
            return
        first, last, step = command.keys
        for key in words[first : (last if last >= 0 else len(words) + last) + 1 : step]:
            self._watched.pop(key, None)
            self._scanner.add(key)

    # ---- keys ----

    def _scan(self, words: list[bytes]) -> bytes:
        keys = None if self._scanner.is_active else parse(self._link.one("KEYS", "*"))
        return self._scanner.scan(self._link, words, keys)

    def _end_keys(self) -> None:
        """Removes the keys whose deadline the log's time has passed."""
        deadlines = self._time.deadlines
        due = deadlines.due(self._time.now_ms)
        for at in range(0, len(due), _KEYS_AT_ONCE):
            whens = self._whens(due[at : at + _KEYS_AT_ONCE])
            ended = [key for key, when in whens.items() if when < self._time.now_ms]
            for key, when in whens.items():
                if when >= self._time.now_ms:
                    deadlines.remind(key, when)
            for key in ended:
                self._watched.pop(key, None)
            if ended:
                self._link.one("UNLINK", *ended)
        if len(deadlines) > self._reminders_max:
            self._remind_anew(deadlines.keys())

    def _whens(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """The deadlines of those keys that have one."""
        found = {}
        for at in range(0, len(keys), _KEYS_AT_ONCE):
            part = keys[at : at + _KEYS_AT_ONCE]
            answers = self._link.ask(b"".join(encode("PEXPIRETIME", key) for key in part), len(part))
            for key, answer in zip(part, answers, strict=True):
                if (value := int(answer[1:-2])) >= 0:
                    found[key] = value - SHIFT_MS
        return found

    def _remind_anew(self, keys: Sequence[bytes]) -> None:
        """Has a reminder for each of ``keys`` that has a deadline, and no other."""
        whens = self._whens(keys)
        self._time.deadlines.replace(whens)
        self._reminders_max = 2 * len(whens) + limits.REDIS_REMINDERS_SLACK_COUNT

    # ---- the whole ----

    def snapshot(self) -> Generator[bytes, None, None]:
        """Redis's own dump, behind the log's time and the watches; Redis makes it while it goes on."""
        with self._explained():
            dump = self._server.save()
        watches = b"".join(_WATCH.pack(number, len(key)) + key for key, number in self._watched.items())
        return self._pieces(dump, watches, (self._time.now_ms, self._watch_number, len(self._watched)))

    def _pieces(self, dump: Dump, watches: bytes, counts: tuple[int, int, int]) -> Generator[bytes, None, None]:
        check = hashlib.blake2b(digest_size=_CHECK_BYTES)
        with self._explained():
            for file in dump.opened():
                if file is None:
                    yield b""
                    continue
                size = os.fstat(file.fileno()).st_size
                piece = _HEADER.pack(_MAGIC, _VERSION, *counts, size) + watches
                while piece:
                    check.update(piece)
                    yield piece
                    piece = file.read(PIECE_BYTES)
        yield check.digest()

    def restore(self, data: bytes) -> None:
        """Becomes the state of a :meth:`snapshot`.

        Raises:
            ValueError: the bytes are not one; nothing has changed.
        """
        if len(data) < _HEADER.size + _CHECK_BYTES:
            raise ValueError(f"a snapshot of {len(data)} bytes is shorter than its header")
        magic, version, now_ms, watch_number, watched_count, dump_bytes = _HEADER.unpack_from(data)
        if (magic, version) != (_MAGIC, _VERSION):
            raise ValueError(f"a snapshot begins with {magic!r} and version {version}, not {_MAGIC!r} and {_VERSION}")
        at, end = _HEADER.size, len(data) - _CHECK_BYTES
        if hashlib.blake2b(memoryview(data)[:end], digest_size=_CHECK_BYTES).digest() != data[end:]:
            raise ValueError(f"a snapshot of {len(data)} bytes is damaged: its checksum differs")
        watched = {}
        for _ in range(watched_count):
            number, length = _WATCH.unpack_from(data, at)
            at += _WATCH.size
            watched[data[at : at + length]] = number
            at += length
        if end - at != dump_bytes:
            raise ValueError(f"a snapshot's dump has {end - at} bytes, and its header says {dump_bytes}")
        with self._explained():
            self._server.load(memoryview(data)[at:end])
            self._time.now_ms = now_ms
            self._watched, self._watch_number = watched, watch_number
            self._scanner.forget()
            self._digest = ""
            self._remind_anew(self._keys_with_deadlines())

    def _keys_with_deadlines(self) -> list[bytes]:
        if b",expires=0," in (space := self._link.one("INFO", "keyspace")) or b"expires=" not in space:
            return []
        return list(parse(self._link.one("KEYS", "*")))

    def state_digest(self) -> str:
        """SHA-256 over Redis's own digest of its data, the deadlines, and the watches."""
        with self._explained():
            if not self._digest:
                digest = hashlib.sha256(self._link.one("DEBUG", "DIGEST"))
                for key, when in self._whens(self._time.deadlines.keys()).items():
                    digest.update(b"%d %d " % (len(key), when))
                    digest.update(key)
                for key, number in self._watched.items():
                    digest.update(b"%d %d " % (len(key), number))
                    digest.update(key)
                self._digest = digest.hexdigest()
            return self._digest

    def close(self) -> None:
        """Ends the child; a server that was there already goes on. Idempotent."""
        self._server.close()


def _not_inside(name: bytes) -> bytes:
    return error(b"%b is not allowed inside a batch" % name)
