"""An echo on plain asyncio or uvloop, over TCP streams or over UDP.

Runs in the comparison's virtual environment: imports uvloop (for ``--uvloop``) and the standard library. Over UDP it
answers R2P2's single-packet requests, of which it knows only the byte that makes a request a response, so that the same
load generator as for R2P2 calls it. Over TCP it sends back whatever comes. Prints ``ready`` once it serves.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, cast

RESPONSE_FIXED_ROUTE = b"\x11"
HEADER_BYTES = 8


class StreamEcho(asyncio.Protocol):
    """TCP."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._write = cast(asyncio.Transport, transport).write

    def data_received(self, data: bytes) -> None:
        """All of it back."""
        self._write(data)


class DatagramEcho(asyncio.DatagramProtocol):
    """UDP."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._send = cast(asyncio.DatagramTransport, transport).sendto

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """The request as a response."""
        self._send(data[:2] + RESPONSE_FIXED_ROUTE + data[3:], addr)


async def serve(transport: str, ip: str, port: int) -> None:
    """Until the process is ended."""
    loop = asyncio.get_running_loop()
    if transport == "tcp":
        await loop.create_server(StreamEcho, ip, port)
    else:
        await loop.create_datagram_endpoint(DatagramEcho, local_addr=(ip, port))
    print("ready", flush=True)
    await loop.create_future()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transport", choices=("tcp", "udp"))
    parser.add_argument("--bind", required=True, metavar="IP:PORT")
    parser.add_argument("--uvloop", action="store_true", help="on uvloop instead of asyncio's own loop")
    args = parser.parse_args()
    ip, _, port = args.bind.partition(":")
    if args.uvloop:
        import uvloop

        uvloop.run(serve(args.transport, ip, int(port)))
    else:
        asyncio.run(serve(args.transport, ip, int(port)))


if __name__ == "__main__":
    main()
