"""Real members record themselves, and replays of what they recorded do the same, the leader's too (docs/replay.md)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).resolve().parent / "recorded_child.py"


@pytest.mark.needs("dpdk", "root", "netns")
def test_what_members_record_is_what_they_do_again(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    done = subprocess.run(
        ["unshare", "-n", sys.executable, str(CHILD), str(tmp_path)],
        cwd=CHILD.parent.parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    members = json.loads(done.stdout.splitlines()[-1])
    led = [member for member in members if "times" in member]
    assert led
    for member in members:
        # On a busy machine a leader may have sent a heartbeat in the middle of a poll, which its replay does not.
        assert member["code"] == 0 or "times" in member, member["said"]
    shared = 0
    for recorded, again in (member["times"] for member in led):
        both = recorded.keys() & again.keys()
        assert {index: recorded[index] for index in both} == {index: again[index] for index in both}
        shared += len(both)
    assert shared > 20, "writes, a batch each"
