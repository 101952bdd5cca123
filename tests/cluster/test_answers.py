"""What answers for a status may be anything: it costs that member its row, and no command its end."""

from __future__ import annotations

import argparse
import json

import pytest

from r2p2 import call
from r2p2.client import BlockingClient
from r2p2.cluster.answers import status_of
from r2p2.cluster.metrics import _counters, _gauge
from r2p2.cluster.status import as_json, table
from r2p2.cluster.top import page
from r2p2.cluster.view import View
from r2p2.errors import UserError
from tests.cluster.test_top_and_logs import status

GOOD = status(1000, 5)
ROW = {"slot": 0, "address": "127.0.0.1:1", "voter": True, "outgoing": False, "learner": False}
CONFIGURATION = {"configuration_index": 1, "members": [ROW], "waiting": []}


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (b"[" * 100_000, "is it a server of another kind?"),
        (b"1" * 5000, "is it a server of another kind?"),
        (b"\xff", "is it a server of another kind?"),
        (b"17", "it does not answer with a status"),
        (b'{"role": "leader"}', "(configuration)"),
        (b'{"term": "x"}', "(term)"),
        (b'{"term": NaN}', "(term)"),
        (b'{"term": 1%s}' % (b"0" * 4000), "(term)"),
        (b'{"log_bytes": "x"}', "(log_bytes)"),
        (b'{"log_time_ms": 1%s}' % (b"0" * 4000), "(log_time_ms)"),
        (b'{"counters": [1]}', "(counters)"),
        (b'{"counters": {"rx_drop": "1"}}', "(counters)"),
        (b'{"configuration": {}}', "(configuration)"),
        (b'{"configuration": {"configuration_index": 1, "members": [{}], "waiting": []}}', "(configuration)"),
        (json.dumps({"configuration": CONFIGURATION | {"members": [ROW | {"address": "x"}]}}).encode(), "(config"),
        (json.dumps({"configuration": CONFIGURATION | {"members": [ROW | {"silent_ms": "x"}]}}).encode(), "(config"),
        (json.dumps({"configuration": CONFIGURATION | {"waiting": [{}]}}).encode(), "(configuration)"),
        (b'{"log_held_by": {}}', "(log_held_by)"),
        (b'{"evicted": 1, "majority_lost": 2}', "(majority_lost)"),
        (b'{"determinism": {"differs": {}}}', "(determinism)"),
    ],
)
def test_an_answer_of_another_form_is_an_error_of_that_member(reply: bytes, told: str) -> None:
    found = status_of(reply)
    assert told in found["error"]
    good = {"a:1": GOOD}
    view = View({"a:1": GOOD, "b:2": found})
    assert view.is_healthy, "who is no member does not count"
    assert told in as_json(view) and "a:1" in table(view) and page(good, view, 1.0)
    assert _gauge("term", "", view.answered, "term", 1).samples and _counters(view.answered).samples


def test_a_status_is_taken_as_it_is() -> None:
    ours = GOOD | {"configuration": CONFIGURATION, "log_held_by": None, "global_commit": None, "determinism": None}
    assert status_of(json.dumps(ours).encode()) == ours
    alone = {"replicated": False, "draining": False, "deferred_count": 0, "counters": {"rx_packets": 1}}
    assert status_of(json.dumps(alone).encode()) == alone


def test_a_server_of_another_kind_has_no_status_to_print(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlockingClient, "call", lambda *_, **__: b"[" * 100_000)
    args = argparse.Namespace(server="127.0.0.1:1", payload=None, resp=None, status=True, policy="fixed", timeout=1.0)
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1 does not answer with a status"):
        call.run(args)
