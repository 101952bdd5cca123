"""A node serves on when what it tells, or its capture, can no longer be written."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from r2p2.client import FIXED_ROUTE, BlockingClient
from r2p2.logs import FORMATS
from r2p2.node import STATUS_REQUEST
from tests.gateway.support import free_udp_ports

SERVE = [sys.executable, "-u", "-m", "r2p2", "serve"]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, *arguments: str, file_bytes_max: int = 0) -> subprocess.Popen[str]:
    def bound() -> None:
        if file_bytes_max:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, file_bytes_max))

    process = subprocess.Popen(
        [*SERVE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=bound
    )
    stack.callback(process.wait, 20)
    stack.callback(process.kill)
    return process


def told(process: subprocess.Popen[str], wanted: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if wanted in line:
            return
    raise AssertionError(f"ended without {wanted!r}")


@pytest.mark.parametrize("log_format", FORMATS)
def test_a_member_whose_log_nobody_reads_any_more_stays_a_member(stack: ExitStack, log_format: str) -> None:
    members = [f"127.0.0.1:{port}" for port in free_udp_ports(2)]
    of_group = ("--members", ",".join(members), "--log-format", log_format)
    unread = start(stack, "--bind", members[0], *of_group)
    told(unread, "a cluster forms once")
    assert unread.stdout is not None
    unread.stdout.close()
    other = start(stack, "--bind", members[1], *of_group)
    told(other, "cluster formed")
    with BlockingClient() as client:
        end = time.monotonic() + 20
        while True:  # it has told who leads
            status = json.loads(client.call(members[0], STATUS_REQUEST, policy=FIXED_ROUTE, timeout_s=5.0))
            if status.get("leader") is not None:
                break
            assert time.monotonic() < end
            time.sleep(0.02)
    assert unread.poll() is None


def test_a_node_whose_capture_has_no_room_serves_on(stack: ExitStack, tmp_path: Path) -> None:
    capture = tmp_path / "x.pcap"
    (port,) = free_udp_ports(1)
    address = f"127.0.0.1:{port}"
    bounds = ("--pcap", str(capture), "--pcap-rate", "1000000")
    node = start(stack, "--bind", address, *bounds, file_bytes_max=8192)
    told(node, "serving")
    with BlockingClient() as client:
        for _ in range(300):  # more than the file's buffer holds
            assert client.call(address, b"x" * 1000, policy=FIXED_ROUTE, timeout_s=5.0) == b"x" * 1000
    node.send_signal(signal.SIGTERM)
    out, err = node.communicate(timeout=20)
    assert node.returncode == 0 and "ended by an error: File too large" in out, (out, err)
    assert err.count("the node goes on without it") == 1
