"""Forwarding loops over devices, in the manner of testpmd: io, macswap, icmpecho, rxonly, txonly.

Devices are paired in their order (0 with 1, 2 with 3), queue by queue; one that is left over forwards to itself. What
it leaves to others: the command line (``__main__.py``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

from dpdk_backend.ethdev import BURST_MAX, Burst, EthDev
from dpdk_backend.port import mac_of_ip

Mode = Literal["io", "macswap", "icmpecho", "rxonly", "txonly"]
MODES: tuple[Mode, ...] = get_args(Mode)

_IDLE_ROUNDS_BEFORE_YIELD = 64
_ROUNDS_PER_CLOCK = 64


def pairs(devices: Sequence[EthDev]) -> Iterator[tuple[EthDev, int, EthDev, int]]:
    """(from, its queue, to, its queue) for each queue; where the partner has fewer, its last one is shared."""
    for i, device in enumerate(devices):
        partner = devices[i ^ 1] if i ^ 1 < len(devices) else device
        for queue in range(device.queues_count):
            yield device, queue, partner, min(queue, partner.queues_count - 1)


def txonly_frame(size: int) -> bytes:
    """What txonly sends: UDP from 198.18.0.1 to 198.18.0.2 (addresses kept for benchmarks), without a UDP checksum."""
    if not 60 <= size <= 1_514:
        raise ValueError(f"a frame of {size} bytes: 60..1514")
    ip = bytearray.fromhex("45000000 00004000 40110000 c6120001 c6120002")
    ip[2:4] = (size - 14).to_bytes(2, "big")
    total = sum(int.from_bytes(ip[i : i + 2], "big") for i in range(0, 20, 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    ip[10:12] = (0xFFFF - total).to_bytes(2, "big")
    udp = (9).to_bytes(2, "big") * 2 + (size - 34).to_bytes(2, "big") + bytes(2)
    frame = mac_of_ip("198.18.0.2") + mac_of_ip("198.18.0.1") + b"\x08\x00" + bytes(ip) + udp
    return frame + bytes(size - len(frame))


def forward(
    devices: Sequence[EthDev],
    mode: Mode,
    *,
    duration_s: float | None = None,
    idle_rounds_max: int | None = None,
    frame_bytes: int = 64,
    stats_period_s: float | None = None,
    on_stats: Callable[[float], None] = lambda elapsed: None,
) -> int:
    """Runs until the time is over or so many rounds in a row moved nothing; returns the frames moved.

    ``on_stats`` is called every ``stats_period_s`` with the seconds since the start.
    """
    burst = Burst()
    routes = list(pairs(devices))
    frame = txonly_frame(frame_bytes)
    moved = idle = 0
    start = time.monotonic()
    next_stats = start + stats_period_s if stats_period_s else float("inf")
    try:
        while True:
            before = moved
            for source, queue, target, target_queue in routes:
                if mode == "txonly":
                    source.receive(burst, queue=queue)
                    burst.free()
                    source.repeat(burst, frame, BURST_MAX)
                    moved += source.send(burst, queue=queue)
                    continue
                count = source.receive(burst, queue=queue)
                if count == 0:
                    continue
                moved += count
                if mode == "rxonly":
                    burst.free()
                    continue
                if mode == "macswap":
                    burst.swap_macs()
                elif mode == "icmpecho":
                    source.answer_pings(burst)
                    target, target_queue = source, queue
                target.send(burst, queue=target_queue)
            if moved != before:
                idle = 0
            else:
                idle += 1
                if idle_rounds_max is not None and idle >= idle_rounds_max:
                    return moved
                if idle % _IDLE_ROUNDS_BEFORE_YIELD == 0:
                    os.sched_yield()
            now = time.monotonic()
            if now >= next_stats and stats_period_s:
                on_stats(now - start)
                next_stats += stats_period_s
            if duration_s is not None and now - start >= duration_s:
                return moved
    finally:
        burst.free()
