"""What test_sr1.py runs in a network namespace of its own: Scapy asks a server over raw sockets. Prints JSON."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from scapy.config import conf
from scapy.layers.inet import IP, UDP
from scapy.packet import Packet, Raw
from scapy.sendrecv import send, sr, sr1
from scapy.supersocket import L3RawSocket

from r2p2.processes import Supervisor
from scapy_layers import R2P2, R2P2Ack, Reassembler, bind_port, body, packets

SERVER = ("127.0.0.1", 8000)


def ask(rid: int, load: bytes, sport: int = 30000, **fields: Any) -> Packet:
    """A request of one packet to the server."""
    return IP(dst=SERVER[0]) / UDP(sport=sport, dport=SERVER[1]) / R2P2(rid=rid, **fields) / Raw(load)


def told(answer: Packet | None) -> list[Any]:
    """What an answer says: type, rid, body."""
    if answer is None:
        return []
    return [answer[R2P2].sprintf("%R2P2.type%"), answer[R2P2].rid, body(answer[R2P2]).decode("latin-1")]


def from_elsewhere(ready: threading.Event) -> None:
    """Answers one request from another address than the one that was asked."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        asked.bind(("127.0.0.1", 8001))
        asked.settimeout(20)
        other.bind(("127.0.0.2", 8001))
        ready.set()
        request, client = asked.recvfrom(2048)
        other.sendto(bytes(R2P2(type="RESPONSE", rid=R2P2(request).rid) / Raw(b"elsewhere")), client)


def main() -> None:
    """Everything that is asked."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    conf.ifaces.reload()  # Scapy looked when it was imported
    conf.route.resync()
    conf.verb = 0
    conf.L3socket = L3RawSocket
    # Somebody has to have the clients' ports, or the kernel tells the server that nobody is there.
    clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for i, client in enumerate(clients):
        client.bind(("127.0.0.1", 30000 + i))
    result: dict[str, Any] = {}
    with Supervisor(Path(sys.argv[1])) as supervisor:
        command = [
            sys.executable,
            "-m",
            "r2p2",
            "serve",
            "--app",
            "echo",
            "--backend",
            "uv",
            "--bind",
            "127.0.0.1:8000",
        ]
        supervisor.start("server", command).wait_line(lambda line: "8000" in line, 40, what="the server")
        result["one"] = told(sr1(ask(7, b"1234"), timeout=10))
        result["empty"] = told(sr1(ask(8, b""), timeout=10))
        # Many at once, of two clients with the same rids: each answer goes to its own request.
        requests = [ask(rid, f"{sport} {rid}".encode(), sport) for rid in range(100, 120) for sport in (30000, 30001)]
        answered, unanswered = sr(requests, timeout=10)
        result["many"] = [len(answered), len(unanswered)]
        result["paired"] = all(
            body(request[R2P2]) == body(answer[R2P2]) and request[UDP].sport == answer[UDP].dport
            for request, answer in answered
        )
        # A request of several packets: the first is answered by ACK, the last by the response.
        parts = packets(R2P2(rid=9) / Raw(b"z" * 3000))
        first, *rest = (IP(dst=SERVER[0]) / UDP(sport=30000, dport=SERVER[1]) / part for part in parts)
        ack = sr1(first, timeout=10)
        result["ack"] = [*told(ack)[:2], ack is not None and R2P2Ack in ack]
        clients[0].settimeout(10)
        while clients[0].recv(2048) != bytes(ack[R2P2] if ack is not None else b""):
            pass  # what was read by Scapy lies here too
        send(rest)
        # Not sniffed: where the kernel lets the device cut datagrams, a packet socket sees them in one piece.
        response = [R2P2(clients[0].recv(2048)) for _ in range(3)]
        reassembler = Reassembler()
        wholes = [reassembler.add(part) for part in response]
        result["large"] = [whole is not None and len(body(whole[R2P2])) for whole in wholes]
    ready = threading.Event()
    thread = threading.Thread(target=from_elsewhere, args=(ready,))
    thread.start()
    ready.wait(20)
    conf.checkIPaddr = False
    bind_port(8001)
    request = IP(dst="127.0.0.1") / UDP(sport=30000, dport=8001) / R2P2(rid=5) / Raw(b"x")
    answer = sr1(request, timeout=10)
    thread.join()
    result["elsewhere"] = [answer[IP].src, body(answer[R2P2]).decode()] if answer is not None else []
    print(json.dumps(result))


if __name__ == "__main__":
    main()
