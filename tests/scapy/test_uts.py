"""Runs the UTScapy campaign, which people of the Scapy world read and extend; silence is not success."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CAMPAIGN = Path(__file__).resolve().parent / "r2p2.uts"


def run(campaign: Path) -> subprocess.CompletedProcess[str]:
    """UTScapy over a file."""
    return subprocess.run(
        [sys.executable, "-m", "scapy.tools.UTscapy", "-t", str(campaign), "-f", "text"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=CAMPAIGN.parent.parent.parent,
    )


def test_the_campaign_passes() -> None:
    done = run(CAMPAIGN)
    wanted = re.findall(r"^= ", CAMPAIGN.read_text(), re.MULTILINE)
    assert done.returncode == 0, done.stdout
    assert len(re.findall(r"^###\(\d+\)=\[passed\]", done.stdout, re.MULTILINE)) == len(wanted) > 10


def test_a_failing_campaign_is_noticed(tmp_path: Path) -> None:
    broken = tmp_path / "broken.uts"
    broken.write_text(CAMPAIGN.read_text().replace("rid == 7", "rid == 8"))
    assert run(broken).returncode != 0
