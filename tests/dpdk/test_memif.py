"""Two processes over shared memory, without any rights; peers that are killed and come back."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.dpdk.launch import Children

pytestmark = pytest.mark.needs("dpdk")

AS_NOBODY = os.geteuid() == 0
"""Root would prove nothing; where the tests are not root, they have no rights anyway."""


def other(role: str) -> str:
    """The other end's role."""
    return "client" if role == "server" else "server"


@pytest.mark.parametrize(("role", "checksum"), [("server", True), ("client", True), ("server", False)])
def test_every_size_goes_there_and_back_unprivileged(
    children: Children, shared_folder: Path, role: str, checksum: bool
) -> None:
    path = str(shared_folder / "s")
    far = children.start("memif_echo", socket_path=path, role=other(role), as_nobody=AS_NOBODY)
    near = children.run("memif_calls", socket_path=path, role=role, checksum=checksum, as_nobody=AS_NOBODY)
    assert near["uid"] != 0
    assert near["wrong"] == 0
    assert (near["at_start"], near["in_use"], near["leaked"]) == (0, 0, 0)
    assert near["answered"] == 240
    assert near["drops"] == {}
    assert far.line()["uid"] != 0
    echoed = far.result()
    assert (echoed["in_use"], echoed["leaked"]) == (0, 0)
    assert echoed["counters"]["rx_packets"] >= 240


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_killed_peer_comes_back_and_service_resumes(children: Children, shared_folder: Path, role: str) -> None:
    path = str(shared_folder / "s")
    stays = children.start("survivor", socket_path=path, role=role)
    for number in range(2):
        dies = children.start("memif_echo", socket_path=path, role=other(role))
        assert dies.line()["ready"]
        alive = stays.line()
        assert alive["round"] == number
        assert alive["received"] > 100
        dies.end()
        assert stays.line()["down"] == number
    result = stays.result()
    assert (result["in_use"], result["leaked"]) == (0, 0)
    assert result["counters"]["tx_drop_full"] > 0


def test_clients_gone_before_their_call_is_taken_end_nobody(children: Children, shared_folder: Path) -> None:
    """DPDK's driver leaves a closed socket on its interrupt thread's list then, and that thread ends the process."""
    path = str(shared_folder / "s")
    stays = children.start("bound_server", socket_path=path)
    assert stays.line()["bound"]
    for _ in range(20):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(path)  # waits while the one before has not been taken
    near = children.run("memif_calls", socket_path=path, role="client")
    assert (near["wrong"], near["answered"]) == (0, 240)
    result = stays.result()
    assert 1 <= result["counters"]["links_abandoned"] <= 20  # the others were taken before they left
    assert (result["in_use"], result["leaked"]) == (0, 0)


DATAGRAMS = int(os.environ.get("R2P2_DATAGRAMS", "1000000"))
"""How many the leak test takes there and back; R2P2_DATAGRAMS=10000000 takes some seconds on a machine at rest."""


def test_no_buffer_is_lost_over_a_million_datagrams(children: Children, shared_folder: Path) -> None:
    path = str(shared_folder / "s")
    far = children.start("memif_echo", socket_path=path, role="client")
    near = children.run("many", socket_path=path, packets=DATAGRAMS, time_max_s=40.0)
    assert near["received"] >= DATAGRAMS
    assert near["counters"]["tx_drop_no_route"] >= 32
    assert near["counters"]["tx_drop_error"] >= 32
    assert (near["in_use"], near["leaked"]) == (0, 0)
    assert far.line()["ready"]
    echoed = far.result()
    assert echoed["counters"]["rx_drop_no_listener"] >= 1
    assert (echoed["in_use"], echoed["leaked"]) == (0, 0)


def test_an_empty_pool_is_counted_and_service_resumes(children: Children, shared_folder: Path) -> None:
    result = children.run("pool_empty", socket_path=str(shared_folder / "s"))
    assert result["before"]
    assert 64 < result["reserved"] < 128, "the pool has 127"
    assert result["held"] > 64
    assert result["blocked"] == [False] * 3
    assert result["refused"] == 0
    assert result["failed"] >= 2
    assert result["counters"]["rx_packets"] == 5, "what came meanwhile waited in the ring"
    assert result["resumed"]
    assert result["answered"] == 1
    assert result["arrived"]
    assert result["counters"]["tx_drop_no_route"] == result["reserved"]
    for end in (result, result["far"]):
        assert (end["in_use"], end["leaked"]) == (0, 0)


def test_a_full_ring_and_a_gone_peer_are_counted_and_pass(children: Children, shared_folder: Path) -> None:
    result = children.run("ring_full", socket_path=str(shared_folder / "s"))
    assert result["sent"] == 200
    assert result["arrived"] == 64
    assert (result["again"], result["arrived_again"]) == (1, 1)
    assert result["gone"] == 1
    counters = result["counters"]
    assert counters["tx_packets"] == 65
    assert counters["tx_drop_full"] == 200 - 64 + 1
    assert counters["tx_drop_no_route"] == 1
    assert counters["tx_drop_error"] == 1
    for end in (result, result["far"]):
        assert (end["in_use"], end["leaked"]) == (0, 0)
