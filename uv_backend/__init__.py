"""The kernel UDP backend: ports over sockets and the asyncio driver.

What: :class:`UdpPort` (datagrams in bursts, in C; Linux), :class:`PortablePort` (the same in plain Python, anywhere),
:func:`open_port` (whichever this system has), :class:`AsyncDriver` and :func:`run` (the loop that polls).
Leaves to others: the protocol (``r2p2``).

The compiled port is imported only when asked for, so that this package imports where it is not built.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from uv_backend.driver import AsyncDriver, run
from uv_backend.portable import PortablePort

if TYPE_CHECKING:
    from uv_backend.port import UdpPort

__all__ = ["AsyncDriver", "PortablePort", "UdpPort", "open_port", "run"]


def __getattr__(name: str) -> Any:
    if name == "UdpPort":
        from uv_backend.port import UdpPort

        return UdpPort
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open_port(ip: str = "127.0.0.1", port: int = 0) -> UdpPort | PortablePort:
    """The fast port on Linux, the portable one elsewhere, at ``ip:port`` (port 0: the kernel chooses).

    Raises:
        ImportError: this is Linux and the compiled port is not built.
        OSError: the address cannot be opened; the message says why and what to do.
        ValueError: an argument is out of range or not IPv4.
    """
    if sys.platform != "linux":
        return PortablePort(ip, port)
    from uv_backend.port import UdpPort

    return UdpPort(ip, port)
