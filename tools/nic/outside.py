"""Speaks to a server on a wire from the kernel's side: pings until the link is up, then calls. Prints what it saw.

A process of its own, since it lives in the wire's network namespace. Usage: outside.py IP PORT.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time

from r2p2.client import BlockingClient

LINK_WAIT_S = 20.0
CALLS_COUNT = 300
CALL_TIMEOUT_S = 5.0
# One packet, its largest, and messages of several packets, the last of the most that a request may have.
PAYLOAD_BYTES = (0, 1, 1464, 1465, 20_000, 370_406)


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def ping(ip: str) -> int:
    """ICMP echo, twice a second, until it is answered: how many it took. What is sent before link-up vanishes."""
    identity = os.getpid() & 0xFFFF
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as pinger:
        deadline = time.monotonic() + LINK_WAIT_S
        number = 0
        while time.monotonic() < deadline:
            number += 1
            head = identity.to_bytes(2, "big") + number.to_bytes(2, "big") + bytes(range(56))
            packet = b"\x08\x00" + checksum(b"\x08\0\0\0" + head).to_bytes(2, "big") + head
            pinger.sendto(packet, (ip, 0))
            until = min(time.monotonic() + 0.5, deadline)
            while (left := until - time.monotonic()) > 0:
                pinger.settimeout(left)
                try:
                    answer = pinger.recv(2048)
                except TimeoutError:
                    break
                icmp = answer[(answer[0] & 15) * 4 :]
                if icmp[0] == 0 and icmp[4:6] == head[:2]:
                    assert icmp[8:] == head[4:], "the ping's bytes came back changed"
                    return number
    raise AssertionError(f"no answer to {number} pings in {LINK_WAIT_S:g} s")


def main() -> None:
    """Ping, calls of many sizes, many calls."""
    ip, port = sys.argv[1], int(sys.argv[2])
    pings = ping(ip)
    address = f"{ip}:{port}"
    with BlockingClient() as client:
        for size in PAYLOAD_BYTES:
            payload = os.urandom(size)
            assert client.call(address, payload, timeout_s=CALL_TIMEOUT_S) == payload, f"{size} bytes came back changed"
        times = []
        for number in range(CALLS_COUNT):
            payload = b"%064d" % number
            start = time.monotonic()
            assert client.call(address, payload, timeout_s=CALL_TIMEOUT_S) == payload, f"call {number} was mixed up"
            times.append(time.monotonic() - start)
    times.sort()
    print(json.dumps({"pings": pings, "calls": CALLS_COUNT, "median_us": round(times[len(times) // 2] * 1e6)}))


if __name__ == "__main__":
    main()
