"""Children in processes of their own, and folders that an unprivileged one may use."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dpdk.launch import Children


@pytest.fixture
def children() -> Iterator[Children]:
    """Processes of their own."""
    made = Children()
    yield made
    for child in made.started:
        child.end()


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A short path (a socket's name has 107 bytes) in which anyone may write."""
    folder = Path(tempfile.mkdtemp(prefix="r2p2-"))
    os.chmod(folder, 0o777)
    yield folder
    shutil.rmtree(folder)
