"""Fixtures of the port tests: the probe, built once, and a world over each port."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.ports import probe_build
from tests.ports.worlds import WORLDS, World

if os.environ.get("R2P2_PORT_WORLD") == "dpdk":
    from tests.ports.dpdk_world import DpdkWorld

    WORLDS.clear()
    WORLDS["dpdk"] = DpdkWorld


@pytest.fixture(scope="session")
def probe_module(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The compiled probe and in-memory port."""
    directory: Path = tmp_path_factory.mktemp("probe")
    return probe_build.build(directory)


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest, probe_module: ModuleType) -> Iterator[World]:
    """A world over each port in turn; closed, with its own checks, after the test."""
    made = WORLDS[request.param](probe_module)
    yield made
    made.close()
