"""What test_kernel_clients.py runs in a network of its own: ``kernel_clients_child.py KIND FOLDER``. Prints JSON.

A server as people start it, kernel programs as its clients: ping, ``r2p2 call``, a UDP socket with much to say; and
dumpcap as the one who listens.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP
from scapy.utils import PcapReader, rdpcap

from r2p2.processes import Supervisor
from scapy_layers import R2P2, Reassembler, body, packets
from scapy_layers.r2p2 import ACK

R2P2_COMMAND = [sys.executable, "-m", "r2p2"]
SERVER = "10.9.0.1"
CALLS = 60
CALL_BYTES = 20_000
LONG = "a long request, " * 2_000 + "and its end"


def ip(*arguments: str) -> None:
    """The ip command."""
    subprocess.run(["ip", *arguments], check=True)


def ping() -> str:
    """Echo requests until one is answered; the answer's payload."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as asker:
        asker.settimeout(1)
        for _ in range(20):
            asker.sendto(bytes(ICMP(id=7) / b"are you there?"), (SERVER, 0))
            try:
                answer: bytes = IP(asker.recv(2048))[ICMP].load
            except TimeoutError:
                continue
            return answer.decode()
    return ""


def call(words: str, given: str = "") -> str:
    """``r2p2 call``; what it prints."""
    command = [*R2P2_COMMAND, "call", f"{SERVER}:8000", words]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout if done.returncode == 0 else done.stderr


def large_call(client: socket.socket, rid: int, sent: bytes) -> bytes:
    """One request of many packets; the answer, or nothing where a packet was lost."""
    first, *rest = map(bytes, packets(R2P2(rid=rid) / sent))
    reassembler = Reassembler()
    try:
        client.sendto(first, (SERVER, 8000))
        while R2P2(client.recv(2048)).type != ACK:
            continue  # late ones of the call before
        for part in rest:
            client.sendto(part, (SERVER, 8000))
        while True:
            whole = reassembler.add(R2P2(client.recv(2048)))
            if whole is not None and whole[R2P2].rid == rid:
                return body(whole[R2P2])
    except TimeoutError:
        return b""


def many_calls() -> list[int]:
    """Large requests by an ordinary socket: how many were answered with what was sent, and how many asked again."""
    answered = again = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        for rid in range(1, CALLS + 1):
            sent = rid.to_bytes(2, "big") * (CALL_BYTES // 2)
            got = large_call(client, rid, sent)
            for attempt in range(1, 4):
                if got:
                    break
                again += 1
                got = large_call(client, rid + 1000 * attempt, sent)
            answered += got == sent
    return [answered, again]


def main(kind: str, folder: Path) -> None:
    """Everything."""
    if kind == "tap":
        device, end = "net_tap0,iface=tap0", "tap0"
    else:
        ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
        ip("link", "set", "veth0", "up")
        device, end = f"net_{kind}0,iface=veth0" + (",qpairs=1" if kind == "af_packet" else ""), "veth1"
    result: dict[str, Any] = {}
    with Supervisor(folder / "logs") as supervisor:
        command = [*R2P2_COMMAND, "serve", "--app", "echo", "--backend", "dpdk", "--vdev", device]
        command += ["--bind", f"{SERVER}:8000", "--pcap", str(folder / "server.pcap"), "--pcap-rate", "1000000"]
        server = supervisor.start("server", [*command, "--pcap-mib", "1", "--pcap-files", "2"])
        server.wait_line(lambda line: "serving" in line, 40, what="the server")
        ip("link", "set", end, "up")
        ip("address", "add", "10.9.0.2/24", "dev", end)
        listening = ["dumpcap", "-q", "-i", end, "-P", "-w", str(folder / "wire.pcap")]
        listener = supervisor.start("dumpcap", listening)
        listener.wait_line(lambda line: "File:" in line, 20, what="dumpcap")
        result["ping"] = ping()
        result["call"] = call("hello over the kernel")
        result["many"] = many_calls()
        # docs/dpdk.md: a kernel leaves the cutting of a long request to the device, and a veth cuts nothing.
        ip("link", "set", end, "gso_max_segs", "1")
        result["long"] = any(call("-", LONG).strip() == LONG for _ in range(4))
        listener.signal(signal.SIGINT)
        listener.wait(20)
        server.signal(signal.SIGINT)
        result["server"] = server.wait(20)
        result["dropped"] = [line for line in server.lines if "dropped" in line]
    seen = rdpcap(str(folder / "wire.pcap"))
    result["arp"] = sorted({int(packet[ARP].op) for packet in seen if ARP in packet})
    result["icmp"] = sorted({int(packet[ICMP].type) for packet in seen if ICMP in packet})
    result["types"] = sorted({packet[R2P2].sprintf("%R2P2.type%") for packet in seen if R2P2 in packet})
    result["problems"] = sorted({str(packet[R2P2].problem()) for packet in seen if R2P2 in packet})
    result["files"] = sorted(path.name for path in folder.glob("server.pcap*"))
    result["sizes"] = [(folder / name).stat().st_size for name in result["files"]]
    with PcapReader(str(folder / "server.pcap")) as reader:
        rids = [packet[R2P2].rid % 1000 for packet in reader if R2P2 in packet]
    result["last_rid"] = max(rid for rid in rids if rid <= CALLS)  # those of `r2p2 call` may be any
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
