"""A client over DPDK links, as a process: ``dpdk_client.py IP LINKS ROUTER COUNT`` calls the router and prints the end.

LINKS is a JSON list of [socket_path, peer_ip]; we are the memif client of each. Prints a line when it is ready and then
one with a JSON object: ``answered``, ``wrong``, and ``by``, answers by the address that sent them.
"""

from __future__ import annotations

import json
import os
import sys
import time

from r2p2.address import format_address, format_ip, parse_address
from r2p2.engine import DONE_OK, Completion, Engine, EngineConfig
from r2p2.ports import Link, PortSpec, open_port

OUTSTANDING = 16
LB_ROUTE = 0


def payload_of(tag: int) -> bytes:
    """Every tenth request has several packets."""
    return b"%d:" % tag + bytes(tag % 10 == 0 and 5000)


def main() -> None:
    ip, links_text, router_text, count_text = sys.argv[1:]
    links = tuple(Link(path, "client", peer) for path, peer in json.loads(links_text))
    router, count = parse_address(router_text), int(count_text)
    answered, wrong, issued, ended = 0, 0, 0, 0
    by: dict[str, int] = {}
    with open_port(PortSpec("dpdk", ip, 9000, links)) as port:
        engine = Engine(port.address, EngineConfig(log_bytes_max=1 << 20, log_entries_max=1024, hold_bytes_max=1 << 19))
        engine.client_open(9000)
        # Links come up when both ends are there; calls before that are lost, so one is tried until it works.
        end = time.monotonic() + 20
        warm = False
        print("ready", flush=True)
        while not warm and time.monotonic() < end:
            engine.call(9000, router, b"warm-up", policy=LB_ROUTE, timeout_ns=100_000_000, tag=0)
            engine.flush()
            done: list[Completion] = []
            while not done:
                engine.poll()
                done = engine.completions()
                os.sched_yield()
            warm = done[0].status == DONE_OK
        while ended < count:
            while issued < count and issued - ended < OUTSTANDING:
                issued += 1
                request = payload_of(issued)
                engine.call(9000, router, request, policy=LB_ROUTE, timeout_ns=2_000_000_000, tag=issued)
            engine.poll()
            for completion in engine.completions():
                ended += 1
                if completion.status != DONE_OK:
                    continue
                answered += 1
                wrong += completion.payload != payload_of(completion.tag)
                source = format_address((completion.source_ip, completion.source_port))
                by[source] = by.get(source, 0) + 1
            os.sched_yield()
        counters = {name: n for name, n in engine.counters().items() if n and ("drop" in name or "bad" in name)}
        engine.close()
    print(json.dumps({"ip": format_ip(parse_address(ip + ":0")[0]), "answered": answered, "wrong": wrong, "by": by}))
    print(f"counters: {counters}", flush=True)


if __name__ == "__main__":
    main()
