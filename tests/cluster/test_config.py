"""The cluster file: what it says, and that every wrong line names its key and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from r2p2 import limits
from r2p2.busy_loop import IDLE_POLICIES
from r2p2.cluster import config
from r2p2.cluster.config import ClusterFile, load, parse
from r2p2.errors import UserError
from r2p2.node import Timers
from r2p2.node.truncation import POLICIES
from r2p2.ports import BACKENDS

WHOLE = """
[cluster]
id = 7
app = "kv"
backend = "uv"
idle = "yield"
log_mib = 64
truncation = "block"
storage = "data"
timers = { heartbeat_ms = 5, election_min_ms = 50, election_max_ms = 90 }

[[nodes]]
address = "10.0.0.1:8000"

[[nodes]]
slot = 4
address = "10.0.0.2:8000"
storage = "/var/lib/r2p2"
cpu = 1
"""


def parsed(text: str) -> ClusterFile:
    return parse(text, Path("/etc/c.toml"))


def test_a_whole_file() -> None:
    cluster = parsed(WHOLE)
    assert (cluster.cluster_id, cluster.app, cluster.backend, cluster.log_mib) == (7, "kv", "uv", 64)
    assert cluster.timers == Timers(5 * limits.MS, 50 * limits.MS, 90 * limits.MS)
    assert cluster.truncation == "block"
    assert cluster.addresses == ["10.0.0.1:8000", "10.0.0.2:8000"]
    assert list(cluster.members) == [0, 4]
    assert [node.storage for node in cluster.nodes] == [Path("/etc/data/node-0"), Path("/var/lib/r2p2")]
    assert cluster.node(4).slot == 4
    assert [node.cpu for node in cluster.nodes] == [None, 1]


def test_defaults_are_those_of_serve() -> None:
    cluster = parsed('nodes = [{ address = "127.0.0.1:8000" }]')
    assert (cluster.cluster_id, cluster.app, cluster.backend, cluster.idle) == (1, "echo", "uv", "yield")
    assert cluster.timers == Timers() and cluster.truncation is None and cluster.nodes[0].storage is None
    assert cluster.log_mib == limits.LOG_BYTES_MAX >> 20


# ---- every wrong line ----

anything = st.one_of(
    st.integers(-(1 << 70), 1 << 70).filter(lambda n: abs(n) < 1 << 63),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=12),
    st.just([]),
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.just({}),
    st.just({"heartbeat_ms": 5}),
    st.just({"heartbeat_ms": 50, "election_min_ms": 20, "election_max_ms": 90}),
    st.just({"heartbeat_ms": 5, "election_min_ms": 20, "election_max_ms": "x"}),
    st.sampled_from(
        ["10.0.0.1", "10.0.0.1:0", "0.0.0.0:80", "10.0.0.1:99999", "a:1", ":1", "fast", "", "UV", "mod:", ":x"]
    ),
)
KEYS = {
    **{
        f"cluster.{name}": "" for name in ("id", "app", "backend", "idle", "log_mib", "truncation", "storage", "timers")
    },
    **{f"nodes[0].{name}": "" for name in ("slot", "address", "storage", "links", "vdevs", "cpu")},
}


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {toml(item)}" for name, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)


def right(key: str, value: Any) -> bool:
    """Whether the documentation (docs/operations.md) allows it; written down once more, apart from the code."""
    name = key.rpartition(".")[2]
    whole = type(value) is int
    match name:
        case "id":
            return whole and 0 <= value < 1 << 32
        case "slot":
            return whole and 0 <= value <= 65534
        case "cpu":
            return whole and 0 <= value <= 4095
        case "log_mib":
            return whole and 1 <= value <= 1 << 20
        case "storage":
            return isinstance(value, str) and value != ""
        case "app":
            return isinstance(value, str) and (
                value in ("echo", "kv", "spin", "stss") or (":" in value and value[0] != ":" and value[-1] != ":")
            )
        case "links" | "vdevs":
            return bool(value == [])
        case _:  # of texts, and of tables of timers, none above is right
            return False


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(sorted(KEYS)), anything)
def test_a_wrong_value_names_its_key_and_what_is_allowed(key: str, value: Any) -> None:
    where, _, name = key.rpartition(".")
    # The generator finds words of the source by itself: those that are right here.
    assume(name == "app" or value not in (*BACKENDS, *IDLE_POLICIES, *POLICIES, "default", "datacenter"))
    cluster = f"[cluster]\n{name} = {toml(value)}\n" if where == "cluster" else ""
    address = "" if name == "address" else 'address = "127.0.0.1:8000"\n'
    node = f"[[nodes]]\n{address}" + (f"{name} = {toml(value)}\n" if where != "cluster" else "")
    if right(key, value):
        parsed(cluster + node)
        return
    with pytest.raises(UserError) as raised:
        parsed(cluster + node)
    assert raised.value.message.startswith(f"/etc/c.toml: {key}"), raised.value.message
    assert raised.value.remedy.startswith("Allowed"), raised.value.remedy


@given(st.sampled_from(["", "cluster.", "nodes[0]."]), st.from_regex(r"[a-z_]{1,8}", fullmatch=True))
def test_an_unknown_key_is_named(where: str, name: str) -> None:
    assume(f"{where}{name}" not in KEYS and name not in ("cluster", "nodes"))
    cluster = f"[cluster]\n{name} = 1\n" if where == "cluster." else ""
    node = '[[nodes]]\naddress = "127.0.0.1:8000"\n' + (f"{name} = 1\n" if where == "nodes[0]." else "")
    top = f"{name} = 1\n" if not where else ""
    with pytest.raises(UserError, match="is not a key") as raised:
        parsed(top + cluster + node)
    assert f": {where}{name} is not a key" in raised.value.message and raised.value.remedy.startswith("Allowed: ")


# Every key, with every kind of value that is wrong for it, in TOML; and what is to be read of what is allowed.
_NOT_INTEGERS = ("-1", "true", "1.5", '"1"', '""', "[1]", "{ a = 1 }", "1979-05-27")
_NOT_TEXTS = ("0", "true", "1.5", "[]", '["x"]', "{ a = 1 }", "1979-05-27")
_NOT_LISTS = ("1", "true", "1.5", '"a"', "[1]", '[""]', '["a", 1]', "{ a = 1 }", "1979-05-27")
WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "cluster.id": ((*_NOT_INTEGERS, "4294967296"), "an integer in 0..4294967295"),
    "cluster.app": ((*_NOT_TEXTS, '""', '"kw"', '"module:"', '":Name"'), "echo, kv, redis, spin, stss, or MODULE:NAME"),
    "cluster.backend": ((*_NOT_TEXTS, '""', '"UV"', '"udp"'), '"uv" or "dpdk" or "portable"'),
    "cluster.idle": ((*_NOT_TEXTS, '""', '"never"'), '"spin" or "yield" or "sleep"'),
    "cluster.log_mib": ((*_NOT_INTEGERS, "0", "1048577"), "an integer in 1..1048576"),
    "cluster.truncation": ((*_NOT_TEXTS, '""', '"drop"'), '"snapshot" or "evict" or "block"'),
    "cluster.apply_thread": (("0", "1", '"true"', "[]"), "true or false"),
    "cluster.check_determinism": ((*_NOT_INTEGERS, "1048577"), "an integer in 0..1048576"),
    "cluster.storage": ((*_NOT_TEXTS, '""', '"a\\u0000b"'), "the path of a directory"),
    "cluster.timers": (
        (*_NOT_TEXTS[:5], '""', '"quick"', "{ heartbeat_ms = 5 }"),
        "heartbeat_ms < election_min_ms < election_max_ms",
    ),
    "cluster.timers.heartbeat_ms": ((*_NOT_INTEGERS, "0", "60001"), "an integer in 1..60000"),
    "cluster.timers.election_min_ms": ((*_NOT_INTEGERS, "0", "60001"), "an integer in 1..60000"),
    "cluster.timers.election_max_ms": ((*_NOT_INTEGERS, "0", "60001"), "an integer in 1..60000"),
    "nodes[0].slot": ((*_NOT_INTEGERS, "65535"), "an integer in 0..65534"),
    "nodes[0].address": (
        (
            *_NOT_TEXTS,
            '""',
            '"10.0.0.1"',
            '"10.0.0.1:0"',
            '"0.0.0.0:8000"',
            '"10.0.0.1:65536"',
            '"host:8000"',
            '"::1:80"',
        ),
        "IP:PORT",
    ),
    "nodes[0].storage": ((*_NOT_TEXTS, '""'), "the path of a directory"),
    "nodes[0].links": (
        (
            *_NOT_LISTS,
            '["a"]',
            '["server:10.0.0.2"]',
            '["server:10.0.0.2:/a", "peer:10.0.0.3:/b"]',
            '["client:host:/a"]',
        ),
        "a list of ROLE:PEER_IP:SOCKET",
    ),
    "nodes[0].vdevs": (_NOT_LISTS, "a list of NAME,ARGS"),
    "nodes[0].cpu": ((*_NOT_INTEGERS, "4096"), "an integer in 0..4095"),
}


def a_file_with(key: str, value: str) -> str:
    """The smallest file in which only ``key`` is out of place."""
    where, _, name = key.rpartition(".")
    node = "[[nodes]]\n" + ("" if name == "address" else 'address = "127.0.0.1:8000"\n')
    if where == "cluster.timers":
        times = {"heartbeat_ms": "10", "election_min_ms": "20", "election_max_ms": "30"} | {name: value}
        inner = ", ".join(f"{each} = {text}" for each, text in times.items())
        return f"[cluster]\ntimers = {{ {inner} }}\n{node}"
    return f"[cluster]\n{name} = {value}\n{node}" if where == "cluster" else f"{node}{name} = {value}\n"


def test_the_table_has_every_key() -> None:
    keys = {f"cluster.{name}" for name in config._CLUSTER} | {f"nodes[0].{name}" for name in config._NODE}
    assert set(WRONG) == keys | {f"cluster.timers.{name}" for name in config._TIMERS}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, (values, _) in WRONG.items() for value in values])
def test_every_key_wrong_in_every_way(key: str, value: str) -> None:
    with pytest.raises(UserError) as raised:
        parsed(a_file_with(key, value))
    assert raised.value.message.startswith(f"/etc/c.toml: {key} is "), raised.value.message
    assert raised.value.remedy.startswith("Allowed: ") and WRONG[key][1] in raised.value.remedy, raised.value.remedy


@pytest.mark.parametrize(
    ("text", "guess"),
    [
        ("[cluster]\nbackends = 'uv'\n", "Did you mean backend?"),
        ("[cluster]\nlog_mb = 3\n", "Did you mean log_mib?"),
        ("[cluster]\nbackend = 'dpkd'\n", "Did you mean dpdk?"),
        ("[cluster]\ntimers = 'datacentre'\n", "Did you mean datacenter?"),
        ("[cluster]\ntimers = { heartbeat = 3 }\n", "Did you mean heartbeat_ms?"),
        ("[cluster]\napp = 'KV'\n", "Did you mean kv?"),
        ("[clusters]\n", "Did you mean cluster?"),
        ("[[node]]\n", "Did you mean nodes?"),
        ("backend = 'uv'\n", "It belongs into the [cluster] table."),
        ("address = '10.0.0.1:1'\n", "It belongs into a [[nodes]] table."),
        ("[[nodes]]\naddres = '10.0.0.1:1'\n", "Did you mean address?"),
    ],
)
def test_a_misspelt_key_or_word_gets_a_guess(text: str, guess: str) -> None:
    with pytest.raises(UserError) as raised:
        parsed(text)
    assert raised.value.remedy.startswith("Allowed: ") and raised.value.remedy.endswith(guess)


NODE = '[[nodes]]\naddress = "127.0.0.1:{}"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "nodes is []"),
        ("nodes = 1", "nodes is 1"),
        ("nodes = [1]", "nodes[0] is 1, not a table"),
        ("cluster = 1\n" + NODE.format(1), "cluster is 1, not a table"),
        ("[[nodes]]\nslot = 1", "nodes[0].address is missing"),
        (NODE.format(1) + NODE.format(1), "nodes[1].address is that of nodes[0], too"),
        (NODE.format(1) + "slot = 1\n" + NODE.format(2), "nodes[1].slot is that of nodes[0], too"),
        (
            NODE.format(1) + 'storage = "d"\n' + NODE.format(2) + 'storage = "d"\n',
            "nodes[1].storage is that of nodes[0]",
        ),
        ("".join(NODE.format(n) for n in range(1, 18)), "nodes is [{"),
        ('[cluster]\nbackend = "dpdk"\n' + NODE.format(1), "nodes[0].links is missing"),
        (NODE.format(1) + 'vdevs = ["net_ring0,x=1"]', "nodes[0].vdevs is there"),
        ("[cluster]\ntimers = { heartbeat = 5 }\n" + NODE.format(1), "cluster.timers.heartbeat is not a key"),
        ('[cluster]\ntimers = { heartbeat_ms = "x" }\n' + NODE.format(1), "cluster.timers.heartbeat_ms is 'x'"),
        ("[cluster\n", "not TOML: Expected ']'"),
    ],
)
def test_what_does_not_fit_together_is_named(text: str, told: str) -> None:
    with pytest.raises(UserError) as raised:
        parsed(text)
    assert raised.value.message.startswith(f"/etc/c.toml: {told}"), raised.value.message
    assert raised.value.remedy


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not a text in UTF-8"):
        load(tmp_path / "bytes.toml")


def test_the_documents_example_is_right() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    example = text.split("```toml\n")[1].split("```")[0]
    assert len(parsed(example).nodes) == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"[cluster]\nid = {'9' * 5000}\n", "not TOML"),
        (f"[cluster]\nid = 0x{'f' * 5000}\n[[nodes]]\n", "cluster.id is a number of thousands of digits"),
        (f"x = {'[' * 5000}", "not TOML"),
    ],
)
def test_what_python_itself_does_not_read_is_a_users_error(text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse(text, Path("x.toml"))
