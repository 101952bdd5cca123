"""What this machine has for the kernel-UDP backend, part of ``r2p2 doctor``.

Kernel features are asked of a socket of our own, which sends nothing; limits are read from ``/proc``. What it leaves
to others: printing (``r2p2/doctor.py``).
"""

from __future__ import annotations

import importlib
import importlib.util
import socket
import sys
from pathlib import Path

from r2p2.doctor import Finding
from uv_backend.portable import SOCKET_BUFFER_BYTES

# Linux's numbers (linux/udp.h, asm-generic/socket.h); Python's socket module does not have them all.
_SOL_UDP = 17
_UDP_SEGMENT = 103
_UDP_GRO = 104
_SO_RXQ_OVFL = 40
_FEATURES = (
    ("gso", _SOL_UDP, _UDP_SEGMENT, "UDP GSO: one system call for many datagrams to one receiver", "Linux 4.18"),
    ("gro", _SOL_UDP, _UDP_GRO, "UDP GRO: bursts arrive in one piece", "Linux 5.0"),
    ("drop counter", socket.SOL_SOCKET, _SO_RXQ_OVFL, "the kernel tells what it dropped", "Linux 2.6.33"),
)


def _module() -> Finding:
    if sys.platform != "linux":
        return Finding("module", "optional", "the fast port is for Linux; here the portable one does the work")
    try:
        importlib.import_module("uv_backend._udp")
        importlib.import_module("r2p2._engine")
    except ImportError as error:
        return Finding("module", "missing", f"not built: {error}", "pip install . (a clone: make setup)")
    return Finding("module", "ok", "built")


def _features() -> list[Finding]:
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for name, level, option, text, since in _FEATURES:
            try:
                # Segments of 0 bytes are no segmentation: the question alone matters.
                probe.setsockopt(level, option, 0)
            except OSError as error:
                lacking = f"the kernel has it not ({error.strerror}; since {since}): slower, nothing else"
                found.append(Finding(name, "optional", f"{text}: {lacking}"))
            else:
                found.append(Finding(name, "ok", text))
    return found


def _buffers(root: Path) -> list[Finding]:
    found = []
    for name, which in (("rmem_max", "receive"), ("wmem_max", "send")):
        try:
            limit_bytes = int((root / "proc/sys/net/core" / name).read_text())
        except (OSError, ValueError):
            continue
        if limit_bytes >= SOCKET_BUFFER_BYTES:
            found.append(Finding(name, "ok", f"{which} buffers of up to {limit_bytes:,} bytes"))
        else:
            text = (
                f"{which} buffers are cut to {limit_bytes:,} bytes for who lacks CAP_NET_ADMIN, "
                f"{SOCKET_BUFFER_BYTES:,} are wanted: bursts may be dropped"
            )
            found.append(Finding(name, "optional", text, f"sysctl -w net.core.{name}={SOCKET_BUFFER_BYTES}"))
    return found


def _uvloop() -> Finding:
    if importlib.util.find_spec("uvloop") is None:
        return Finding("uvloop", "optional", "not installed: asyncio's own loop does, slower", "pip install uvloop")
    return Finding("uvloop", "ok", "installed")


def examine(root: Path = Path("/")) -> list[Finding]:
    """Everything. ``root``: where /proc hangs, for tests."""
    linux = [*_features(), *_buffers(root)] if sys.platform == "linux" else []
    return [_module(), *linux, _uvloop()]
