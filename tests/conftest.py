"""What every test may rely on: the `needs` marker and the guard against silent skips.

``@pytest.mark.needs("dpdk", "root")`` skips a test, with the reason, where the machine lacks one of these. With
``R2P2_REQUIRE=all`` (set by ``make test`` on a machine that can run everything) every skip, by whatever means, is a
failure: a green run there ran every test. A test of an in-memory cluster that fails leaves its last packets as a
capture. Who runs what in a whole run: ``tests/workers.py``.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests import failed_captures, workers

# Hypothesis takes an example that is slow for a failure; here it means that the machine is busy.
settings.register_profile("r2p2", deadline=None)
settings.load_profile("r2p2")

REQUIRE_ALL = os.environ.get("R2P2_REQUIRE") == "all"


def _have_dpdk() -> str:
    folder = Path(__file__).resolve().parent.parent / "dpdk_backend"
    return "" if any(folder.glob("_dpdk.*so")) else "the DPDK module is not built (apt-get install libdpdk-dev; make)"


def _have_root() -> str:
    return "" if sys.platform != "win32" and os.geteuid() == 0 else "not root"


def _have_netns() -> str:
    if not shutil.which("unshare") or not shutil.which("ip"):
        return "no unshare or no ip command (apt-get install util-linux iproute2)"
    done = subprocess.run(["unshare", "-n", "true"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"no network namespaces: {done.stderr.strip()}"


def _have_hugepages() -> str:
    """Free ones, or the right to reserve some: 2 MB each is what x86-64 and arm64 have."""
    pool = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
    if not pool.exists():
        return "the kernel has no hugepages of 2 MB"
    return "" if os.access(pool, os.W_OK) else "hugepages can be reserved by root only"


def _have_module(name: str) -> str:
    return "" if importlib.util.find_spec(name) else f"{name} is not installed (pip install {name})"


_CHECKS: dict[str, Callable[[], str]] = {
    "dpdk": _have_dpdk,
    "root": _have_root,
    "netns": _have_netns,
    "hugepages": _have_hugepages,
    "linux": lambda: "" if sys.platform == "linux" else f"needs Linux, this is {sys.platform}",
    "uvloop": lambda: _have_module("uvloop"),
    "plot": lambda: _have_module("matplotlib"),
    "scapy": lambda: _have_module("scapy"),
    "redis": lambda: "" if shutil.which("redis-server") else "no redis-server (apt-get install redis-server)",
    "systemd": lambda: "" if shutil.which("systemd-analyze") else "no systemd-analyze (apt-get install systemd)",
    "tshark": lambda: "" if shutil.which("tshark") else "no tshark command (apt-get install tshark)",
}


@functools.cache
def missing(need: str) -> str:
    """Why this machine lacks `need`; empty where it has it."""
    return _CHECKS[need]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With pytest-xdist: a worker for what computes, one for what waits."""
    return workers.scheduler(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Turns `needs` markers into skips with the reason, and gives who has little of a processor more time."""
    for item in items:
        if workers.IS_WORKER and workers.is_computing(item) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(workers.SECONDS_MAX))
        for mark in item.iter_markers("needs"):
            unknown = set(mark.args) - _CHECKS.keys()
            if unknown:
                raise pytest.UsageError(f"{item.nodeid}: needs{mark.args}: no such need {sorted(unknown)}")
            reasons = [reason for need in mark.args if (reason := missing(need))]
            if reasons:
                item.add_marker(pytest.mark.skip(reason="; ".join(reasons)))


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped although R2P2_REQUIRE=all allows no skip: {reason}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """No capture of the test before."""
    failed_captures.forget()
    workers.step_back(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped test fails where nothing may be skipped; one that failed leaves a capture."""
    report = yield
    _refuse_skip(report)
    failed_captures.attach(item, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """So does a module that skips itself whole."""
    report = yield
    _refuse_skip(report)
    return report
