"""The load generator's own promises, over the in-memory port."""

from __future__ import annotations

import pytest

from r2p2.errors import UserError
from r2p2.loadgen import ECHO, LoadConfig, LoadGenerator
from tests.engine.support import CLIENT, SERVER, pair


def test_an_engine_with_calls_of_its_own_is_refused() -> None:
    """The generator takes the ends of all calls: somebody else's would vanish, and count as its own."""
    with pair() as (network, server, caller):
        config = LoadConfig(ECHO, 1, CLIENT[1], outstanding=4)
        caller.call(1, b"mine")
        with pytest.raises(UserError, match="calls waiting"):
            LoadGenerator(caller.engine, config, [SERVER])
        network.run([server, caller], 1_000_000)
        assert caller.ended[1][1] == b"mine"
        LoadGenerator(caller.engine, config, [SERVER]).close()
