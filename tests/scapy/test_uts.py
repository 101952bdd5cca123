"""Runs the UTScapy campaigns, which people of the Scapy world read and extend; silence is not success."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from scapy.packet import Packet

import scapy_layers

FOLDER = Path(__file__).resolve().parent
CAMPAIGNS = sorted(FOLDER.glob("*.uts"))


def run(campaign: Path) -> subprocess.CompletedProcess[str]:
    """UTScapy over a file."""
    return subprocess.run(
        [sys.executable, "-m", "scapy.tools.UTscapy", "-t", str(campaign), "-f", "text"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=FOLDER.parent.parent,
    )


def test_every_layer_is_in_a_campaign() -> None:
    text = "\n".join(campaign.read_text() for campaign in CAMPAIGNS)
    public = vars(scapy_layers).items()
    layers = [name for name, layer in public if isinstance(layer, type) and issubclass(layer, Packet)]
    assert len(layers) > 20
    # RaftMessage is what the kinds share; it is chosen by the campaigns' dissections.
    assert [name for name in layers if name != "RaftMessage" and not re.search(rf"\b{name}\b", text)] == []


@pytest.mark.parametrize("campaign", CAMPAIGNS, ids=lambda campaign: str(campaign.stem))
def test_the_campaign_passes(campaign: Path) -> None:
    done = run(campaign)
    wanted = re.findall(r"^= ", campaign.read_text(), re.MULTILINE)
    assert done.returncode == 0, done.stdout
    assert len(re.findall(r"^###\(\d+\)=\[passed\]", done.stdout, re.MULTILINE)) == len(wanted) > 4


def test_a_failing_campaign_is_noticed(tmp_path: Path) -> None:
    broken = tmp_path / "broken.uts"
    broken.write_text((FOLDER / "r2p2.uts").read_text().replace("rid == 7", "rid == 8"))
    assert run(broken).returncode != 0
