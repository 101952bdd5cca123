"""limits.py and its C twin say the same."""

from r2p2 import limits
from r2p2._engine import lib


def test_every_shared_limit_is_equal() -> None:
    shared = [name for name in dir(lib) if name.startswith("R2P2_") and hasattr(limits, name.removeprefix("R2P2_"))]
    assert len(shared) >= 11
    for name in shared:
        assert getattr(lib, name) == getattr(limits, name.removeprefix("R2P2_")), name


def test_every_limit_of_c_has_a_twin() -> None:
    from pathlib import Path

    header = Path(__file__).parents[2] / "r2p2/csrc/r2p2_limits.h"
    names = [line.split()[1] for line in header.read_text().splitlines() if line.startswith("#define")]
    assert names
    for name in names:
        assert hasattr(limits, name.removeprefix("R2P2_")), name
