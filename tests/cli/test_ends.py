"""How a command ends when its output has no room, and on a Ctrl-C that comes early."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

R2P2 = [sys.executable, "-m", "r2p2"]


@pytest.mark.parametrize("arguments", [("--help",), ("call", "--help"), ("sim", "--seeds", "0:1", "--events", "50")])
def test_output_without_room_is_1_with_a_line(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*R2P2, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "No space left on device" in done.stderr


def test_ctrl_c_while_modules_are_imported(tmp_path: Path) -> None:
    # The folder's module is found first, and is imported by r2p2.cli.
    (tmp_path / "argparse.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(20)\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    # Whoever runs the tests in the background ignores the signal, and so would the child.
    with subprocess.Popen(
        ["env", "--default-signal=INT", *R2P2, "sim"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == ""
