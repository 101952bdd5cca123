"""``r2p2 doctor``: both backends are looked at, one decides the exit code."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from r2p2 import cli, doctor
from r2p2.doctor import Finding
from uv_backend import doctor as uv_doctor
from uv_backend.portable import SOCKET_BUFFER_BYTES


def replace(monkeypatch: pytest.MonkeyPatch, **findings: Sequence[Finding]) -> None:
    """Machines with these findings."""
    monkeypatch.setattr(doctor, "examine", lambda backend: list(findings.get(backend, ())))


def test_this_machine_runs_the_default_backend() -> None:
    done = subprocess.run([sys.executable, "-m", "r2p2", "doctor"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "uv: can run" in done.stdout
    assert "dpdk: can" in done.stdout


def test_the_backend_asked_about_decides(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lacking = Finding("module", "missing", "not built", "apt install libdpdk-dev")
    replace(monkeypatch, uv=[Finding("gso", "optional", "slower")], dpdk=[lacking])
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "dpdk: cannot run" in out
    assert "-> apt install libdpdk-dev" in out
    assert cli.main(["doctor", "--backend", "dpdk"]) == 1


def test_json_says_the_same(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    replace(monkeypatch, uv=[Finding("module", "missing", "not built", "make setup")])
    assert cli.main(["doctor", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["backends"]["uv"] == {
        "can_run": False,
        "findings": [{"name": "module", "status": "missing", "text": "not built", "command": "make setup"}],
    }
    assert said["backends"]["dpdk"] == {"can_run": True, "findings": []}


@pytest.mark.needs("linux")
def test_small_socket_buffers_get_their_command(tmp_path: Path) -> None:
    folder = tmp_path / "proc/sys/net/core"
    folder.mkdir(parents=True)
    (folder / "rmem_max").write_text("212992\n")
    (folder / "wmem_max").write_text(f"{SOCKET_BUFFER_BYTES}\n")
    findings = {finding.name: finding for finding in uv_doctor.examine(tmp_path)}
    assert findings["rmem_max"].status == "optional"
    assert findings["rmem_max"].command == f"sysctl -w net.core.rmem_max={SOCKET_BUFFER_BYTES}"
    assert findings["wmem_max"].status == "ok"


@pytest.mark.needs("linux")
def test_a_feature_the_kernel_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = ("gso", 17, 9999, "UDP GSO", "Linux 4.18")
    monkeypatch.setattr(uv_doctor, "_FEATURES", (unknown, *uv_doctor._FEATURES[1:]))
    findings = {finding.name: finding for finding in uv_doctor.examine()}
    assert findings["gso"].status == "optional"
    assert "Protocol not available" in findings["gso"].text
    assert findings["drop counter"].status == "ok"


def test_a_module_that_is_not_built_stops_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", hidden)
    assert not doctor.can_run(uv_doctor.examine()) or sys.platform != "linux"
