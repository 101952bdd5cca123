"""Every view over damaged captures: dissect prints lines that a terminal can take, and never fails.

Datagrams are those of the golden captures with bits flipped, cut, repeated, lost and reordered, so that damage
reaches deep fields, and some of pure noise.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2p2.capture import PcapWriter
from r2p2.cli import main
from r2p2.dissect.captures import records
from r2p2.dissect.datagrams import Datagram, datagram

PCAPS = Path(__file__).resolve().parent.parent.parent / "pcaps"
VIEWS = [[], ["--entries"], ["--json", "--entries"], ["--pairs"], ["--pairs", "--json"], ["--raft"], ["--mermaid"]]


def golden_datagrams() -> list[Datagram]:
    """All datagrams of the golden captures."""
    found = []
    for path in sorted(PCAPS.glob("*.pcap")):
        with path.open("rb") as stream:
            found += [one for record in records(stream) if isinstance(one := datagram(record), Datagram)]
    return found


GOLDEN = golden_datagrams()


def damaged(random: Random) -> list[Datagram]:
    """Golden datagrams after a bad day."""
    start = random.randrange(len(GOLDEN))
    made = []
    for one in GOLDEN[start : start + 40]:
        payload = bytearray(one.payload)
        for _ in range(random.choice((0, 0, 1, 1, 3))):
            if payload:
                payload[random.randrange(min(len(payload), 120))] ^= 1 << random.randrange(8)
        if random.random() < 0.1:
            del payload[random.randrange(len(payload) + 1) :]
        if random.random() < 0.05:
            payload = bytearray(b"\xcc" + random.randbytes(random.randrange(60)))
        made += [one._replace(payload=bytes(payload))] * random.choice((0, 1, 1, 1, 1, 1, 2))
    if random.random() < 0.5:
        random.shuffle(made)
    return made


@pytest.mark.parametrize("options", VIEWS, ids=" ".join)
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_no_damage_breaks_a_view(options: list[str], seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    random = Random(seed)
    path = tmp_path_factory.mktemp("hostile") / "a.pcap"
    with PcapWriter(path, snaplen=random.choice((65535, 65535, 60))) as writer:
        for number, one in enumerate(damaged(random)):
            # Time jumps too, and backwards.
            time_ns = 10**18 + number * 10**6 + random.choice((0, 0, 0, -(10**8), 20 * 10**9))
            ports = (one.source_port, one.target_port)
            writer.write(time_ns, one.source_ip, ports[0], one.target_ip, ports[1], one.payload)
    with pytest.MonkeyPatch.context() as patch:
        out, errors = io.StringIO(), io.StringIO()
        patch.setattr("sys.stdout", out)
        patch.setattr("sys.stderr", errors)
        code = main(["dissect", str(path), *options])
    if writer.packets_count:
        # Damage leaves gaps, and many are said to be some.
        told = [line for line in errors.getvalue().splitlines() if not line.startswith("r2p2: incomplete messages")]
        assert (code, told) == (0, [])
    for text in out.getvalue().splitlines():
        assert text.isascii() and text.isprintable()
        if "--json" in options:
            assert isinstance(json.loads(text), dict)
