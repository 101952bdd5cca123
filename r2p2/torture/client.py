"""The process that calls a cluster under torture: ``python -m r2p2.torture.client SPEC``.

Some logical clients, each with one call at a time: it adds an element to a random key, or reads one, and goes on when
that has ended. Everything is written down (:mod:`r2p2.torture.history`). SPEC is one JSON object (:class:`Spec`). It
prints a ``status`` event now and then with what each node says of itself, and after the word ``stop`` (or the end of
its standard input) reads every key until it is answered, writes the history and prints ``done``.

Leaves to others: faults (nemesis.py), judging (checker.py).
"""

from __future__ import annotations

import json
import random
import select
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from r2p2 import cli
from r2p2.apps.kv import encode_command
from r2p2.client import FIXED_ROUTE, REPLICATED, REPLICATED_READ, PollClient
from r2p2.errors import CallError, UserError
from r2p2.node import STATE_REQUEST
from r2p2.ports import PortSpec, open_port
from r2p2.torture.history import ELEMENT_BYTES, Operation, element, elements, write_history
from r2p2.torture.mixed import mixed_command

__all__ = ["Spec", "main"]

IDLE_SECONDS: Final = 100e-6
STATUS_TIMEOUT_S: Final = 0.4
SETTLE_SECONDS: Final = 20.0
EXAMPLES_MAX: Final = 10
STATE_KEYS: Final = ("applied_index", "state_digest")
# Ten thousand lists, one after the other, at a few hundred reads a second of a busy machine.
READ_ALL_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Spec:
    """Who calls whom, and how.

    Attributes:
        port: the clients' port.
        targets: the cluster's members, ``IP:PORT`` each.
        history: the file to write.
        clients_count: logical clients, each with one call at a time.
        keys_count: lists in use at a time.
        elements_max: a list this long is left alone for a new one.
        reads_percent: of the calls, reads, at most 50; every other client makes them.
        timeout_s: of an addition with all its retries.
        read_timeout_s: of a read, which is not retried.
        think_s: between a client's calls.
        status_s: between questions to the nodes.
        seed: of keys and operations.
        sessions: calls are retried and executed at most once.
        mixed_percent: of the calls, commands on all of Redis's types (:mod:`r2p2.torture.mixed`), which are not judged
            one by one: they are there to make replicas differ, if anything can.
    """

    port: PortSpec
    targets: tuple[str, ...]
    history: str
    clients_count: int = 16
    keys_count: int = 8
    elements_max: int = 100
    reads_percent: int = 40
    timeout_s: float = 20.0
    read_timeout_s: float = 1.0
    think_s: float = 0.002
    status_s: float = 0.25
    seed: int = 1
    sessions: bool = True
    mixed_percent: int = 0

    def to_json(self) -> str:
        """The command line's form."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Spec:
        """The inverse. UserError when it is not what :meth:`to_json` writes."""
        try:
            read = json.loads(text)
            port = PortSpec.from_dict(read.pop("port"))
            return cls(port=port, targets=tuple(read.pop("targets")), **read)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"not a torture client's specification: {error}") from error


def say(event: str, **values: object) -> None:
    """Write one event."""
    print(json.dumps({"event": event, **values}), flush=True)


class Clients:
    """The logical clients over one :class:`~r2p2.client.PollClient`."""

    def __init__(self, client: PollClient, spec: Spec) -> None:
        self._client = client
        self._spec = spec
        self._session = client.session(*spec.targets) if spec.sessions else None
        self._rng = random.Random(spec.seed)
        self._numbers = 0  # elements made
        self._keys = [f"list{n}" for n in range(spec.keys_count)]
        self._keys_made = spec.keys_count
        self._all_keys = set(self._keys)
        self._idle: list[tuple[float, int]] = [(0.0, client_id) for client_id in range(spec.clients_count)]
        self._target = 0
        self._busy = 0
        self.operations: list[Operation] = []
        self.errors: dict[str, int] = {}

    @property
    def busy(self) -> bool:
        """Whether any call waits."""
        return self._busy > 0

    def start_due(self) -> None:
        """Begins the next call of each client that has thought long enough."""
        now = time.monotonic()
        due = [client_id for at, client_id in self._idle if at <= now]
        self._idle = [(at, client_id) for at, client_id in self._idle if at > now]
        for client_id in due:
            self._begin(client_id)

    def _begin(self, client_id: int) -> None:
        if self._rng.randrange(100) < self._spec.mixed_percent:
            self._mixed(client_id)
            return
        key = self._rng.choice(self._keys)
        # Every other client only adds, so that an interruption shows even while reads wait for their timeouts.
        if client_id % 2 and self._rng.randrange(100) < 2 * self._spec.reads_percent:
            self.read(client_id, key, self._rng.randrange(len(self._spec.targets)), self._rest)
            return
        self._numbers += 1
        added = element(self._numbers)
        started = time.monotonic_ns()

        def ended(outcome: bytes | CallError) -> None:
            length: int | None = None
            if isinstance(outcome, CallError):
                self._failed(outcome)
            elif outcome[:1] == b":" and int(outcome[1:-2]) % ELEMENT_BYTES == 0:
                length = int(outcome[1:-2]) // ELEMENT_BYTES
                if length >= self._spec.elements_max and key in self._keys:
                    self._new_key(key)
            else:
                self._note(f"reply {outcome[:40]!r}")
            returned = time.monotonic_ns() if length is not None else None
            self.operations.append(Operation(client_id, key, started, returned, added, None, length))
            self._rest(client_id)

        request = encode_command("APPEND", key, added)
        if self._session is None:
            self._call(self._target, request, ended, REPLICATED)
        else:
            self._busy += 1
            self._session.call(request, self._counted(ended), timeout_s=self._spec.timeout_s)

    def _mixed(self, client_id: int) -> None:
        """A command of any type; what it answers is not looked at."""

        def ended(outcome: bytes | CallError) -> None:
            if isinstance(outcome, CallError):
                self._failed(outcome)
            self._rest(client_id)

        request = encode_command(*mixed_command(self._rng))
        if self._session is None:
            self._call(self._target, request, ended, REPLICATED)
        else:
            self._busy += 1
            self._session.call(request, self._counted(ended), timeout_s=self._spec.timeout_s)

    def read(self, client_id: int, key: str, target: int, then: Callable[[int], None]) -> None:
        """Reads a key at one node; ``then`` is called with the client when it has ended, answered or not."""
        started = time.monotonic_ns()

        def ended(outcome: bytes | CallError) -> None:
            values: tuple[str, ...] | None = None
            if isinstance(outcome, CallError):
                self._failed(outcome)
            elif outcome == b"$-1\r\n":
                values = ()
            elif outcome[:1] == b"$":
                values = elements(outcome.split(b"\r\n", 1)[1][:-2])
            else:
                self._note(f"reply {outcome[:40]!r}")
            if values is not None:
                self.operations.append(Operation(client_id, key, started, time.monotonic_ns(), None, values))
            then(client_id)

        self._call(target, encode_command("GET", key), ended, REPLICATED_READ)

    def _call(self, target: int, payload: bytes, ended: Callable[[bytes | CallError], None], policy: int) -> None:
        self._busy += 1
        self._client.call(
            self._spec.targets[target],
            payload,
            self._counted(ended),
            policy=policy,
            timeout_s=self._spec.read_timeout_s if policy == REPLICATED_READ else self._spec.timeout_s,
        )

    def _counted(self, ended: Callable[[bytes | CallError], None]) -> Callable[[bytes | CallError], None]:
        def done(outcome: bytes | CallError) -> None:
            self._busy -= 1
            ended(outcome)

        return done

    def _new_key(self, full: str) -> None:
        fresh = f"list{self._keys_made}"
        self._keys_made += 1
        self._all_keys.add(fresh)
        self._keys[self._keys.index(full)] = fresh

    def _rest(self, client_id: int) -> None:
        self._idle.append((time.monotonic() + self._spec.think_s, client_id))

    def _failed(self, error: CallError) -> None:
        self._note(type(error).__name__)
        self._target = (self._target + 1) % len(self._spec.targets)

    def _note(self, what: str) -> None:
        if what in self.errors or len(self.errors) < 100:
            self.errors[what] = self.errors.get(what, 0) + 1

    # ---- the end ----

    def read_everything(self, step: Callable[[], None], timeout_s: float) -> list[str]:
        """Reads every key at every node, each until it is answered; the keys that a node did not answer for in time."""
        end = time.monotonic() + timeout_s
        nodes = range(len(self._spec.targets))
        todo = deque((key, target) for key in sorted(self._all_keys) for target in nodes)
        unread = set(todo)
        asked = 0

        def ask(key: str, target: int) -> None:
            nonlocal asked
            asked += 1
            before = len(self.operations)

            def then(_: int) -> None:
                nonlocal asked
                asked -= 1
                if any(o.key == key and o.values is not None for o in self.operations[before:]):
                    unread.discard((key, target))
                else:
                    todo.append((key, target))

            self.read(-1, key, target, then)

        while unread and time.monotonic() < end:
            while todo and asked < self._spec.clients_count:
                ask(*todo.popleft())
            step()
        return sorted({key for key, _ in unread})


class Status:
    """Asks every node now and then what it knows of itself."""

    def __init__(self, client: PollClient, spec: Spec) -> None:
        self._client = client
        self._spec = spec
        self._due = 0.0
        self._nodes: dict[str, Any] = {}
        self.compared = 0  # pairs of nodes that had applied the same when they were asked
        self.differing: list[int] = []  # indices at which they held something else
        self.last: dict[str, Any] = {}  # the last answers that were complete, one way or the other
        self._waiting = 0

    def ask_if_due(self) -> None:
        """Asks all, unless answers are awaited or it is too early."""
        now = time.monotonic()
        if self._waiting or now < self._due:
            return
        self._due = now + self._spec.status_s
        asked = time.monotonic()
        self._nodes = {}
        self._waiting = len(self._spec.targets)
        for target in self._spec.targets:

            def ended(outcome: bytes | CallError, target: str = target) -> None:
                self._waiting -= 1
                if isinstance(outcome, bytes):
                    self._nodes[target] = json.loads(outcome)
                if not self._waiting:
                    say("status", nodes=self._nodes, asked=asked)
                    self.last = self._nodes
                    self._compare(self._nodes.values())

            self._client.call(target, STATE_REQUEST, ended, policy=FIXED_ROUTE, timeout_s=STATUS_TIMEOUT_S)

    def _compare(self, nodes: Iterable[Mapping[str, Any]]) -> None:
        """Nodes that happen to have applied the same must hold the same, in the midst of it all."""
        digests: dict[int, str] = {}
        for node in nodes:
            digest = digests.setdefault(node["applied_index"], node["state_digest"])
            self.compared += 1
            if digest != node["state_digest"]:
                self.differing.append(node["applied_index"])
        self.compared -= len(digests)

    def settle(self, step: Callable[[], None], timeout_s: float) -> dict[str, dict[str, Any]]:
        """What the nodes say once all have applied the same, without load; what they said last when that takes longer
        than ``timeout_s``.
        """
        end = time.monotonic() + timeout_s
        while self._waiting:
            step()
        self.last, self._due = {}, 0.0
        while time.monotonic() < end:
            step()
            applied = {(node.get("applied_index"), node.get("commit_index")) for node in self.last.values()}
            if len(self.last) == len(self._spec.targets) and len({i for pair in applied for i in pair}) == 1:
                break
        return self.last


def run(spec: Spec) -> int:
    """Calls until it is told to stop; 0, or 1 when a key could not be read in the end."""
    with open_port(spec.port) as port:
        client = PollClient(port)
        try:
            clients, status = Clients(client, spec), Status(client, spec)

            def step() -> None:
                status.ask_if_due()
                if not client.poll_once():
                    time.sleep(IDLE_SECONDS)

            say("ready")
            while not select.select([0], [], [], 0)[0]:
                clients.start_due()
                step()
            waited = time.monotonic() + 2 * spec.timeout_s
            while clients.busy and time.monotonic() < waited:
                step()
            unread = clients.read_everything(step, READ_ALL_TIMEOUT_S)
            nodes = status.settle(step, SETTLE_SECONDS)
        finally:
            client.close()
    write_history(Path(spec.history), clients.operations)
    compared = {"compared": status.compared, "differing": status.differing[:EXAMPLES_MAX]}
    states = {target: {key: node.get(key) for key in STATE_KEYS} for target, node in nodes.items()}
    say("done", operations=len(clients.operations), errors=clients.errors, unread=unread, states=states, **compared)
    return 1 if unread else 0


def main(argv: Sequence[str]) -> int:
    """The process; its exit code."""
    if len(argv) != 1:
        print("usage: python -m r2p2.torture.client SPEC (a JSON object)", file=sys.stderr)
        return 2
    return cli.guard(lambda: run(Spec.from_json(argv[0])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
