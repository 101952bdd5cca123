"""A DPDK server as it is started by hand, and the kernel's programs as its clients, over each device they share."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).resolve().parent / "kernel_clients_child.py"


@pytest.mark.needs("dpdk", "root", "netns", "scapy", "tshark")
@pytest.mark.parametrize("kind", ["af_packet", "af_xdp", "tap"])
def test_ping_calls_and_a_capture_of_the_wire(kind: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    done = subprocess.run(
        ["unshare", "-n", sys.executable, str(CHILD), kind, str(tmp_path)],
        cwd=CHILD.parent.parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["ping"] == "are you there?"
    assert "hello over the kernel" in result["call"]
    assert result["long"], "ours with a long request"
    answered, again = result["many"]
    assert answered == 60
    assert again <= 6, "a datagram may be lost where the kernel's queues are full, not many"
    assert result["server"] == 0
    # What was heard on the wire: ARP asked and answered, echo and its reply, and good packets alone.
    assert result["arp"] == [1, 2]
    assert result["icmp"] == [0, 8]
    assert result["types"] == ["ACK", "REQUEST", "RESPONSE"]
    assert result["problems"] == ["None"]
    # The server's own capture went round: the last two files, with the end of the traffic.
    assert result["files"] == ["server.pcap", "server.pcap.1"]
    assert all(size <= 1 << 20 for size in result["sizes"])
    assert result["last_rid"] == 60
