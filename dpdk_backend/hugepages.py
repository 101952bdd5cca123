"""The machine's hugepages, as the kernel shows them.

Why apart from the EAL: whether to ask DPDK for them is decided before it starts, and the doctor reads them without
starting it. What it leaves to others: using them (``eal.py``); reserving them is the administrator's business.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_POOLS = "sys/kernel/mm/hugepages"
_NAME = "hugepages-"


class Pool(NamedTuple):
    """The pages of one size: kilobytes each, how many there are, how many of them are free to be taken."""

    page_kb: int
    pages_count: int
    free_count: int


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def pools(root: Path = Path("/")) -> list[Pool]:
    """One for each size the kernel knows, the smallest first; none where it has no hugepages. ``root``: for tests."""
    found = []
    for folder in (root / _POOLS).glob(f"{_NAME}*kB"):
        size = folder.name.removeprefix(_NAME).removesuffix("kB")
        if size.isdigit():
            # Reserved pages are free ones that somebody has mapped and not touched yet.
            free = _number(folder / "free_hugepages") - _number(folder / "resv_hugepages")
            found.append(Pool(int(size), _number(folder / "nr_hugepages"), max(free, 0)))
    return sorted(found)


def free_mb(root: Path = Path("/")) -> int:
    """Megabytes that can be taken now, over all sizes."""
    return sum(pool.page_kb * pool.free_count for pool in pools(root)) // 1024


def mounts(root: Path = Path("/")) -> list[str]:
    """Where hugetlbfs is mounted."""
    try:
        rows = [line.split() for line in (root / "proc/mounts").read_text().splitlines()]
    except OSError:
        return []
    return [row[1] for row in rows if len(row) > 2 and row[2] == "hugetlbfs"]
