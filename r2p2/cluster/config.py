"""The file that describes a cluster: TOML, every key checked, every error naming its key and what is allowed.

Leaves to others: starting anything from it (:mod:`r2p2.serve`, `launcher.py`).
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from r2p2 import limits
from r2p2.address import format_address, parse_address
from r2p2.app import BUILT_IN
from r2p2.arguments import CHECK_ENTRIES_MAX, CLUSTER_ID_MAX, CPU_MAX, LOG_MIB_MAX
from r2p2.busy_loop import IDLE_POLICIES
from r2p2.errors import UserError
from r2p2.link_options import parse_link
from r2p2.node import Timers
from r2p2.node.truncation import POLICIES
from r2p2.ports import BACKENDS
from raft.configuration import SLOT_MAX, VOTERS_MAX

__all__ = ["ClusterFile", "NodeEntry", "load", "parse"]

_MS_MAX: Final = 60_000


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """One member: its slot, its address, and what is its own.

    Attributes:
        storage: the directory of its log; None: in memory.
        links, vdevs: of the dpdk backend, as ``r2p2 serve`` takes them.
        cpu: the processor it runs on; None: any.
    """

    slot: int
    address: tuple[int, int]
    storage: Path | None
    links: tuple[str, ...]
    vdevs: tuple[str, ...]
    cpu: int | None = None


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """What the file says, whole and consistent."""

    path: Path
    cluster_id: int
    app: str
    backend: str
    idle: str
    log_mib: int
    truncation: str | None
    apply_thread: bool
    check_determinism: int
    timers: Timers
    nodes: tuple[NodeEntry, ...]

    @property
    def members(self) -> dict[int, tuple[int, int]]:
        """Slot -> address."""
        return {node.slot: node.address for node in self.nodes}

    @property
    def addresses(self) -> list[str]:
        """``IP:PORT`` of every member."""
        return [format_address(node.address) for node in self.nodes]

    def node(self, slot: int) -> NodeEntry:
        """The member in ``slot``.

        Raises:
            UserError: there is none.
        """
        for node in self.nodes:
            if node.slot == slot:
                return node
        slots = ", ".join(str(node.slot) for node in self.nodes)
        raise UserError(f"{self.path}: there is no node {slot}", f"Its nodes are {slots}.")


@dataclass(frozen=True, slots=True)
class _Key:
    """One key: what is allowed, in words, and the check, which raises ValueError or UserError."""

    allowed: str
    read: Callable[[Any], Any]
    choices: tuple[str, ...] = ()


def _integer(least: int, most: int) -> _Key:
    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError
        return value

    return _Key(f"an integer in {least}..{most}", read)


def _one_of(*choices: str) -> _Key:
    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError
        return value

    return _Key(" or ".join(f'"{choice}"' for choice in choices), read, choices)


def _text(allowed: str, is_right: Callable[[str], object], choices: tuple[str, ...] = ()) -> _Key:
    def read(value: Any) -> str:
        if not isinstance(value, str) or "\0" in value or not is_right(value):
            raise ValueError
        return value

    return _Key(allowed, read, choices)


def _read_address(value: Any) -> tuple[int, int]:
    if not isinstance(value, str):
        raise ValueError
    ip, port = parse_address(value)
    if not ip or not port:
        raise ValueError
    return ip, port


def _read_texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ValueError
    return tuple(value)


def _read_links(value: Any) -> tuple[str, ...]:
    texts = _read_texts(value)
    for text in texts:
        parse_link(text)
    return texts


def _read_timers(value: Any) -> Timers:
    if not isinstance(value, dict):
        return Timers.profile(value) if isinstance(value, str) else _raise()
    found = _table("cluster.timers", value, _TIMERS)
    heartbeat, least, most = (found.get(name) for name in _TIMERS)
    if heartbeat is None or least is None or most is None or not heartbeat < least < most:
        raise ValueError
    return Timers(heartbeat * limits.MS, least * limits.MS, most * limits.MS)


def _raise() -> Timers:
    raise ValueError


def _is_app(value: str) -> bool:
    module, colon, name = value.partition(":")
    return value in BUILT_IN or bool(colon and module and name)


_MILLISECONDS: Final = _integer(1, _MS_MAX)
_TIMERS: Final[Mapping[str, _Key]] = {
    "heartbeat_ms": _MILLISECONDS,
    "election_min_ms": _MILLISECONDS,
    "election_max_ms": _MILLISECONDS,
}


def _read_boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


_BOOLEAN: Final = _Key("true or false", _read_boolean)
_STORAGE: Final = _text("the path of a directory", bool)
_CLUSTER: Final[Mapping[str, _Key]] = {
    "id": _integer(0, CLUSTER_ID_MAX),
    "app": _text(f"{', '.join(BUILT_IN)}, or MODULE:NAME", _is_app, tuple(BUILT_IN)),
    "backend": _one_of(*BACKENDS),
    "idle": _one_of(*IDLE_POLICIES),
    "log_mib": _integer(1, LOG_MIB_MAX),
    "truncation": _one_of(*POLICIES),
    "apply_thread": _BOOLEAN,
    "check_determinism": _integer(0, CHECK_ENTRIES_MAX),
    "storage": _STORAGE,
    "timers": _Key(
        '"default" or "datacenter", or a table of heartbeat_ms < election_min_ms < election_max_ms',
        _read_timers,
        ("default", "datacenter"),
    ),
}
_NODE: Final[Mapping[str, _Key]] = {
    "slot": _integer(0, SLOT_MAX),
    "address": _Key('IP:PORT, as in "10.0.0.1:8000"; neither is 0', _read_address),
    "storage": _STORAGE,
    "links": _Key("a list of ROLE:PEER_IP:SOCKET (backend dpdk)", _read_links),
    "vdevs": _Key("a list of NAME,ARGS (backend dpdk)", _read_texts),
    "cpu": _integer(0, CPU_MAX),
}
_TOP: Final = ("cluster", "nodes")
# Where a key belongs that stands at the top by mistake.
_PLACES: Final = {
    **dict.fromkeys(_NODE, "a [[nodes]] table"),
    **dict.fromkeys(_CLUSTER, "the [cluster] table"),
}


def _guess(wrong: Any, known: Iterable[str]) -> str:
    """What was meant by a misspelt name, as a sentence; empty where nothing is near."""
    near = difflib.get_close_matches(wrong.lower(), list(known), n=1) if isinstance(wrong, str) else []
    if not near or near[0] == wrong:
        return f" It belongs into {_PLACES[wrong]}." if near and wrong in _PLACES else ""
    return f" Did you mean {near[0]}?"


def _table(where: str, table: Any, keys: Mapping[str, _Key]) -> dict[str, Any]:
    """The values of a table, each checked.

    Raises:
        UserError: a key is not known or its value is not allowed.
    """
    if not isinstance(table, dict):
        raise UserError(f"{where} is {_shown(table)}, not a table", f"Allowed in it: {', '.join(keys)}.")
    found = {}
    for name, value in table.items():
        key = keys.get(name)
        if key is None:
            raise UserError(f"{where}.{name} is not a key", f"Allowed: {', '.join(keys)}.{_guess(name, keys)}")
        try:
            found[name] = key.read(value)
        except UserError as error:
            if error.message.startswith(where):  # an inner table's: it names its own key
                raise
            remedy = f"Allowed: {key.allowed}.{_guess(value, key.choices)}"
            raise UserError(f"{where}.{name} is {_shown(value)}: {error.message}", remedy) from None
        except ValueError:
            remedy = f"Allowed: {key.allowed}.{_guess(value, key.choices)}"
            raise UserError(f"{where}.{name} is {_shown(value)}", remedy) from None
    return found


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def parse(text: str, path: Path) -> ClusterFile:
    """The cluster that ``text`` describes; ``path`` is where it stands, for messages and relative directories.

    Raises:
        UserError: it is wrong; the message names the file and the key, the remedy says what is allowed.
    """
    try:
        return _parse(text, path)
    except UserError as error:
        raise UserError(f"{path}: {error.message}", error.remedy) from None


def _parse(text: str, path: Path) -> ClusterFile:
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number too long to be read, or tables too deep
        raise UserError(f"not TOML: {error}", "Write key = value, with texts in quotes.") from None
    for name in document:
        if name not in _TOP:
            raise UserError(f"{name} is not a key", f"Allowed: {', '.join(_TOP)}.{_guess(name, [*_TOP, *_PLACES])}")
    cluster = _table("cluster", document.get("cluster", {}), _CLUSTER)
    entries = document.get("nodes", [])
    if not isinstance(entries, list) or not 1 <= len(entries) <= VOTERS_MAX:
        raise UserError(
            f"nodes is {_shown(entries)}", f"Allowed: 1..{VOTERS_MAX} tables [[nodes]], one for each member."
        )
    backend = cluster.get("backend", "uv")
    nodes = tuple(
        _node(f"nodes[{i}]", i, _table(f"nodes[{i}]", entry, _NODE), cluster.get("storage"), backend, path.parent)
        for i, entry in enumerate(entries)
    )
    for name in ("slot", "address", "storage"):
        seen: dict[Any, int] = {}
        for i, node in enumerate(nodes):
            value = getattr(node, name)
            if value is not None and value in seen:
                raise UserError(
                    f"nodes[{i}].{name} is that of nodes[{seen[value]}], too", f"Allowed: another {name} for each node."
                )
            seen[value] = i
    return ClusterFile(
        path,
        cluster.get("id", 1),
        cluster.get("app", "echo"),
        backend,
        cluster.get("idle", "yield"),
        cluster.get("log_mib", limits.LOG_BYTES_MAX >> 20),
        cluster.get("truncation"),
        cluster.get("apply_thread", False),
        cluster.get("check_determinism", 0),
        cluster.get("timers", Timers()),
        nodes,
    )


def _node(where: str, place: int, found: dict[str, Any], storage: str | None, backend: str, folder: Path) -> NodeEntry:
    if "address" not in found:
        raise UserError(f"{where}.address is missing", f"Allowed: {_NODE['address'].allowed}.")
    slot = found.get("slot", place)
    links, vdevs = found.get("links", ()), found.get("vdevs", ())
    if backend == "dpdk" and not links and not vdevs:
        raise UserError(f"{where}.links is missing", "The dpdk backend needs links or vdevs for each node.")
    if backend != "dpdk" and (links or vdevs):
        name = "links" if links else "vdevs"
        raise UserError(f"{where}.{name} is there", f'Allowed: only with cluster.backend = "dpdk"; it is "{backend}".')
    own = found.get("storage")
    directory = folder / own if own else folder / storage / f"node-{slot}" if storage else None
    return NodeEntry(slot, found["address"], directory, links, vdevs, found.get("cpu"))


def load(path: Path) -> ClusterFile:
    """The cluster that a file describes.

    Raises:
        UserError: it cannot be read, or as :func:`parse`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text in UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "Name a cluster file; docs/operations.md shows one.") from error
    return parse(text, path)
