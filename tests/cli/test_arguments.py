"""What every command refuses before it begins: one line that names the option, and no traceback."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

R2P2 = [sys.executable, "-m", "r2p2"]
MEMBERS = "127.0.0.1:8001,127.0.0.1:8002,127.0.0.1:8003"
SEVENTEEN = ",".join(f"127.0.0.1:{46000 + i}" for i in range(17))
MEMBER = ("serve", "--members", MEMBERS, "--bind", "127.0.0.1:8001")
ALONE = ("serve", "--bind", "127.0.0.1:0")
FILE = """[cluster]
app = "kv"
[[nodes]]
address = "127.0.0.1:8001"
"""


def refused(*arguments: str | bytes) -> str:
    """What a command says that is refused."""
    done = subprocess.run([*R2P2, *arguments], capture_output=True, timeout=30, check=False)
    said = done.stderr.decode()
    assert done.returncode == 1, said
    assert said.startswith("r2p2: error: ")
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*MEMBER, "--cluster-id", "-1"), "--cluster-id is -1, outside 0..4294967295"),
        ((*MEMBER, "--cluster-id", "99999999999"), "--cluster-id is 99999999999"),
        ((*MEMBER, "--check-determinism", "-1"), "--check-determinism is -1"),
        ((*MEMBER, "--node-id", "1"), "--members has --bind 127.0.0.1:8001 in slot 0"),
        (("serve", "--members", SEVENTEEN, "--bind", "127.0.0.1:46016"), "17 members, and a group has at most 16"),
        ((*ALONE, "--cpu", "-1"), "--cpu is -1, outside 0..4095"),
        ((*ALONE, "--log-mib", "99999999"), "--log-mib is 99999999, outside 1..1048576"),
        ((*ALONE, "--log-mib", "0"), "--log-mib is 0"),
        ((*ALONE, "--clock-offset", "nan"), "--clock-offset is nan"),
        ((*ALONE, "--clock-offset", "1e30"), "--clock-offset is 1e+30"),
        ((*ALONE, "--drain", "nan"), "--drain is nan"),
        ((*ALONE, "--node", "0"), "--node without --config"),
        (("serve", "--bind", "224.0.0.1:8000"), "--bind 224.0.0.1:8000"),
        (("serve", "--bind", "255.255.255.255:8000"), "--bind 255.255.255.255:8000"),
        (("router", "--servers", "127.0.0.1:8000", "--bind", "127.0.0.1:8000"), "is one of --servers"),
        (("router", "--servers", "127.0.0.1:8001", "--control-port", "70000"), "--control-port is 70000"),
        (("router", "--servers", "127.0.0.1:8001", "--queue", "0"), "--queue is 0, outside 1.."),
        (("router", "--servers", "127.0.0.1:8001", "--mode", "direct"), "--mode direct: the kernel does not send"),
        (
            ("router", "--servers", "127.0.0.1:8001", "--mode", "direct", "--backend", "portable"),
            "--mode direct: the kernel does not send",
        ),
        (("router", "--servers", "127.0.0.1:8001", "--backend", "portable"), "the portable backend has one socket"),
        (("router", "--servers", "127.0.0.1:8001", "--misses", "0"), "--misses is 0, outside 1.."),
        (("demo", "--outstanding", "0"), "0 outstanding calls"),
        (("demo", "--size", "1"), "requests of 1 bytes: between 48 and"),
        (("sim", "--trace", "a.mmd"), "--trace a.mmd: the diagram beside it ends in .mmd"),
        (("gateway", "--cluster", SEVENTEEN), "--cluster has 17 addresses; at most 16"),
        (("gateway", "--cluster", MEMBERS, "--timeout", "inf"), "--timeout is inf"),
        (("gateway", "--cluster", MEMBERS, "--drain", "nan"), "--drain is nan"),
        (("gateway", "--cluster", MEMBERS, "--max-clients", "0"), "--max-clients is 0"),
        (("call", "127.0.0.1:8000", "x", "--timeout", "nan"), "--timeout is nan"),
        (("call", "127.0.0.1:8000", "x", "--timeout", "inf"), "--timeout is inf"),
        (("call", "127.0.0.1:0", "x"), "nobody listens at port 0"),
        (("top", "--nodes", "127.0.0.1:8000", "--period", "nan"), "--period is nan"),
        (("metrics", "--nodes", "127.0.0.1:8000", "--timeout", "inf"), "--timeout is inf"),
        (("status", "--nodes", "127.0.0.1:8000", "--timeout", "inf"), "--timeout is inf"),
        (("bench", "echo", "--duration", "nan"), "a duration of nan"),
        (("bench", "echo", "--rate", "nan"), "a rate of nan"),
        (("bench", "echo", "--json", "/nonexist/x.json"), "--json /nonexist/x.json cannot be written"),
        (("bench", "echo", "--csv", "/nonexist/x.csv"), "--csv /nonexist/x.csv cannot be written"),
        (("bench", "echo", "--hdr", "/"), "--hdr / cannot be written"),
        (("bench", "echo", "--plots", "/proc/z"), "--plots"),
        (("bench", "echo", "--logs", "/proc/z"), "--logs: no folder /proc/z"),
        (("bench", "replicated", "--storage", "/proc/z"), "--storage: no folder /proc/z"),
        (("member", "list", "--cluster", MEMBERS, "--timeout", "inf"), "--timeout is inf"),
        (("member", "list", "--cluster", MEMBERS, "--timeout", "nan"), "--timeout is nan"),
        (("member", "list", "--cluster", MEMBERS, "--timeout", "0"), "--timeout is 0.0, not above 0"),
        (("member", "add", "-3", "127.0.0.1:9", "--cluster", MEMBERS), "slot is -3, outside 0..65534"),
        (("member", "add", "65535", "127.0.0.1:9", "--cluster", MEMBERS), "slot is 65535, outside 0..65534"),
        (("member", "remove", "70000", "--cluster", MEMBERS), "slot is 70000, outside 0..65534"),
        (("torture", "--seconds", "-1"), "--seconds is -1.0, not above 0"),
        (("torture", "--seconds", "nan"), "--seconds is nan"),
        (("torture", "--clients", "0"), "--clients is 0, outside 1.."),
        (("torture", "--clients", "-1"), "--clients is -1"),
        (("torture", "--every", "-1"), "--every is -1.0"),
        (("torture", "--nodes", "20"), "has 3..16"),
        (("torture", "--out", "/proc/foo"), "--out: no folder /proc/foo"),
        (("torture", "--out", __file__), "--out: no folder"),
        (("sim", "--trace", "/nonexist/t"), "--trace /nonexist/t cannot be written"),
        (("sim", "--bounds", "term_max=2"), "--bounds without --exhaustive"),
        (("sim", "--exhaustive", "--bounds", "members_count=0"), "members_count=0: at least 1"),
        (("sim", "--exhaustive", "--bounds", "members_count=x"), "'x' is not a number"),
    ],
)
def test_it_is_refused(arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(*arguments)


@pytest.mark.parametrize("rate", ["-5", "0", "99999999999"])
def test_a_rate_of_a_capture(rate: str, tmp_path: Path) -> None:
    assert f"--pcap-rate is {rate}" in refused(*ALONE, "--pcap", str(tmp_path / "x.pcap"), "--pcap-rate", rate)


@pytest.mark.parametrize(
    "option",
    [
        ("--bind", "127.0.0.1:8002"),
        ("--app", "redis"),
        ("--cluster-id", "7"),
        ("--storage", "/tmp"),
        ("--log-mib", "9"),
        ("--apply-thread",),
    ],
)
def test_what_a_clusters_file_decides(option: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(FILE)
    assert f"{option[0]} with --config" in refused("serve", "--config", str(file), "--node", "0", *option)


@pytest.mark.parametrize("members", [(), ("--members", "10.0.0.1:8000,10.0.0.2:8000")])
@pytest.mark.parametrize(
    ("option", "value"),
    [("--cluster-id", "-1"), ("--cluster-id", "99999999999"), ("--seed", "-1"), ("--incarnation", "zz")],
)
def test_numbers_of_a_replay(option: str, value: str, members: tuple[str, ...], tmp_path: Path) -> None:
    rx = tmp_path / "rx.pcap"
    rx.touch()
    files = ("--rx", str(rx), "--tx", str(tmp_path / "tx.pcap"))
    said = refused("replay", *files, *members, option, value)
    assert option in said and value in said


@pytest.mark.parametrize("words", [(b"\xff\xfe",), (b"--resp", b"GET", b"\xff\xfe")])
def test_a_request_may_be_any_bytes(words: tuple[bytes, ...]) -> None:
    assert "Error" not in refused("call", "127.0.0.1:1", "--timeout", "0.05", *words)


def test_a_status_that_is_none_is_said_in_one_line() -> None:
    """Of a server of somebody else, whose reply is no JSON."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def answer() -> None:
            request, client = server.recvfrom(2048)
            server.sendto(request[:2] + bytes([1 << 4 | request[2] & 15]) + request[3:8] + b"what?", client)

        thread = threading.Thread(target=answer)
        thread.start()
        assert f"{address} has no status: it answers b'what?'" in refused(
            "call", address, "--status", "--timeout", "20"
        )
        thread.join()
