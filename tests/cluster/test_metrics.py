"""What Prometheus gets of the members' statuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from r2p2.cluster import metrics
from r2p2.cluster.status import Targets
from r2p2.cluster.view import View
from tests.cluster.test_top_and_logs import status

OPERATIONS = Path(__file__).resolve().parent.parent.parent / "docs" / "operations.md"


def scrape(monkeypatch: pytest.MonkeyPatch, statuses: dict[str, dict[str, Any]]) -> list[str]:
    """The lines of a scrape when the members say this."""
    monkeypatch.setattr(metrics, "look", lambda targets, timeout_s: View(statuses))
    registry = CollectorRegistry()
    registry.register(metrics.ClusterCollector(Targets(tuple(statuses), {}), 1.0))
    return generate_latest(registry).decode().splitlines()


def test_the_logs_time_is_a_gauge_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    led = status(5, 0) | {"log_time_ms": 1_700_000_000_250, "log_time_behind_ms": 1_500}
    lines = scrape(monkeypatch, {"a:1": led, "b:2": {"counters": {}}, "c:3": {"error": "no answer"}})
    found = [line for line in lines if line.startswith("r2p2_log_time")]
    assert found == [
        'r2p2_log_time_seconds{member="a:1"} 1.70000000025e+09',
        'r2p2_log_time_behind_seconds{member="a:1"} 1.5',
    ], "a server without a log has neither"
    (told,) = (line for line in lines if line.startswith("# HELP r2p2_log_time_seconds "))
    assert "unix time" in told
    assert "# TYPE r2p2_log_time_seconds gauge" in lines


def test_the_documents_table_has_every_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = scrape(monkeypatch, {"a:1": status(5, 0)})
    names = {line.split()[2] for line in lines if line.startswith("# TYPE ")}
    text = OPERATIONS.read_text()
    assert "r2p2_log_time_seconds" in names and not {name for name in names if f"`{name}`" not in text}
