"""The simulated state machine: registers that count their changes, and sessions that make retries harmless.

An operation swaps a register's value: it gets the value before and the number of changes, its ``version``. So an
operation that was executed twice, lost after its answer, or reordered leaves a mark that clients can see
(histories.py). Sessions are those of the dissertation, 6.3: opened by a log entry whose index names them, replies
kept until the client says that it needs them no more, the least recently used one evicted in log order.

Left to others: consensus on the order (raft/), who sends what (clients.py). The transport's own session table is C;
this one is what the core is simulated with.
"""

from __future__ import annotations

from typing import Final, TypeAlias

OPEN: Final = 0
SWAP: Final = 1
READ: Final = 2

DONE: Final = 0
EXPIRED: Final = 1

EMPTY: Final = (0, 0)

# (sessions_max, registers, sessions): plain values, which marshal writes.
Exported: TypeAlias = tuple[int, list[tuple[int, tuple[int, int]]], list[tuple[int, int, list[tuple[int, int, int]]]]]


class Request:
    """One attempt of a client's operation. ``client`` and ``call`` say whom to answer; replicas do not look at them."""

    __slots__ = ("call", "client", "key", "kind", "oldest_pending", "sequence", "session", "value")

    def __init__(
        self, client: int, call: int, kind: int, session: int, sequence: int, oldest_pending: int, key: int, value: int
    ) -> None:
        """``session`` 0 and ``sequence`` 0: OPEN."""
        self.client = client
        self.call = call
        self.kind = kind
        self.session = session
        self.sequence = sequence
        self.oldest_pending = oldest_pending
        self.key = key
        self.value = value

    def __repr__(self) -> str:
        """For traces."""
        if self.kind == OPEN:
            return f"client {self.client} opens a session"
        if self.kind == READ:
            return f"client {self.client} reads r{self.key}"
        return f"client {self.client} session {self.session} #{self.sequence} r{self.key} := {self.value}"


class Reply:
    """What an operation gave. OPEN: ``version`` is the session; SWAP and READ: the register's version and value, of
    SWAP the value before.
    """

    __slots__ = ("status", "value", "version")

    def __init__(self, status: int, version: int, value: int) -> None:
        """``status``: DONE or EXPIRED."""
        self.status = status
        self.version = version
        self.value = value

    def __repr__(self) -> str:
        """For traces."""
        return "expired" if self.status == EXPIRED else f"version {self.version}, value {self.value}"


class Session:
    """One client's: replies of operations that it may still ask for, by sequence; those before ``oldest`` are done."""

    __slots__ = ("oldest", "replies")

    def __init__(self) -> None:
        """None yet."""
        self.oldest = 0
        self.replies: dict[int, Reply] = {}


class Machine:
    """Deterministic: equal logs, equal machines, whatever batches they came in."""

    __slots__ = ("registers", "sessions", "sessions_max")

    def __init__(self, sessions_max: int = 1_000) -> None:
        """All registers are 0 at version 0."""
        self.sessions_max = sessions_max
        self.registers: dict[int, tuple[int, int]] = {}  # key -> (version, value)
        self.sessions: dict[int, Session] = {}  # least recently used first

    def apply(self, index: int, request: Request) -> Reply | None:
        """Executes the entry at ``index``; None where nobody waits for an answer any more."""
        if request.kind == OPEN:
            self.sessions[index] = Session()
            if len(self.sessions) > self.sessions_max:
                del self.sessions[next(iter(self.sessions))]
            return Reply(DONE, index, 0)
        session = self.sessions.pop(request.session, None)
        if session is None:
            return Reply(EXPIRED, 0, 0)
        self.sessions[request.session] = session  # the most recently used now
        if request.oldest_pending > session.oldest:
            session.oldest = request.oldest_pending
            for sequence in [sequence for sequence in session.replies if sequence < session.oldest]:
                del session.replies[sequence]
        if request.sequence < session.oldest:
            return None  # a late duplicate: the client has had its answer
        kept = session.replies.get(request.sequence)
        if kept is None:
            version, before = self.registers.get(request.key, EMPTY)
            self.registers[request.key] = (version + 1, request.value)
            kept = session.replies[request.sequence] = Reply(DONE, version + 1, before)
        return kept

    def read(self, key: int) -> Reply:
        """The register as it is."""
        version, value = self.registers.get(key, EMPTY)
        return Reply(DONE, version, value)

    def export(self) -> Exported:
        """All of the state as plain values; the order of sessions is part of it."""
        sessions = [
            (number, session.oldest, [(sequence, r.version, r.value) for sequence, r in session.replies.items()])
            for number, session in self.sessions.items()
        ]
        return self.sessions_max, sorted(self.registers.items()), sessions

    @staticmethod
    def of(exported: Exported) -> Machine:
        """The machine that :meth:`export` described."""
        sessions_max, registers, sessions = exported
        machine = Machine(sessions_max)
        machine.registers = dict(registers)
        for number, oldest, replies in sessions:
            session = machine.sessions[number] = Session()
            session.oldest = oldest
            session.replies = {sequence: Reply(DONE, version, value) for sequence, version, value in replies}
        return machine

    def copy(self) -> Machine:
        """An independent machine in the same state."""
        return Machine.of(self.export())
