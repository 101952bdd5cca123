"""A lock service in one file: leases that end by the log's time, and fencing tokens.

Run it: ``python examples/locks.py``. ``r2p2 serve --app examples.locks:Locks --members ...`` runs it as processes, and
``r2p2 call ADDRESS --policy replicated "acquire printer anna 5000"`` asks for a lock.

Requests are words, replies too:

    acquire NAME OWNER LEASE_MS         granted TOKEN ENDS_MS | held OWNER TOKEN ENDS_MS
    renew NAME OWNER TOKEN LEASE_MS     granted TOKEN ENDS_MS | lost
    release NAME OWNER TOKEN            released | lost
    who NAME (a read, too)              held OWNER TOKEN ENDS_MS | free

A lease ends when the *log's* time has come to ENDS_MS: at the same request on every member, whatever their clocks say.
That time moves with committed requests, so who waits for a lock asks again, and each asking is a tick;
``next_deadline_ms`` has the leader carry the time on when nobody asks. An owner whose lease has ended may not know it
yet. So a lock gives a *token*, which rises with every grant, and what the lock protects refuses tokens lower than one
that it has seen.
"""

import asyncio
import heapq
import json
import sys
from dataclasses import asdict, dataclass

import r2p2

LOCKS_MAX = 10_000
LEASE_MS_MAX = 3_600_000


@dataclass
class Lock:
    """One lock that is held. ``ends_ms``: of the log's time, unix milliseconds."""

    owner: str
    token: int
    ends_ms: int

    def __str__(self) -> str:
        return f"held {self.owner} {self.token} {self.ends_ms}"


class Locks(r2p2.StateMachine):
    """Locks by name. Only ``apply`` changes them, and only with what the log says."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.last_token = 0
        self.locks: dict[str, Lock] = {}
        # (ends_ms, name) of every grant; those of renewed and released locks are skipped when they come up.
        self._ends: list[tuple[int, str]] = []

    def apply(self, requests: r2p2.Requests) -> list[bytes]:
        """Ends leases by the log's time, then answers."""
        self.now_ms = max(self.now_ms, requests.time_ms)
        while self._ends and self._ends[0][0] <= self.now_ms:
            _, name = heapq.heappop(self._ends)
            if name in self.locks and self.locks[name].ends_ms <= self.now_ms:
                del self.locks[name]
        return [self._answer(request).encode() for request in requests]

    def query(self, request: bytes) -> bytes:
        """``who``, as a read: it does not enter the log."""
        words = request.decode(errors="replace").split()
        return self._who(words[1]).encode() if len(words) == 2 and words[0] == "who" else b"error: reads are: who NAME"

    def next_deadline_ms(self) -> int | None:
        """When the next lease ends, so that it does though nobody asks."""
        return self._ends[0][0] if self._ends else None

    def _answer(self, request: bytes) -> str:
        try:
            match request.decode().split():
                case ["acquire", name, owner, lease_ms]:
                    return self._acquire(name, owner, _lease(lease_ms))
                case ["renew", name, owner, token, lease_ms]:
                    return self._renew(name, owner, int(token), _lease(lease_ms))
                case ["release", name, owner, token]:
                    if not self._holds(name, owner, int(token)):
                        return "lost"
                    del self.locks[name]
                    return "released"
                case ["who", name]:
                    return self._who(name)
                case _:
                    return (
                        "error: acquire NAME OWNER LEASE_MS, renew NAME OWNER TOKEN LEASE_MS, release NAME OWNER TOKEN"
                    )
        except ValueError as error:  # the same on every member: it comes from the request alone
            return f"error: {error}"

    def _acquire(self, name: str, owner: str, lease_ms: int) -> str:
        held = self.locks.get(name)
        if held is not None:
            return str(held)
        if len(self.locks) == LOCKS_MAX:
            return f"error: {LOCKS_MAX} locks are held"
        self.last_token += 1
        return self._grant(name, owner, self.last_token, lease_ms)

    def _renew(self, name: str, owner: str, token: int, lease_ms: int) -> str:
        return self._grant(name, owner, token, lease_ms) if self._holds(name, owner, token) else "lost"

    def _grant(self, name: str, owner: str, token: int, lease_ms: int) -> str:
        ends_ms = self.now_ms + lease_ms
        self.locks[name] = Lock(owner, token, ends_ms)
        heapq.heappush(self._ends, (ends_ms, name))
        if len(self._ends) > 2 * len(self.locks) + 64:
            self._index_ends()  # most are of grants that were renewed or released
        return f"granted {token} {ends_ms}"

    def _index_ends(self) -> None:
        self._ends = [(lock.ends_ms, name) for name, lock in self.locks.items()]
        heapq.heapify(self._ends)

    def _holds(self, name: str, owner: str, token: int) -> bool:
        held = self.locks.get(name)
        return held is not None and (held.owner, held.token) == (owner, token)

    def _who(self, name: str) -> str:
        return str(self.locks.get(name, "free"))

    def snapshot(self) -> bytes:
        """The whole state: a member that comes back ends the same leases at the same requests."""
        locks = {name: asdict(lock) for name, lock in self.locks.items()}
        return json.dumps({"now_ms": self.now_ms, "last_token": self.last_token, "locks": locks}).encode()

    def restore(self, data: bytes) -> None:
        """The state as it was then."""
        state = json.loads(data)
        self.now_ms, self.last_token = state["now_ms"], state["last_token"]
        self.locks = {name: Lock(**lock) for name, lock in state["locks"].items()}
        self._index_ends()

    def state_digest(self) -> str:
        """For ``r2p2 status --state``: equal on members whose states are equal."""
        return self.snapshot().decode()


def _lease(text: str) -> int:
    lease_ms = int(text)
    if not 1 <= lease_ms <= LEASE_MS_MAX:
        raise ValueError(f"a lease of {lease_ms} ms is outside 1..{LEASE_MS_MAX}")
    return lease_ms


class Printer:
    """What a lock protects: it takes no order with a token lower than one that it has seen."""

    def __init__(self) -> None:
        self.highest_token = 0

    def print(self, who: str, token: int) -> str:
        """Prints, or refuses."""
        if token < self.highest_token:
            return f"the printer refuses {who}: token {token} is lower than {self.highest_token}"
        self.highest_token = token
        return f"the printer prints for {who}, token {token}"


async def acquire(client: r2p2.Client, name: str, owner: str, lease_ms: int) -> int:
    """Asks until the lock is granted; its token. Each asking carries the log's time on."""
    while True:
        reply = (await client.call(f"acquire {name} {owner} {lease_ms}".encode())).decode()
        if reply.startswith("granted"):
            return int(reply.split()[1])
        if not reply.startswith("held"):
            raise ValueError(reply)
        await asyncio.sleep(0.05)


async def main() -> None:
    """Anna holds the lock and goes to sleep, the leader is stopped, Ben gets the lock, Anna wakes up."""
    async with (
        r2p2.LocalCluster(Locks, size=3) as cluster,
        # In a session each call is sent until it is answered, and executed once.
        cluster.client(timeout_s=10, session=True) as anna,
        cluster.client(timeout_s=10, session=True) as ben,
    ):
        printer = Printer()
        token = await acquire(anna, "printer", "anna", 1000)
        print("anna has the lock, token", token)
        print(printer.print("anna", token))
        reply = await anna.call(f"renew printer anna {token} 1000".encode())
        print("anna renews:", reply.decode().split()[0])

        leader = cluster.leader
        assert leader is not None
        print("member", leader, "leads; it is stopped now, and anna falls asleep")
        cluster.stop_member(leader)

        ben_token = await acquire(ben, "printer", "ben", 1000)
        print("anna's lease has ended; ben has the lock, token", ben_token)
        print(printer.print("ben", ben_token))

        print(printer.print("anna", token))
        print("anna renews:", (await anna.call(f"renew printer anna {token} 1000".encode())).decode())
        print("ben releases:", (await ben.call(f"release printer ben {ben_token}".encode())).decode())


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
