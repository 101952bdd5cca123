"""The tutorial as its reader types it, on one machine: every command up to "Three machines", in one shell."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.tutorial import Block, blocks, missing, pattern_of

END = "@@ end of block"
# Until the server answers, whatever the machine does besides; the page says two seconds.
WAIT = "until r2p2 call 127.0.0.1:8000 ready >/dev/null 2>&1; do :; done"


def test_expected_lines_are_compared_loosely_and_not_too_loosely() -> None:
    assert pattern_of("127.0.0.1:8001  0  leader  1").match("127.0.0.1:9   12 follower 44")
    assert not pattern_of("127.0.0.1:8001  0  leader  1").match("127.0.0.1:8001  0  down  1")
    assert missing("a\n...\nb 1", "a\nx\nb 2") == ""
    assert missing("a\nb", "b\na") == "b"


def script_of(parts: list[Block]) -> str:
    # Whatever happens, nothing is left behind.
    tidy = "[ ! -f three.toml ] || r2p2 cluster down --config three.toml >/dev/null; kill $(jobs -p) 2>/dev/null || :"
    lines = ["set -e", f"trap {shlex.quote(tidy)} EXIT"]
    for block in parts:
        if block.kind == "sh":
            lines += [block.text.replace("sleep 2\n", f"{WAIT}\n"), f"echo {shlex.quote(END)}"]
        elif block.kind in ("python", "toml"):
            lines.append(f"cat > {block.where} <<'@@EOF'\n{block.text}@@EOF")
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.needs("linux", "root", "netns")
def test_one_machine(tmp_path: Path) -> None:
    every = [block for block in blocks() if block.where != "install"]
    first_machine = next(i for i, block in enumerate(every) if block.where == "cluster.toml")
    parts = every[:first_machine]
    assert sum(block.kind == "sh" for block in parts) >= 8
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # A network of its own: the page's ports are fixed.
    done = subprocess.run(
        ["unshare", "-n", "bash", "-c", f"ip link set lo up\n{script_of(parts)}"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    seen = done.stdout.split(f"{END}\n")
    turn = 0
    for block, following in zip(parts, [*parts[1:], Block("", "", "")], strict=True):
        if block.kind != "sh":
            continue
        if following.kind == "text":
            absent = missing(following.text, seen[turn])
            assert not absent, f"the tutorial shows {absent!r}; there was\n{seen[turn]}"
        turn += 1
