"""`r2p2 top` shows what changes; `--log-format json` is an object a line."""

from __future__ import annotations

import argparse
import json
import logging
import re
import signal
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from r2p2.cluster import top
from r2p2.cluster.metrics import READY_PREFIX
from r2p2.cluster.status import table
from r2p2.cluster.top import page
from r2p2.cluster.view import View
from r2p2.logs import JsonFormatter
from r2p2.processes import Supervisor
from tests.cluster.test_local_cluster import r2p2
from tests.gateway.support import free_udp_ports


def status(applied: int, drops: int, incarnation: str = "a") -> dict[str, object]:
    return {
        "node_id": 0,
        "replicated": True,
        "formed": True,
        "role": "leader",
        "term": 3,
        "leader": 0,
        "incarnation": incarnation,
        "applied_index": applied,
        "counters": {"rx_drop_reply": drops, "replies": applied},
        "configuration": {
            "configuration_index": 1,
            "members": [{"slot": 0, "address": "a:1", "voter": True, "outgoing": False, "learner": False}],
            "waiting": [],
        },
    }


def test_a_page_shows_rates_and_the_drops_that_move() -> None:
    down = View({"a:1": {"error": "no answer"}, "b:2": {"error": "no answer"}})
    assert page({"a:1": status(1000, 5)}, down, 2.0).startswith("NOT HEALTHY")
    text = page({"a:1": status(1000, 5)}, View({"a:1": status(5000, 9)}), 2.0)
    assert text.startswith("healthy")
    assert "a:1  applied 2,000/s, rx_drop_reply 2.0/s" in text


def test_a_table_has_digests_where_they_were_asked_for() -> None:
    assert "digest" not in table(View({"a:1": status(1000, 5)}))
    same: dict[str, dict[str, Any]] = {
        "a:1": status(1000, 5) | {"state_digest": "0123456789abcdef" * 4},
        "b:2": {"error": "no answer"},
    }
    head, asked, down = (line.split() for line in table(View(same)).splitlines()[:3])
    at = head.index("digest")
    assert (head[at + 1], asked[at], down[at]) == ("state", "0123456789abcdef", "-")


def test_digests_that_begin_alike_and_differ_look_different() -> None:
    """An application's digest may be any text."""
    states = ["[('counter', 1), ('other', 2)]", "[('counter', 1), ('other', 3)]", "[('counter', 1), ('other', 2)]"]
    view = View({f"a:{i}": status(1000, 5) | {"state_digest": state} for i, state in enumerate(states)})
    head, *rows = (line.split() for line in table(view).splitlines()[:4])
    first, second, third = (row[head.index("digest")] for row in rows)
    assert first == third != second


def test_a_member_that_differs_from_another_is_not_ok() -> None:
    """With --check-determinism; the log alone is soon out of sight."""
    checks: dict[str, Any] = {"interval": 64, "checks": 3, "differs": None}
    differs = checks | {"differs": {"index": 128, "member": 0, "other": 2, "what": ["replies"]}}
    assert View({"a:1": status(1000, 5) | {"determinism": checks}}).state("a:1") == "ok"
    view = View({"a:1": status(1000, 5) | {"determinism": differs}})
    assert view.state("a:1") == "not deterministic: differed from member 2 at index 128"
    assert "not deterministic" in table(view)


def test_a_member_that_came_back_has_no_rates_at_first() -> None:
    text = page({"a:1": status(5000, 9, "a")}, View({"a:1": status(10, 20, "b")}), 2.0)
    assert "a:1  applied -" in text.splitlines()


def test_an_exception_stays_within_its_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("r2p2", logging.ERROR, "f", 1, "it %s", ("broke",), sys.exc_info())
    line = JsonFormatter({"node": 4}).format(record)
    found = json.loads(line)
    assert "\n" not in line and found["message"] == "it broke" and found["node"] == 4 and found["level"] == "error"
    assert "ValueError: two\nlines" in found["exception"]


def test_a_node_that_logs_json_and_top_that_watches_it(tmp_path: Path) -> None:
    (port,) = free_udp_ports(1)
    config = tmp_path / "one.toml"
    config.write_text(f'[cluster]\napp = "kv"\nid = 9\n[[nodes]]\nslot = 3\naddress = "127.0.0.1:{port}"\n')
    serve = [sys.executable, "-m", "r2p2", "serve", "--config", str(config), "--node", "3", "--log-format", "json"]
    with Supervisor(tmp_path / "logs") as supervisor:
        process = supervisor.start("node", serve)
        process.wait_line(lambda line: json.loads(line)["message"].startswith("leader of term"), 30)
        top = r2p2("top", "--config", str(config), "--count", "2", "--period", "0.1")
        assert top.returncode == 0 and top.stdout.count("healthy") == 2, top.stderr + top.stdout
        metrics = supervisor.start(
            "metrics", [sys.executable, "-m", "r2p2", "metrics", "--config", str(config), "--listen", "127.0.0.1:0"]
        )
        line = metrics.wait_line(lambda line: line.startswith(READY_PREFIX), 30)
        url = f"http://{line.removeprefix(READY_PREFIX).split()[0]}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            text = answer.read().decode()
        member = f'{{member="127.0.0.1:{port}"}}'
        assert f"r2p2_up{member} 1.0" in text and f"r2p2_is_leader{member} 1.0" in text
        assert re.search(r'^r2p2_log_time_seconds{member="[0-9.:]+"} [0-9.e+]+$', text, re.MULTILINE)
        assert re.search(r'^r2p2_events_total{member="[0-9.:]+",name="[a-z_]+"} [0-9.e+]+$', text, re.MULTILINE)
        process.signal(signal.SIGTERM)
        assert process.wait(30) == 0
        with urllib.request.urlopen(url, timeout=30) as answer:
            text = answer.read().decode()
        assert f"r2p2_up{member} 0.0" in text and "r2p2_term{" not in text
        metrics.signal(signal.SIGTERM)
        assert metrics.wait(30) == 0
    lines = [json.loads(line) for line in process.lines]
    assert {(line["node"], line["cluster"]) for line in lines} == {(3, 9)}
    assert any(line["message"].startswith("serving kv on") for line in lines)
    assert lines[-1]["message"].startswith("stopped; dropped:")


def test_wrong_arguments_of_top_are_named() -> None:
    ended = r2p2("top", "--nodes", "127.0.0.1:1", "--period", "0")
    assert ended.returncode == 1 and "--period is 0.0" in ended.stderr


def test_a_voter_that_was_launched_anew_makes_a_cluster_unhealthy_until_it_votes() -> None:
    def row(slot: int, incarnation: str, *, voter: bool = True) -> dict[str, Any]:
        return {
            "slot": slot,
            "address": f"127.0.0.1:{slot + 1}",
            "incarnation": incarnation,
            "voter": voter,
            "outgoing": False,
            "learner": not voter,
        }

    def view(*rows: dict[str, Any]) -> View:
        told = {"configuration": {"configuration_index": 7, "members": list(rows), "waiting": []}}
        leader = status(1000, 0, "a") | told
        anew = status(10, 0, "c") | told | {"node_id": 1, "role": "follower"}
        return View({"127.0.0.1:1": leader, "127.0.0.1:2": anew})

    waits = view(row(0, "a"), row(1, "b"))
    assert (waits.kind("127.0.0.1:2"), waits.is_healthy, waits.votes("127.0.0.1:2")) == ("joining", False, False)
    assert waits.state("127.0.0.1:2") == "started anew, waits to be let in"
    for rows in ((row(1, "b"), row(1, "c", voter=False)), (row(1, "c", voter=False), row(1, "b"))):
        catches_up = view(row(0, "a"), *rows)
        assert (catches_up.kind("127.0.0.1:2"), catches_up.is_healthy) == ("learner", False)
        assert catches_up.voters == {"127.0.0.1:1", "127.0.0.1:2"}
    votes = view(row(0, "a"), row(1, "c"))
    assert (votes.kind("127.0.0.1:2"), votes.is_healthy, votes.votes("127.0.0.1:2")) == ("follower", True, True)


@pytest.mark.parametrize(("period", "asked_s"), [(0.1, 0.5), (1.0, 1.0), (3600.0, 2.0)])
def test_how_long_a_member_may_take_is_not_how_seldom_one_looks(
    monkeypatch: pytest.MonkeyPatch, period: float, asked_s: float
) -> None:
    asked: list[float] = []

    def look(targets: object, timeout_s: float) -> View:
        asked.append(timeout_s)
        return View({})

    monkeypatch.setattr(top, "look", look)
    args = argparse.Namespace(period=period, count=1, config=None, nodes="127.0.0.1:1", only=True)
    assert (top.run(args), asked) == (1, [asked_s])
