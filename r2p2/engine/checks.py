"""Checks in C of bytes that no engine has received: one datagram's header, a batch's RESP."""

from __future__ import annotations

from r2p2._engine import ffi, lib
from r2p2.requests import Requests


def header_check(data: bytes) -> tuple[int, list[int]]:
    """What the C codec says of a datagram.

    Returns:
        0 and ``[header_size, type, policy, is_first, is_last, rid, p_order]``, or the reason (1 short, 2 magic, 3
        header_size, 4 type, 5 policy, 6 flags, 7 p_order) and an empty list.
    """
    fields = ffi.new("uint16_t[8]")
    error = lib.r2p2_header_check(ffi.from_buffer(data), len(data), fields)
    return error, [] if error else list(fields)[:7]


def resp_first_broken(requests: Requests) -> int:
    """Index of the first request that is not exactly one RESP array of bulk strings; ``len(requests)`` when all are."""
    if not len(requests):
        return 0
    lengths = ffi.from_buffer("uint32_t[]", requests.lengths)
    return lib.r2p2_resp_first_broken(requests.slab, lengths, len(requests))
