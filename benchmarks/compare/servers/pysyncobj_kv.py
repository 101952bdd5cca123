"""One member of a key-value store on PySyncObj, with a front end on UDP.

Runs in the comparison's virtual environment: imports pysyncobj and the standard library. The front end answers R2P2's
single-packet requests, so that the same load generator as for R2P2 calls it: a RESP SET in, ``+OK`` out, once the
write is committed and applied. The client calls the leader, so nothing is forwarded.

Standard output: ``ready`` once the member serves, ``leads`` when it becomes the leader. Standard input:
``inside OUTSTANDING WARMUP_S MEASURE_S`` makes the leader itself the caller (no front end, no network to a client);
it answers with the lines of every client here, ``measuring`` and a JSON object.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.poller import POLL_EVENT_TYPE

RESPONSE_FIXED_ROUTE = b"\x11"
HEADER_BYTES = 8
BURST_COUNT = 64  # datagrams taken at once
SOCKET_BUFFER_BYTES = 4 << 20

# What each variant changes of the library's defaults.
VARIANTS: dict[str, dict[str, Any]] = {
    "shipped": {},
    "unbatched": {"appendEntriesUseBatch": False},
    "1ms": {"appendEntriesPeriod": 0.001, "autoTickPeriod": 0.001},
    # One thread: the front end's socket in the library's own poller.
    "loop": {"appendEntriesPeriod": 0.001, "autoTick": False},
}
# The journal of these runs passes 5,000 entries many times a second; compaction would fork as often.
TUNED = {"logCompactionMinEntries": 10_000_000, "logCompactionMinTime": 1_000_000}


class Store(SyncObj):  # type: ignore[misc]
    """The store: a dict on every member."""

    def __init__(self, own: str, others: list[str], conf: SyncObjConf) -> None:
        super().__init__(own, others, conf)
        self.values: dict[bytes, bytes] = {}

    @replicated  # type: ignore[untyped-decorator]
    def put(self, key: bytes, value: bytes) -> None:
        """The replicated write."""
        self.values[key] = value


def say(line: str) -> None:
    """One line for the parent."""
    print(line, flush=True)


class FrontEnd:
    """R2P2 datagrams in, calls of `put`, datagrams out."""

    def __init__(self, store: Store, ip: str, port: int) -> None:
        self._store = store
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        self._socket.setblocking(False)
        self._socket.bind((ip, port))
        self.fileno = self._socket.fileno()

    def take(self) -> int:
        """Begins a call for each datagram that waits; how many."""
        receive, begin = self._socket.recvfrom, self._begin
        for count in range(BURST_COUNT):
            try:
                begin(*receive(2048))
            except BlockingIOError:
                return count
        return BURST_COUNT

    def _begin(self, data: bytes, client: tuple[str, int]) -> None:
        words = data.split(b"\r\n")
        header = data[:2] + RESPONSE_FIXED_ROUTE + data[3:HEADER_BYTES]

        def done(_result: object, error: int) -> None:
            if error == 0:
                self._socket.sendto(header + b"+OK\r\n", client)

        # The header may hold the two bytes that end a line, so words are counted from the end.
        self._store.put(words[-4], words[-2], callback=done)

    def serve(self) -> None:
        """For ever, in the thread of the caller; the library ticks in its own."""
        while True:
            select.select([self.fileno], [], [])
            self.take()


class Inside:
    """A closed loop in the leader's process: a call that is answered begins the next one."""

    def __init__(self, store: Store, outstanding: int) -> None:
        self._store = store
        self._outstanding = outstanding
        self._keys = [b"key:%08d" % i for i in range(16_384)]
        self._issued = 0
        self.answered = 0
        self.latencies_ns: deque[int] = deque(maxlen=200_000)
        self._stopped = threading.Event()

    def begin(self) -> None:
        """Fills the window."""
        for _ in range(self._outstanding):
            self._next()

    def stop(self) -> None:
        """Begins nothing any more."""
        self._stopped.set()

    def _next(self) -> None:
        self._issued += 1
        begun_ns = time.monotonic_ns() if self._issued % 16 == 0 else 0

        def done(_result: object, error: int) -> None:
            if error == 0:
                self.answered += 1
                if begun_ns:
                    self.latencies_ns.append(time.monotonic_ns() - begun_ns)
            if not self._stopped.is_set():
                self._next()

        self._store.put(self._keys[self._issued % 16_384], b"v" * 25, callback=done)


def obey(store: Store) -> None:
    """Carries out the parent's commands, in a thread of its own."""
    for line in sys.stdin:
        word, *arguments = line.split()
        assert word == "inside", line
        load = Inside(store, int(arguments[0]))
        load.begin()
        time.sleep(float(arguments[1]))
        load.latencies_ns.clear()
        before, begun = load.answered, time.monotonic()
        say("measuring")
        time.sleep(float(arguments[2]))
        answered, seconds = load.answered - before, time.monotonic() - begun
        latencies = sorted(load.latencies_ns.copy())
        load.stop()
        p50_us, p99_us = (latencies[int(len(latencies) * f)] / 1000 if latencies else 0.0 for f in (0.5, 0.99))
        result = {"answered": answered, "failed": 0, "seconds": seconds, "p50_us": p50_us, "p99_us": p99_us}
        say(json.dumps(result))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=VARIANTS, required=True)
    parser.add_argument("--own", required=True, metavar="IP:PORT", help="this member")
    parser.add_argument("--others", required=True, metavar="IP:PORT,...")
    parser.add_argument("--front", required=True, metavar="IP:PORT", help="of the front end on UDP")
    args = parser.parse_args()

    def state_changed(_old: int, new: int) -> None:
        if new == 2:
            say("leads")

    settings = VARIANTS[args.variant]
    tuned = TUNED if args.variant != "shipped" else {}
    conf = SyncObjConf(
        bindAddress=args.own,  # the default is every interface
        connectionRetryTime=0.2,  # members start at slightly different times; without effect afterwards
        onReady=lambda: say("ready"),
        onStateChanged=state_changed,
        **settings,
        **tuned,
    )
    store = Store(args.own, args.others.split(","), conf)
    ip, _, port = args.front.partition(":")
    front = FrontEnd(store, ip, int(port))
    threading.Thread(target=obey, args=(store,), daemon=True).start()
    if settings.get("autoTick", True):
        front.serve()
    serve_in_one_thread(store, front)


def serve_in_one_thread(store: Store, front: FrontEnd) -> None:
    """The library's tick and the front end in turn; both sockets wake the same poller."""
    taken = 0

    def readable(_fileno: int, _events: int) -> None:
        nonlocal taken
        taken = front.take()

    tick: Callable[[float], None] = store.doTick
    store._poller.subscribe(front.fileno, readable, POLL_EVENT_TYPE.READ | POLL_EVENT_TYPE.ERROR)
    while True:
        # What was taken goes out with the next tick, not after a period.
        tick(0.0 if taken else 0.001)
        taken = 0


if __name__ == "__main__":
    main()
