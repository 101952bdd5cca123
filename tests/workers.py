"""Which of the two workers of a whole run has a test.

``tools/test.sh`` runs all tests with pytest-xdist: a worker, with a lower priority, for the folders that only compute,
and beside it one for all others, which start processes and wait for them, one test after the other.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import pytest

# Folders whose tests keep no process waiting and measure no time: clocks are counted, packets handed over in memory.
COMPUTING: Final = ("apps", "engine", "fuzz", "museum", "node", "raft", "sim")
NICE: Final = 19  # what waits for an election is not to wait for a simulation
SECONDS_MAX: Final = 400  # for a test, with the priority that is left to it
IS_WORKER: Final = "PYTEST_XDIST_WORKER" in os.environ

_ROOT = Path(__file__).resolve().parent


def scheduler(config: pytest.Config, log: Any) -> Any:
    """What xdist hands out tests by: all that compute to one worker, all others to another."""
    from xdist.scheduler import LoadScopeScheduling  # not there where tests run without it

    class TwoWorkers(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            return "computing" if nodeid.removeprefix("tests/").partition("/")[0] in COMPUTING else "waiting"

    return TwoWorkers(config, log)


def is_computing(item: pytest.Item) -> bool:
    """Whether the test is of a folder of COMPUTING."""
    return item.path.is_relative_to(_ROOT) and item.path.relative_to(_ROOT).parts[0] in COMPUTING


def step_back(item: pytest.Item) -> None:
    """Lowers this worker's priority when the test only computes, and that of all it starts."""
    if IS_WORKER and is_computing(item) and hasattr(os, "nice"):
        os.nice(NICE - os.nice(0))
