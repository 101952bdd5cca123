"""A cluster of stores and a gateway in the test's own event loop, and a raw connection to it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace

import hiredis

from r2p2.apps.kv import KeyValue
from r2p2.gateway import Gateway, GatewayConfig
from r2p2.local import LocalCluster
from tests.apps.redis_server import ERRORS_AS_TEXT

REPLY_SECONDS = 20


@asynccontextmanager
async def gateway_of(size: int = 1, **options: object) -> AsyncIterator[tuple[LocalCluster, Gateway]]:
    async with LocalCluster(KeyValue, size=size) as cluster:
        config = replace(GatewayConfig(cluster.addresses, port=0, timeout_s=10.0), **options)  # type: ignore[arg-type]
        async with Gateway(config) as gateway:
            yield cluster, gateway


class Raw:
    """A TCP connection that sends bytes and reads replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._parser = hiredis.Reader(replyError=ERRORS_AS_TEXT)

    @classmethod
    async def open(cls, gateway: Gateway) -> Raw:
        return cls(*await asyncio.open_connection("127.0.0.1", gateway.port, limit=1 << 20))

    async def reply(self) -> object:
        async with asyncio.timeout(REPLY_SECONDS):
            while (reply := self._parser.gets()) is False:
                piece = await self._reader.read(1 << 16)
                if not piece:
                    raise EOFError
                self._parser.feed(piece)
        return reply

    async def ask(self, data: bytes, count: int = 1) -> list[object]:
        self.writer.write(data)
        return [await self.reply() for _ in range(count)]

    async def read_exactly(self, count: int) -> bytes:
        async with asyncio.timeout(REPLY_SECONDS):
            return await self._reader.readexactly(count)

    async def is_closed(self) -> bool:
        async with asyncio.timeout(REPLY_SECONDS):
            return await self._reader.read(1) == b""


def free_udp_ports(count: int) -> list[int]:
    """UDP ports of loopback that nobody had a moment ago."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
