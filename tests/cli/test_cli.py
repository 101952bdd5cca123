"""The command line's own promises: exit codes, no tracebacks for users, clean ends on signals."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from r2p2 import cli
from r2p2.errors import UserError
from r2p2.processes import Supervisor

R2P2 = [sys.executable, "-m", "r2p2"]


def r2p2(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*R2P2, *arguments], capture_output=True, text=True, timeout=30, check=False)


def test_help_and_version_are_quick_and_import_no_subcommand() -> None:
    assert "serve" in r2p2("--help").stdout
    assert r2p2("--version").stdout.startswith("r2p2 ")
    code = "import sys; from r2p2.cli import main; main(['--help']); print([m for m in sys.modules if 'r2p2.' in m])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.splitlines()[-1] == "['r2p2.errors', 'r2p2.cli']"


@pytest.mark.parametrize("name", ["call", "member", "gateway", "router"])
def test_a_command_that_only_asks_a_node_does_not_load_one(name: str) -> None:
    code = f"""
import sys
from r2p2 import cli
cli.parser_of({name!r}, cli.load_subcommand({name!r}))
print([m for m in sys.modules if m == "r2p2.node.node"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("arguments", [(), ("nosuch",), ("bench", "nosuch"), ("demo", "--backend", "tcp")])
def test_wrong_usage_is_2(arguments: tuple[str, ...]) -> None:
    done = r2p2(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bench", "echo", "--size", "400000"), "between 0 and 370406"),
        (("bench", "replicated", "--size", "10"), "between 48 and 370406"),
        (("bench", "replicated", "--outstanding", "0"), "0 outstanding calls"),
        (("bench", "echo", "--duration", "0"), "a duration of 0 s"),
        (("bench", "echo", "--rate", "-5"), "a rate of -5"),
        (("bench", "replicated", "--replicas", "9"), "between 1 and 7"),
        (("demo", "--seconds", "0"), "at least 0.5"),
        (("serve", "--app", "nosuch"), "nosuch"),
        (("serve", "--bind", "8000"), "8000"),
    ],
)
def test_a_users_error_is_1_with_a_line(arguments: tuple[str, ...], message: str) -> None:
    done = r2p2(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("r2p2: error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_every_subcommand_has_help() -> None:
    there = [name for name, (module, _) in cli.SUBCOMMANDS.items() if importlib.util.find_spec(module)]
    assert set(there) == set(cli.SUBCOMMANDS)
    for name in there:
        done = r2p2(name, "--help")
        assert done.returncode == 0, f"{name}: {done.stderr}"
        assert done.stdout.startswith(f"usage: r2p2 {name}")
        for action in cli.parser_of(name, cli.load_subcommand(name))._actions:
            text = action.help or ""
            assert "%" not in text, f"{name}: {text}"  # docs/reference/cli.md has it as it stands
            plain = action.default in (None, "", [], argparse.SUPPRESS) or isinstance(action.default, bool)
            assert "(default" not in text or plain, f"{name}: says two defaults: {text}"


def test_guard_turns_ends_into_codes(capsys: pytest.CaptureFixture[str]) -> None:
    def raising(error: BaseException) -> int:
        raise error

    assert cli.guard(lambda: 3) == 3
    assert cli.guard(lambda: raising(KeyboardInterrupt())) == 130
    assert cli.guard(lambda: raising(SystemExit(2))) == 2
    assert cli.guard(lambda: raising(UserError("no such thing", "make one"))) == 1
    assert capsys.readouterr().err == "r2p2: error: no such thing\nr2p2: to mend it: make one\n"
    with pytest.raises(ZeroDivisionError):
        cli.guard(lambda: 1 // 0)


def test_guard_unwinds_on_sigterm() -> None:
    unwound = []

    def work() -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            unwound.append(True)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    assert cli.guard(work) == 143
    assert unwound == [True]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_cleanly_on_signals(number: signal.Signals, tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        server = supervisor.start("server", [*R2P2, "serve", "--app", "echo", "--bind", "127.0.0.1:0"])
        server.wait_line(lambda line: line.startswith("r2p2: serving"), 20, what="the ready line")
        server.signal(number)
        assert server.wait(10) == 0
        assert server.lines[-1].startswith("r2p2: stopped")


def test_serve_refuses_what_another_application_has_stored(tmp_path: Path) -> None:
    serve = [
        *R2P2,
        "serve",
        "--bind",
        "127.0.0.1:0",
        "--members",
        "127.0.0.1:0",
        "--storage",
        str(tmp_path / "member0"),
    ]
    with Supervisor(tmp_path) as supervisor:
        server = supervisor.start("server", [*serve, "--app", "r2p2.apps.kv:KeyValue"])
        server.wait_line(lambda line: line.startswith("r2p2: serving"), 20, what="the ready line")
        server.signal(signal.SIGTERM)
        assert server.wait(10) == 0
    refused = r2p2(*serve[len(R2P2) :], "--app", "echo")
    assert refused.returncode == 1
    assert "what the application kv has made, and this is echo" in refused.stderr
