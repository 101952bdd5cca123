"""What a user would write without this project: a ``DatagramProtocol`` that answers R2P2's single-packet requests.

``python -m r2p2.bench.plain_echo --bind IP:PORT [--uvloop]``. The comparison of ``r2p2 bench echo --against``: the
same load generator, the same datagrams, one ``sendto`` an answer. It knows of R2P2 only the byte that makes a request
a response.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, cast

from r2p2.address import format_ip, parse_address
from r2p2.node import STATUS_REQUEST

RESPONSE_FIXED_ROUTE = b"\x11"
HEADER_BYTES = 8


class PlainEcho(asyncio.DatagramProtocol):
    """Echoes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """The request with the type changed; the bench's question for the status is answered, too."""
        payload = b"{}" if data[HEADER_BYTES:] == STATUS_REQUEST else data[HEADER_BYTES:]
        self._transport.sendto(data[:2] + RESPONSE_FIXED_ROUTE + data[3:HEADER_BYTES] + payload, addr)


async def serve(ip: str, port: int) -> None:
    """Until the process is ended."""
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(PlainEcho, local_addr=(ip, port))
    await loop.create_future()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bind", required=True, metavar="IP:PORT")
    parser.add_argument("--uvloop", action="store_true", help="on uvloop instead of asyncio's own loop")
    args = parser.parse_args()
    ip, port = parse_address(args.bind)
    if args.uvloop:
        import uvloop

        uvloop.run(serve(format_ip(ip), port))
    else:
        asyncio.run(serve(format_ip(ip), port))


if __name__ == "__main__":
    main()
