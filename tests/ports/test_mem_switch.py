"""The in-memory switch: a seed replays, nothing appears or vanishes uncounted, faults do what they say."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ports.worlds import Address, Endpoint, World

ENDPOINTS_COUNT = 3
FIRST_IP = 0x0A000001
U64_MAX = 2**64 - 1

COUNTS = (
    "sent",
    "duplicated",
    "reordered",
    "lost",
    "blocked",
    "delivered",
    "refused",
    "gone",
    "travelling",
    "queued",
)


class Switch(World):
    """A switch with a few endpoints and its counts in sight."""

    def __init__(self, probe_module: ModuleType, seed: int = 1, packets_max: int = 4096) -> None:
        super().__init__(probe_module)
        self.lib: Any = probe_module.lib
        self.ffi: Any = probe_module.ffi
        self.switch = self.lib.r2p2_mem_switch_new(seed, packets_max)
        assert self.switch != self.ffi.NULL
        self.endpoints: list[Endpoint | None] = [None] * ENDPOINTS_COUNT
        for index in range(ENDPOINTS_COUNT):
            self.reopen(index)

    def reopen(self, index: int) -> None:
        """Open endpoint `index`, which must be closed."""
        address = self.lib.r2p2_mem_port_open(self.switch, FIRST_IP + index, 9000)
        assert address != 0
        self.endpoints[index] = Endpoint(self, address)

    def shut(self, index: int) -> int:
        """Close endpoint `index`; returns the buffers it held."""
        endpoint = self.endpoints[index]
        assert endpoint is not None
        self.endpoints[index] = None
        endpoint.free()
        return int(self.lib.r2p2_mem_port_close(self.switch, endpoint.port_address))

    def __getitem__(self, index: int) -> Endpoint:
        endpoint = self.endpoints[index]
        assert endpoint is not None
        return endpoint

    def faults(self, loss: int = 0, duplicate: int = 0, reorder: int = 0, delays: tuple[int, int] = (0, 0)) -> int:
        """Set all faults; rates in ppm, delays in ns."""
        return int(self.lib.r2p2_mem_switch_faults(self.switch, loss, duplicate, reorder, *delays))

    def block(self, source: int, target: int, blocked: bool = True) -> int:
        """Cut or heal one way."""
        return int(self.lib.r2p2_mem_switch_block(self.switch, source, target, blocked))

    def advance(self, ns: int) -> None:
        """Let time pass."""
        self.lib.r2p2_mem_switch_advance(self.switch, ns)

    def wait(self, endpoint: Endpoint) -> None:
        self.advance(1)

    @property
    def now_ns(self) -> int:
        """The virtual clock."""
        return int(self.lib.r2p2_mem_switch_now_ns(self.switch))

    @property
    def next_ns(self) -> int:
        """The next arrival."""
        return int(self.lib.r2p2_mem_switch_next_ns(self.switch))

    @property
    def in_flight(self) -> int:
        """Buffers that are not free."""
        return int(self.lib.r2p2_mem_switch_in_flight(self.switch))

    def counts(self) -> dict[str, int]:
        """The switch's own counts."""
        counts = self.ffi.new("r2p2_mem_counts *")
        assert self.ffi.sizeof("r2p2_mem_counts") == 8 * len(COUNTS)
        self.lib.r2p2_mem_switch_counts(self.switch, counts)
        return {name: int(getattr(counts, name)) for name in COUNTS}

    def assert_conserved(self) -> None:
        """Everything put on the switch is somewhere."""
        c = self.counts()
        ends = c["delivered"] + c["lost"] + c["blocked"] + c["refused"] + c["gone"] + c["travelling"] + c["queued"]
        assert c["sent"] + c["duplicated"] == ends, c

    def drain(self) -> list[list[bytes]]:
        """Let everything arrive; what each open endpoint received, in order."""
        received: list[list[bytes]] = [[] for _ in self.endpoints]
        while True:
            for index, endpoint in enumerate(self.endpoints):
                while endpoint is not None and (burst := endpoint.receive_now()):
                    received[index] += [got.data for got in burst]
                    endpoint.release()
            if self.next_ns == U64_MAX:
                return received
            self.advance(self.next_ns - self.now_ns)

    def close(self) -> None:
        """Free everything; buffers must be back once all endpoints are closed."""
        for index, endpoint in enumerate(self.endpoints):
            if endpoint is not None:
                self.shut(index)
        self.drain()
        assert self.in_flight == 0
        self.lib.r2p2_mem_switch_free(self.switch)


Operation = tuple[str, int, int, int]
operations = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 2), st.integers(0, 3), st.integers(1, 40)),
        st.tuples(st.just("broadcast"), st.integers(0, 2), st.integers(0, 3), st.integers(1, 40)),
        st.tuples(st.just("receive"), st.integers(0, 2), st.integers(1, 64), st.just(0)),
        st.tuples(st.just("hold"), st.integers(0, 2), st.integers(1, 8), st.just(0)),
        st.tuples(st.just("release"), st.integers(0, 2), st.just(0), st.just(0)),
        st.tuples(st.just("inject"), st.integers(0, 2), st.sampled_from([0, 1, 1472, 1473, 3000]), st.just(0)),
        st.tuples(st.just("advance"), st.integers(0, 3000), st.just(0), st.just(0)),
        st.tuples(st.just("block"), st.integers(0, 3), st.integers(0, 3), st.integers(0, 1)),
        st.tuples(st.just("restart"), st.integers(0, 2), st.just(0), st.just(0)),
    ),
    max_size=60,
)
fault_rates = st.tuples(*[st.sampled_from([0, 1000, 200_000, 1_000_000])] * 3)
delay_ranges = st.tuples(st.integers(0, 2000), st.integers(0, 2000)).map(lambda pair: (min(pair), max(pair)))


def perform(switch: Switch, script: list[Operation], history: list[Any]) -> None:
    """Run the script; the history is everything an engine could see."""
    for number, (what, x, y, z) in enumerate(script):
        if what in ("send", "broadcast"):
            # Target 3 is nobody.
            target, payload = Address(FIRST_IP + y, 9000), number.to_bytes(4, "big")
            if what == "send":
                history.append(switch[x].send(*((target, payload + bytes([i])) for i in range(z))))
            else:
                switch[x].broadcast(payload, [Address(FIRST_IP + i % 4, 9000) for i in range(z)])
        elif what in ("receive", "hold"):
            history.append((switch.now_ns, x, switch[x].receive_now(y)))
            if what == "receive":
                switch[x].release()
        elif what == "release":
            switch[x].release(backwards=True)
        elif what == "inject":
            data = bytes(y)
            history.append(switch.lib.r2p2_mem_switch_inject(switch.switch, 1, 2, FIRST_IP + x, 3, data, y))
        elif what == "advance":
            switch.advance(x)
        elif what == "block":
            switch.block(x and FIRST_IP + x - 1, y and FIRST_IP + y - 1, bool(z))
        elif what == "restart":
            history.append(switch.shut(x))
            switch.reopen(x)
        switch.assert_conserved()
        history.append((switch.next_ns, switch.in_flight))


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, U64_MAX), packets_max=st.sampled_from([1, 8, 100, 4096]), rates=fault_rates,
       delays=delay_ranges, script=operations)  # fmt: skip
def test_any_script_conserves_datagrams_and_replays_from_its_seed(
    probe_module: ModuleType,
    seed: int,
    packets_max: int,
    rates: tuple[int, int, int],
    delays: tuple[int, int],
    script: list[Operation],
) -> None:
    histories: list[list[Any]] = []
    for _ in range(2):
        switch = Switch(probe_module, seed, packets_max)
        assert switch.faults(*rates, delays) == 0
        history: list[Any] = []
        perform(switch, script, history)
        for endpoint in switch.endpoints:
            assert endpoint is not None
            endpoint.release()
        history.append(switch.drain())
        switch.assert_conserved()
        counts = switch.counts()
        assert (switch.in_flight, counts["travelling"], counts["queued"]) == (0, 0, 0)
        history.append(counts)
        histories.append(history)
        switch.close()
    assert histories[0] == histories[1]


@pytest.fixture
def switch(probe_module: ModuleType) -> Any:
    """Three endpoints, seed 1."""
    made = Switch(probe_module)
    yield made
    made.close()


def send_numbers(switch: Switch, count: int, source: int = 0, target: int = 1) -> list[bytes]:
    """`count` numbered datagrams over one link, in bursts."""
    payloads = [i.to_bytes(4, "big") for i in range(count)]
    for start in range(0, count, 64):
        burst = payloads[start : start + 64]
        assert switch[source].send(*((switch[target].address, data) for data in burst)) == len(burst)
    return payloads


def test_without_faults_a_link_is_first_in_first_out_whatever_the_delays(switch: Switch) -> None:
    switch.faults(delays=(0, 1_000_000))
    payloads: list[bytes] = []
    for _ in range(10):
        payloads += send_numbers(switch, 50)
        switch.advance(1000)
    assert switch.drain()[1] == payloads


def test_delays_stay_in_their_range_and_vary(switch: Switch) -> None:
    switch.faults(delays=(500, 900))
    arrivals = set()
    for _ in range(200):
        sent_at = switch.now_ns
        send_numbers(switch, 1)
        assert sent_at + 500 <= switch.next_ns <= sent_at + 900
        arrivals.add(switch.next_ns - sent_at)
        switch.drain()
    assert len(arrivals) > 100


def test_nothing_arrives_before_its_time(switch: Switch) -> None:
    switch.faults(delays=(100, 100))
    send_numbers(switch, 1)
    switch.advance(99)
    assert switch[1].receive_now() == []
    switch.advance(1)
    assert len(switch[1].receive(1)) == 1


@pytest.mark.parametrize("kind", ["lost", "duplicated", "reordered"])
def test_rates_are_met(switch: Switch, kind: str) -> None:
    loss, duplicate, reorder = (300_000 if kind == each else 0 for each in ("lost", "duplicated", "reordered"))
    assert switch.faults(loss, duplicate, reorder) == 0
    payloads = send_numbers(switch, 1500)
    counts = switch.counts()
    assert 350 < counts[kind] < 550, "300,000 ppm of 1,500 is 450; these bounds are 5.6 standard deviations away"
    assert {name for name in ("lost", "duplicated", "reordered") if counts[name]} == {kind}
    received = switch.drain()[1]
    if kind == "lost":
        assert received == [data for data in payloads if data in set(received)]
        assert len(received) == 1500 - counts["lost"]
    elif kind == "duplicated":
        assert sorted(set(received)) == payloads
        assert len(received) == 1500 + counts["duplicated"]
    else:
        assert sorted(received) == payloads
        assert received != payloads


def test_more_loss_does_not_move_what_still_arrives(probe_module: ModuleType) -> None:
    arrivals: list[dict[bytes, int]] = []
    for loss in (0, 500_000):
        switch = Switch(probe_module, seed=7)
        switch.faults(loss=loss, reorder=1_000_000, delays=(0, 1_000_000))
        send_numbers(switch, 64)
        at: dict[bytes, int] = {}
        while switch.next_ns != U64_MAX:
            switch.advance(switch.next_ns - switch.now_ns)
            at.update((got.data, switch.now_ns) for got in switch[1].receive_now())
            switch[1].release()
        arrivals.append(at)
        switch.close()
    whole, lossy = arrivals
    assert 0 < len(lossy) < len(whole) == 64
    assert lossy.items() <= whole.items()


def test_another_seed_is_another_history(probe_module: ModuleType) -> None:
    received = []
    for seed in (1, 2):
        switch = Switch(probe_module, seed)
        switch.faults(loss=500_000)
        send_numbers(switch, 64)
        received.append(switch.drain()[1])
        switch.close()
    assert received[0] != received[1]


def test_a_cut_is_one_way_and_heals(switch: Switch) -> None:
    a, b = switch[0].address, switch[1].address
    assert switch.block(a.ip, b.ip) == 0
    assert switch.block(a.ip, b.ip) == 0, "cutting twice is cutting once"
    send_numbers(switch, 5, 0, 1)
    send_numbers(switch, 5, 1, 0)
    send_numbers(switch, 5, 0, 2)
    assert [len(got) for got in switch.drain()] == [5, 0, 5]
    assert switch.counts()["blocked"] == 5
    assert switch.block(a.ip, b.ip, False) == 0
    send_numbers(switch, 5, 0, 1)
    assert [len(got) for got in switch.drain()] == [0, 5, 0]


def test_address_zero_cuts_any(switch: Switch) -> None:
    switch.block(0, switch[1].address.ip)
    send_numbers(switch, 1, 0, 1)
    send_numbers(switch, 1, 2, 1)
    send_numbers(switch, 1, 1, 0)
    assert [len(got) for got in switch.drain()] == [1, 0, 0]


def test_the_table_of_cuts_is_bounded(switch: Switch) -> None:
    assert [switch.block(1, ip) for ip in range(1024)] == [0] * 1024
    assert switch.block(2, 1) < 0
    assert switch.block(1, 5, False) == 0
    assert switch.block(2, 1) == 0


def test_arguments_out_of_range_are_refused_and_change_nothing(switch: Switch) -> None:
    assert switch.faults(loss=1_000_001) < 0
    assert switch.faults(duplicate=1_000_001) < 0
    assert switch.faults(reorder=1_000_001) < 0
    assert switch.faults(delays=(2, 1)) < 0
    lib, ffi = switch.lib, switch.ffi
    assert lib.r2p2_mem_port_open(switch.switch, FIRST_IP, 9000) == 0, "taken"
    assert lib.r2p2_mem_port_open(switch.switch, 0, 9000) == 0
    assert lib.r2p2_mem_port_open(switch.switch, 77, 0) == 0
    assert lib.r2p2_mem_port_close(switch.switch, 12345) < 0
    assert lib.r2p2_mem_switch_new(1, 0) == ffi.NULL
    assert lib.r2p2_mem_switch_inject(switch.switch, 1, 1, FIRST_IP, 1, b"", 65536) < 0
    assert lib.r2p2_mem_switch_inject(switch.switch, 1, 1, 99, 1, b"", 0) < 0
    assert send_numbers(switch, 64) == switch.drain()[1]


def test_an_endpoint_owns_every_udp_port_of_its_address(switch: Switch) -> None:
    target = Address(switch[1].address.ip, 4321)
    switch[0].send((target, b"x"), local_port=1234)
    (got,) = switch[1].receive(1)
    assert (got.local_port, got.source.port) == (4321, 1234)


def test_an_endpoint_that_does_not_read_cannot_take_every_buffer(probe_module: ModuleType) -> None:
    switch = Switch(probe_module, packets_max=1000)
    send_numbers(switch, 640, 0, 1)
    switch.advance(1)
    assert switch[1].counters()["rx_drop_kernel"] == 140, "half of the buffers is the bound"
    assert send_numbers(switch, 64, 0, 2) == switch.drain()[2]
    switch.close()


def test_what_is_under_way_to_a_closed_endpoint_is_gone(switch: Switch) -> None:
    switch.faults(delays=(10, 10))
    send_numbers(switch, 3)
    switch.advance(10)
    send_numbers(switch, 4)
    assert switch.shut(1) == 0
    switch.advance(10)
    assert switch.counts()["gone"] == 7
    switch.assert_conserved()
