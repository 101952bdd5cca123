"""A socket's buffer bounds what may be on its way to it: long requests, more at once than it holds, all arrive."""

from __future__ import annotations

import time

import pytest

from r2p2.engine import DONE_OK, Engine, EngineConfig
from tests.engine.support import EchoServer
from uv_backend.port import UdpPort

CALLS = 16
WAIT_S = 20.0


@pytest.mark.parametrize("segmentation", [True, False])
@pytest.mark.parametrize("rcvbuf_bytes", [64 << 10, 128 << 10])
def test_a_socket_that_holds_little_is_sent_little(rcvbuf_bytes: int, segmentation: bool) -> None:
    """16 requests of 64 KiB at once: six to thirteen times what the buffer holds."""
    with (
        UdpPort(rcvbuf_bytes=rcvbuf_bytes, segmentation=segmentation) as server_port,
        UdpPort(segmentation=segmentation) as client_port,
    ):
        server = EchoServer(Engine(server_port.address, EngineConfig()))
        client = Engine(client_port.address, EngineConfig())
        local = client_port.local_address[1]
        client.client_open(local)
        target = (0x7F000001, server_port.local_address[1])
        sent = {tag: bytes([tag]) * 65_000 for tag in range(CALLS)}
        for tag, payload in sent.items():
            client.call(local, target, payload, policy=1, timeout_ns=int(WAIT_S * 1e9), tag=tag)
        client.flush()
        got: dict[int, bytes] = {}
        deadline = time.monotonic() + WAIT_S
        while len(got) < CALLS and time.monotonic() < deadline:
            server.poll_once()
            client.poll()
            for completion in client.completions():
                assert completion.status == DONE_OK
                got[completion.tag] = completion.payload
            client.flush()
        assert got == sent
        assert server.engine.counters()["rx_drop_kernel"] == 0
        assert server.engine.counters()["rx_duplicate_packets"] == 0
        server.engine.close()
        client.close()
