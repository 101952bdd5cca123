"""Deployed clients and servers of R2P2, as bytes written down by hand from docs/wire.md, against the engine.

No codec of ours and no Scapy here: each packet is spelled in hex, so a shared misreading of the wire cannot cancel out.
"""

from __future__ import annotations

from r2p2.engine import DONE_DROPPED, DONE_OK, Engine
from r2p2.memory import MemoryNetwork
from tests.engine.support import CLIENT, SERVER, STRANGER, Server, pair

BODY = bytes(i * 7 % 251 for i in range(4000))
# 14 bytes, then 1464 at a time: 4000 = 14 + 1464 + 1464 + 1058, so 4 packets.
REQUEST = [
    bytes.fromhex("cc 08 00 80 abcd 0004") + BODY[:14],
    bytes.fromhex("cc 08 00 00 abcd 0001") + BODY[14:1478],
    bytes.fromhex("cc 08 00 00 abcd 0002") + BODY[1478:2942],
    bytes.fromhex("cc 08 00 40 abcd 0003") + BODY[2942:],
]
ACK = bytes.fromhex("cc 08 31 c0 abcd 0001 41434b")
# Full from the first packet on: 4000 = 1464 + 1464 + 1072.
RESPONSE = [
    bytes.fromhex("cc 08 11 80 abcd 0003") + BODY[:1464],
    bytes.fromhex("cc 08 11 00 abcd 0001") + BODY[1464:2928],
    bytes.fromhex("cc 08 11 40 abcd 0002") + BODY[2928:],
]
SMALL_REQUEST = bytes.fromhex("cc 08 01 c0 0001 0001 31323334")
SMALL_RESPONSE = bytes.fromhex("cc 08 11 c0 0001 0001 31323334")
DROP = bytes.fromhex("cc 08 41 c0 0001 0001 44524f50")


def sent_by(engine: Engine, ip: int) -> list[tuple[int, int, bytes]]:
    """What the engine has sent since the last time: to whom, and the packet."""
    taken, missed = engine.capture_take()
    assert missed == 0
    return [(d.target_ip, d.target_port, d.payload) for d in taken if d.source_ip == ip]


def test_a_deployed_client_of_our_server() -> None:
    with pair() as (network, server, _):
        server.engine.capture_start(1_000_000, 1472)

        def exchange(*packets: bytes) -> list[bytes]:
            for packet in packets:
                network.inject(STRANGER, SERVER, packet)
            network.run([server], 1_000_000)
            sent = sent_by(server.engine, SERVER[0])
            assert {to[:2] for to in sent} <= {STRANGER}
            return [packet for _, _, packet in sent]

        assert exchange(bytes.fromhex("cc0800c00001000131323334")) == [SMALL_RESPONSE]
        assert exchange(bytes.fromhex("cc 08 00 c0 ffff 0001")) == [bytes.fromhex("cc 08 11 c0 ffff 0001")]
        assert exchange(REQUEST[0]) == [ACK]
        assert exchange(*REQUEST[1:]) == RESPONSE
        # Extensions of 1 and of 24 bytes, which no server knows: skipped.
        assert exchange(bytes.fromhex("cc 09 00 c0 0001 0001 ee 31323334")) == [SMALL_RESPONSE]
        assert exchange(bytes.fromhex("cc 20 00 c0 0001 0001") + bytes(24) + b"1234") == [SMALL_RESPONSE]
        # Replicated, and nobody replicates here.
        assert exchange(bytes.fromhex("cc 08 02 c0 0001 0001 31323334")) == [DROP]


def test_a_deployed_server_of_our_client() -> None:
    other = (0x0A000007, 4321)  # the server that a router has chosen answers from its own address
    with pair() as (network, _, caller):
        caller.engine.capture_start(1_000_000, 1472)

        def answers(source: tuple[int, int], *packets: bytes) -> None:
            for packet in packets:
                network.inject(source, CLIENT, packet)
            network.run([caller], 100_000)

        assert caller.call(1, b"1234", policy=1) == 1, "the first rid of a client is 1"
        network.run([caller], 100_000)
        assert sent_by(caller.engine, CLIENT[0]) == [(*SERVER, SMALL_REQUEST)]
        answers(other, SMALL_RESPONSE)
        assert caller.ended[1] == (DONE_OK, b"1234")

        rid = caller.call(2, BODY, policy=0)

        def with_rid(packet: bytes) -> bytes:
            return packet[:4] + rid.to_bytes(2, "big") + packet[6:]

        network.run([caller], 100_000)
        assert sent_by(caller.engine, CLIENT[0]) == [(*SERVER, with_rid(REQUEST[0]))]
        answers(other, with_rid(ACK))
        assert sent_by(caller.engine, CLIENT[0]) == [(*other, with_rid(packet)) for packet in REQUEST[1:]]
        answers(other, *(with_rid(packet) for packet in RESPONSE))
        assert caller.ended[2] == (DONE_OK, BODY)

        rid = caller.call(3, b"1234")
        answers(other, with_rid(DROP))
        assert caller.ended[3] == (DONE_DROPPED, b"")


def test_feedback_to_a_router_in_bytes() -> None:
    router = (0x0A0000FE, 9000)
    with MemoryNetwork() as network:
        server = Server(network, router_ip=router[0], router_port=router[1])
        server.engine.capture_start(1_000_000, 1472)
        network.inject(STRANGER, SERVER, bytes.fromhex("cc 08 00 c0 abcd 0001 31323334"))
        network.inject(STRANGER, SERVER, bytes.fromhex("cc 08 02 c0 abce 0001 31323334"))
        network.run([server], 1_000_000)
        sent = sent_by(server.engine, SERVER[0])
        server.engine.close()
    feedback = [packet for ip, port, packet in sent if (ip, port) == router]
    # Bytes 0, 2 and 8..15 are what routers read: rid, the client's port 7777 and address 10.0.0.99.
    read = sorted((packet[0], packet[2] >> 4, packet[8:].hex(" ", 2)) for packet in feedback)
    assert read == [(0xCC, 2, "abcd 1e61 0a00 0063"), (0xCC, 2, "abce 1e61 0a00 0063")]
    assert all(len(packet) == 16 for packet in feedback), "and every byte of it is written"
    assert sorted(packet[:4].hex() for packet in feedback) == ["cc0821c0"] * 2
    answered = [packet for ip, port, packet in sent if (ip, port) == STRANGER]
    assert sorted(packet[2] for packet in answered) == [0x11, 0x41]
