"""The kernel UDP backend: ports over sockets and the asyncio driver.

What: :class:`UdpPort` (datagrams in bursts, in C), :class:`AsyncDriver` and :func:`run` (the loop that polls).
Leaves to others: the protocol (``r2p2``). Linux has the compiled port; importing it elsewhere raises ImportError.
"""

from uv_backend.driver import AsyncDriver, run
from uv_backend.port import UdpPort

__all__ = ["AsyncDriver", "UdpPort", "run"]
