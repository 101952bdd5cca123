"""The compose file and its Dockerfile, as far as that can be seen without a Docker daemon: form, names, commands.

They are not run here; docs/operations.md says so.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from r2p2 import cli
from r2p2.cluster.config import load

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "compose"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()

# The keys of the compose specification that the file uses, and what each may be.
SERVICE_KEYS: dict[str, type | tuple[type, ...]] = {
    "build": dict,
    "cap_drop": list,
    "command": list,
    "image": str,
    "mem_limit": str,
    "network_mode": str,
    "profiles": list,
    "read_only": bool,
    "restart": str,
    "security_opt": list,
    "stop_grace_period": str,
    "volumes": list,
}


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_keys_are_those_of_the_specification(compose: dict[str, Any]) -> None:
    assert set(compose) == {"name", "services", "volumes"}
    for name, service in compose["services"].items():
        for key, value in service.items():
            assert key in SERVICE_KEYS and isinstance(value, SERVICE_KEYS[key]), f"{name}.{key} = {value!r}"
        assert re.fullmatch(r"unless-stopped|on-failure:\d+", service["restart"])
        for volume in service["volumes"]:
            source, target, *mode = volume.split(":")
            assert target.startswith("/") and mode in ([], ["ro"])
            assert (FOLDER / source).exists() if source.startswith("./") else source in compose["volumes"], volume


def test_commands_are_ones_that_r2p2_takes(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        words = [re.sub(r"\$\{NODE:\?[^}]*\}", "0", word) for word in service["command"]]
        module = cli.load_subcommand(words[0])
        parsed = cli.parser_of(words[0], module).parse_args(words[1:])
        assert str(parsed.config) == "/etc/r2p2/cluster.toml", name
        assert any(volume.endswith(":/etc/r2p2/cluster.toml:ro") for volume in service["volumes"])
    assert len(load(FOLDER / "cluster.toml").nodes) == 3


def test_the_build_is_where_compose_looks(compose: dict[str, Any]) -> None:
    build = compose["services"]["node"]["build"]
    context = (FOLDER / build["context"]).resolve()
    assert context == ROOT and (context / build["dockerfile"]).samefile(FOLDER / "Dockerfile")
    words = [line.split()[0] for line in re.sub(r"\\\n", " ", DOCKERFILE).splitlines() if line[:1] not in ("", "#")]
    assert set(words) <= {"FROM", "RUN", "COPY", "USER", "WORKDIR", "ENV", "STOPSIGNAL", "ENTRYPOINT"}
    assert 'ENTRYPOINT ["r2p2"]' in DOCKERFILE


def test_the_image_is_made_by_the_commands_of_the_tutorial() -> None:
    tutorial = (ROOT / "docs" / "tutorial.md").read_text()
    build = DOCKERFILE.partition("\nFROM debian:12\n")[0]
    (packages,) = re.findall(r"apt-get install -y --no-install-recommends (.*)", build)
    (shown,) = re.findall(r"apt-get install -y (python3 .*)", tutorial)
    assert set(shlex.split(packages)) == set(shlex.split(shown)) - {"git", "make"}
    for command in ("python3 -m venv /opt/r2p2", "/opt/r2p2/bin/pip install"):
        assert command in build and command in tutorial, command
