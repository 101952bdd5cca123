"""Documents and code agree: links, commands, messages in troubleshooting.md, the reference, the index."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from r2p2 import cli
from r2p2.engine import counter_helps
from r2p2.node.counters import NODE_COUNTERS
from r2p2.router import router_counter_helps
from raft.codec import Reason
from tests.node.support import World

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PACKAGES = ("r2p2", "raft", "uv_backend", "dpdk_backend")


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCS, ids=[str(path.relative_to(ROOT / "docs")) for path in DOCS])
def test_links_lead_somewhere_and_commands_exist(path: Path) -> None:
    text = path.read_text()
    for target, section in re.findall(r"\]\(([^)#\s]*)(#[^)]*)?\)", text):
        if "://" in target:
            continue
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), target
        if section:
            headings = [anchor(h) for h in re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)]
            assert section[1:] in headings, f"{target}{section}"
    for name in re.findall(r"(?:^ {4}|^|`)r2p2 ([a-z]+)", text, re.MULTILINE):
        assert name in cli.SUBCOMMANDS, f"r2p2 {name}"


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for path in DOCS:
        name = str(path.relative_to(ROOT / "docs"))
        assert name == "README.md" or name.startswith("adr/") or f"({name})" in index, name


def strings(tree: ast.AST) -> Iterator[str]:
    """Every text of the source, with ``...`` where something is put in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else "..." for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%[ds]", "...", node.value)  # a logger's


def source_texts() -> list[str]:
    found: list[str] = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            found += strings(ast.parse(path.read_text()))
    for path in (ROOT / "uv_backend" / "csrc").glob("*.c"):
        found += re.findall(r'"((?:[^"\\]|\\.)*)"', path.read_text())
    return found


def test_messages_in_troubleshooting_are_the_programs() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    # What is quoted before the colon of a list's item, without commands, names of options and of counters.
    messages = []
    for item in re.findall(r"^- (.*?)(?=^- |^$|^#)", text, re.MULTILINE | re.DOTALL):
        flat = re.sub(r"\s+", " ", item)
        quoted = re.findall(r"`+([^`]+)`+", flat)
        messages += [m for m in quoted if " " in m and not re.match(r"r2p2 |apt-|pip |ip link ", m)]
    messages = [m for m in messages if not re.match(r"(ss|dpdk|Client|net|make|journalctl) ?[\w(.-]", m)]
    assert len(messages) >= 30
    texts = source_texts()
    # The kernel's own words.
    known = {"Address already in use"}
    for message in messages:
        if message in known or message.startswith("Allowed: "):
            continue
        assert any(message in source for source in texts), message


def test_counters_in_documents_exist() -> None:
    names = {*counter_helps(), *NODE_COUNTERS, *router_counter_helps()}
    for path in (ROOT / "docs").glob("*.md"):
        for name in re.findall(r"`((?:raft_drop|raft_bad|drops|snapshots|members)_[a-z_]+)`", path.read_text()):
            assert name in names, f"{path.name}: {name}"


def test_a_node_has_no_counter_without_a_text(tmp_path: Path) -> None:
    with World(size=1, storage=tmp_path) as world:
        world.run_until(lambda: world.nodes[0].is_leader)
        counted = set(world.nodes[0].counters) | set(world.nodes[0].status()["counters"])
    assert counted <= set(NODE_COUNTERS) | set(counter_helps())
    assert {f"raft_bad_{reason.value}" for reason in Reason} <= counted | set(counter_helps())


def test_the_reference_is_current() -> None:
    done = subprocess.run(
        [sys.executable, "tools/make_reference.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(cli.SUBCOMMANDS))
def test_the_examples_of_a_help_text_are_commands(name: str) -> None:
    module = cli.load_subcommand(name)
    assert module.HELP and "\n" not in module.HELP
    for line in getattr(module, "EPILOG", "").splitlines():
        if line.startswith("  r2p2 "):
            _, other, *words = shlex.split(line.removesuffix(" &"))
            cli.parser_of(other, cli.load_subcommand(other)).parse_intermixed_args(words)
