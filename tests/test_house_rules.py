"""The rules of the house that a machine can hold: import arrows, no clock in the core, nothing private in the text."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ("raft", "r2p2", "dpdk_backend", "uv_backend", "scapy_layers")
# Who may import whom of the project. r2p2's command line starts nodes, so it names the backends, but only inside
# functions: importing r2p2 never imports a backend.
ARROWS: dict[str, set[str]] = {
    "raft": set(),
    "r2p2": {"raft"},
    "dpdk_backend": {"r2p2"},
    "uv_backend": {"r2p2"},
    "scapy_layers": set(),
}
LAZY_ARROWS: dict[str, set[str]] = {"r2p2": {"dpdk_backend", "uv_backend", "scapy_layers"}}
# Modules of the standard library that would bring a clock, chance, a socket or a log into the Raft core.
# `random` is allowed for the name random.Random alone: see test_raft_takes_time_and_chance_as_arguments.
RAFT_FORBIDDEN = {"time", "datetime", "socket", "asyncio", "threading", "logging", "secrets", "os", "uuid", "select"}
TEXT_SUFFIXES = {".py", ".pyi", ".c", ".h", ".md", ".toml", ".txt", ".in", ".sh", ".yaml", ".json", ".svg", ".lua"}


def tracked_files() -> list[Path]:
    """What git tracks, and what it would if added; without git, everything but the folders git ignores."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        ignored = {".venv", "build", "dist", "out", ".git", ".stamps"}
        paths = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        return [path for path in paths if (ROOT / path).is_file() and not ignored.intersection(path.parts)]
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


def python_files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(tree: ast.AST, *, top_level_only: bool) -> list[tuple[int, str]]:
    """(line, absolute module) of each import; `top_level_only` leaves out those that run only inside a function."""
    found: list[tuple[int, str]] = []

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if top_level_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test) and top_level_only:
                continue
            if isinstance(child, ast.Import):
                found.extend((child.lineno, alias.name) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.level == 0 and child.module:
                found.append((child.lineno, child.module))
            walk(child)

    walk(tree)
    return found


@pytest.mark.parametrize("package", PROJECT)
def test_import_arrows(package: str) -> None:
    wrong = []
    for path in python_files(package):
        tree = ast.parse(path.read_text(), str(path))
        eager = set(imports(tree, top_level_only=True))
        for line, module in imports(tree, top_level_only=False):
            top = module.partition(".")[0]
            allowed = ARROWS[package] | {package}
            if (line, module) not in eager:
                allowed |= LAZY_ARROWS.get(package, set())
            if top in PROJECT and top not in allowed:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {package} imports {module}")
            foreign = top not in PROJECT and top not in sys.stdlib_module_names
            if package == "raft" and foreign:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: raft imports {module}, not of the standard library")
            if package == "scapy_layers" and foreign and top != "scapy":
                wrong.append(f"{path.relative_to(ROOT)}:{line}: scapy_layers imports {module}")
    assert not wrong, "\n".join(wrong)


def test_raft_takes_time_and_chance_as_arguments() -> None:
    wrong = []
    for path in python_files("raft"):
        tree = ast.parse(path.read_text(), str(path))
        for line, module in imports(tree, top_level_only=False):
            if module.partition(".")[0] in RAFT_FORBIDDEN:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: imports {module}")
        for node in ast.walk(tree):
            # The type random.Random may be named; the module's own generator and making one may not.
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
                if node.attr != "Random":
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: random.{node.attr}")
            elif isinstance(node, ast.ImportFrom) and node.module == "random":
                names = sorted({alias.name for alias in node.names} - {"Random"})
                wrong += [f"{path.relative_to(ROOT)}:{node.lineno}: from random import {name}" for name in names]
    assert not wrong, "\n".join(wrong)


def test_every_c_file_is_built_and_opens_with_a_comment() -> None:
    sys.path.insert(0, str(ROOT))
    import cffi_build

    built = {
        ROOT / source for folder in (*PROJECT, *cffi_build.PYTHON_MODULES) for source in cffi_build.c_sources(folder)
    }
    wrong = []
    for path in (ROOT / name for name in tracked_files()):
        if path.suffix not in (".c", ".h"):
            continue
        name = str(path.relative_to(ROOT))
        if not path.read_text().lstrip().startswith("/*"):
            wrong.append(f"{name}: does not open with what it is")
        if path.suffix == ".c" and path not in built and not name.startswith(("tests/", "benchmarks/")):
            wrong.append(f"{name}: no module is built from it")
    assert not wrong, "\n".join(wrong)


def test_every_python_module_opens_with_a_docstring() -> None:
    wrong = []
    for package in PROJECT:
        for path in python_files(package):
            if not ast.get_docstring(ast.parse(path.read_text())):
                wrong.append(str(path.relative_to(ROOT)))
    assert not wrong, "no module docstring: " + ", ".join(wrong)


def test_text_names_nothing_private() -> None:
    """No machine's paths, no folder outside the repository, no package index."""
    private = [
        (re.compile(r"(?<![\w.])/(?:root|home)/\w"), "a path of one machine"),
        (re.compile(re.escape(str(ROOT))), "a path of one machine"),
        (re.compile(r"\.\./shared\b"), "a folder outside the repository"),
        (re.compile(r"index-url|find-links|https?://\S+/simple\b"), "a package index"),
        (re.compile(r"\bsession[_ -]?id\s*[:=]", re.IGNORECASE), "a session's id"),
    ]
    # Files that must name what they forbid or switch off.
    exempt = {Path("tests/test_house_rules.py"), Path("tools/lock.sh")}
    wrong = []
    for name in tracked_files():
        if name in exempt or (name.suffix not in TEXT_SUFFIXES and name.suffix):
            continue
        try:
            text = (ROOT / name).read_text()
        except UnicodeDecodeError:
            continue  # a binary without a suffix
        for number, line in enumerate(text.splitlines(), 1):
            wrong += [f"{name}:{number}: {what}: {line.strip()[:80]}" for regex, what in private if regex.search(line)]
    assert not wrong, "\n".join(wrong)


def test_licence_changelog_and_packaging() -> None:
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["license"] == "MIT"
    for package in PROJECT:
        if (ROOT / package / "__init__.py").exists():
            assert (ROOT / package / "py.typed").exists(), f"{package} ships no py.typed"


def test_lock_pins_every_package_with_hashes() -> None:
    lines = (ROOT / "requirements" / "dev.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert pins
    assert all(re.match(r"[a-z0-9._-]+==\S+ ", pin) for pin in pins), pins
    assert sum(line.strip().startswith("--hash=sha256:") for line in lines) >= len(pins)


def test_decisions_are_dated_and_say_what_was_rejected() -> None:
    decisions = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert decisions
    for path in decisions:
        text = path.read_text()
        assert re.search(r"^Date: \d{4}-\d\d-\d\d$", text, re.MULTILINE), f"{path.name} has no date"
        assert "## Rejected" in text, f"{path.name} does not say what was rejected"
