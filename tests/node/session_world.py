"""A client of one session on the in-memory network, and an application that shows what was executed how often.

The application keeps the text of every request it was given, in order, and replies with how many there were: a request
executed twice, lost or reordered shows in the list, and a reply that is another request's shows at the client.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from r2p2.app import StateMachine
from r2p2.engine import DONE_OK, Engine, EngineConfig
from r2p2.memory import MemoryNetwork
from r2p2.requests import Replies, ReplySequence, Requests
from tests.node.support import World


class Journal(StateMachine):
    """Replies ``<number of requests so far> <the request>``; to a request of the form ``big N ...``, N bytes of it."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def _one(self, request: bytes) -> bytes:
        self.seen.append(request)
        reply = b"%d " % len(self.seen) + request
        if request.startswith(b"big "):
            length = int(request.split()[1])
            reply = (reply * (length // len(reply) + 1))[:length]
        return reply

    def apply(self, requests: Requests) -> ReplySequence:
        return Replies.pack([self._one(request) for request in requests])

    def snapshot(self) -> bytes:
        return json.dumps([request.hex() for request in self.seen]).encode()

    def restore(self, data: bytes) -> None:
        self.seen = [bytes.fromhex(request) for request in json.loads(data)]

    def state_digest(self) -> str:
        return hashlib.sha256(b"\0".join(self.seen)).hexdigest()


class SessionCaller:
    """Calls in one session; what each got, by tag."""

    def __init__(
        self, network: MemoryNetwork, servers: list[tuple[int, int]], address: tuple[int, int], first_sequence: int = 1
    ) -> None:
        self.engine = Engine(network.open(*address), EngineConfig(reassembly_count_max=256))
        self.port = address[1]
        self.engine.client_open(self.port)
        self.session = self.engine.session_new(self.port, servers, first_sequence=first_sequence)
        self.tag = 0
        self.sent: dict[int, bytes] = {}
        self.ended: dict[int, tuple[int, bytes]] = {}

    def call(self, payload: bytes, ms: float = 5000, retry_ms: float = 0) -> int:
        self.tag += 1
        rid = self.engine.session_call(
            self.port,
            self.session,
            payload,
            timeout_ns=int(ms * 1e6),
            retry_ns=int(retry_ms * 1e6),
            tag=self.tag,
        )
        assert rid is not None
        self.sent[self.tag] = payload
        self.engine.flush()
        return self.tag

    def poll_once(self) -> int:
        packets = self.engine.poll()[1]
        for completion in self.engine.completions():
            assert completion.tag not in self.ended, "a call ends once"
            self.ended[completion.tag] = (completion.status, completion.payload)
        self.engine.flush()
        return packets

    def next_deadline_ns(self) -> int | None:
        return None

    def now_ns(self) -> int:
        return self.engine.now_ns()

    @property
    def waiting(self) -> int:
        return len(self.sent) - len(self.ended)

    def acknowledged(self) -> dict[bytes, int]:
        """Request -> its place in the journal, as its reply says it; every reply is to its own request."""
        places = {}
        for tag, (status, reply) in self.ended.items():
            if status == DONE_OK:
                number, _, request = reply.partition(b" ")
                sent = self.sent[tag]
                whole = request == sent or (sent.startswith(b"big ") and request.startswith(sent))
                assert whole, "a reply to another request"
                places[sent] = int(number)
        return places


class SessionWorld(World):
    """A cluster of journals with session clients, at 10.0.1.1 and on."""

    def __init__(
        self, size: int = 3, seed: int = 1, clients: int = 1, first_sequences: Sequence[int] = (), **engine: int
    ) -> None:
        super().__init__(size, seed, Journal, **engine)  # type: ignore[arg-type]  # they are of EngineConfig alone
        servers = [self.addresses[i] for i in sorted(self.addresses)]
        firsts = [*first_sequences, *[1] * (clients - len(first_sequences))]
        self.callers = [
            SessionCaller(self.network, servers, (0x0A000100 + i, 9000), first) for i, first in enumerate(firsts)
        ]

    @property
    def caller(self) -> SessionCaller:
        return self.callers[0]

    def run(self, ms: float) -> None:
        self.network.run([*self.nodes.values(), self.client, *self.callers], int(ms * 1e6))
        self.keep_packets()

    def settle(self, ms: float = 10_000) -> None:
        """Until every call has ended and all members have applied the same."""
        self.run_until(lambda: not any(caller.waiting for caller in self.callers), ms)
        self.run(300)

    def journals(self) -> list[list[bytes]]:
        seen = []
        for node in self.nodes.values():
            assert isinstance(node.app, Journal)
            seen.append(node.app.seen)
        return seen

    def check(self) -> None:
        """Exactly once: every acknowledged request is in every journal where its reply said, none is there twice, and
        nothing is there that was not sent; the session tables are equal.
        """
        journals = self.journals()
        sent = {request for caller in self.callers for request in caller.sent.values()}
        for journal in journals:
            assert len(set(journal)) == len(journal), "executed twice"
            assert set(journal) <= sent
            for caller in self.callers:
                for request, place in caller.acknowledged().items():
                    assert journal[place - 1] == request
        assert len(self.digests()) == 1
        assert len({node.engine.sessions_export() for node in self.nodes.values()}) == 1

    def counter(self, name: str) -> int:
        """Summed over members."""
        return sum(node.engine.counters()[name] for node in self.nodes.values())

    def __exit__(self, *exception: object) -> None:
        for caller in self.callers:
            caller.engine.close()
        super().__exit__(None, None, None)
