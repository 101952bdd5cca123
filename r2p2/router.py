"""The router: a middlebox that clients send to as if it were the server, and that chooses one of several.

Forwarding is C (``r2p2/csrc/r2p2_router.c``); here are its configuration, its numbers, and the step a driver calls.
Modes, policies and what becomes of lost packets and dead servers: ``docs/router.md``.
Leaves to others: which port it runs over and who drives it (:mod:`r2p2.router_command`).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from r2p2 import limits
from r2p2._engine import ffi, lib
from r2p2.address import format_address
from r2p2.errors import EngineError, UserError

__all__ = ["MODES", "POLICIES", "Router", "RouterConfig", "ServerStatus", "parse_policy", "router_counter_helps"]

MODES: Final[dict[str, int]] = {"relay": lib.R2P2_ROUTER_RELAY, "direct": lib.R2P2_ROUTER_DIRECT}
POLICIES: Final[dict[str, int]] = {
    "random": lib.R2P2_ROUTER_RANDOM,
    "round-robin": lib.R2P2_ROUTER_ROUND_ROBIN,
    "jsq": lib.R2P2_ROUTER_JSQ,
    "jbsq": lib.R2P2_ROUTER_JBSQ,
}
DEFAULT_POLICY: Final = "jbsq:3"
BOUND_MAX: Final = 65_535
QUEUE_COUNT_MAX: Final[int] = lib.R2P2_ROUTER_QUEUE_MAX

_NEVER: Final = 2**64 - 1
_SERVER_NUMBERS: Final = ffi.sizeof("r2p2_router_server") // 8
_COUNTER_NAMES: Final = [
    ffi.string(lib.r2p2_router_counter_name(i)).decode() for i in range(lib.r2p2_router_counters_count())
]


def router_counter_helps() -> dict[str, str]:
    """Every counter's name and what it counts, in the order of :meth:`Router.counters`."""
    return {name: ffi.string(lib.r2p2_router_counter_help(i)).decode() for i, name in enumerate(_COUNTER_NAMES)}


def parse_policy(text: str) -> tuple[str, int]:
    """``"jbsq:3"`` as ``("jbsq", 3)``; the others have no number, and the bound 1 that they do not use.

    Raises:
        UserError: no such policy.
    """
    name, colon, number = text.partition(":")
    if name not in POLICIES or bool(colon) != (name == "jbsq"):
        raise UserError(
            f"there is no routing policy {text!r}", "Choose random, round-robin, jsq, or jbsq:N, as in jbsq:3."
        )
    if name != "jbsq":
        return name, 1
    if not number.isdecimal() or not 1 <= int(number) <= BOUND_MAX:
        raise UserError(f"{number!r} in {text!r} is not a bound between 1 and {BOUND_MAX}", "Write jbsq:N.")
    return name, int(number)


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """One router.

    Attributes:
        servers: (ip, port) of each, at most 64.
        local_port: the UDP port that clients send to.
        control_port: the UDP port that servers send FEEDBACK to; may be the same.
        mode: ``relay`` (answers pass the router; any port) or ``direct`` (servers answer clients; the port must be able
            to send with the client's address, and servers must send FEEDBACK).
        policy: ``random``, ``round-robin``, ``jsq`` or ``jbsq:N``.
        timeout_ns: a request without an answer is given up after this; longer than the longest request takes.
        queue_timeout_ns: jbsq: a request that waited this long for a slot is refused.
        queue_count_max: jbsq: requests that may wait.
        pending_count_max: requests that may be on their way.
        misses_max: a server that leaves so many requests in a row unanswered is put out.
        down_ns: for this long, then one request tries it.
        seed: of chance; drawn when None.
    """

    servers: tuple[tuple[int, int], ...]
    local_port: int
    control_port: int = limits.ROUTER_CONTROL_PORT
    mode: str = "relay"
    policy: str = DEFAULT_POLICY
    timeout_ns: int = limits.CALL_TIMEOUT_NS
    queue_timeout_ns: int = limits.CALL_TIMEOUT_NS
    queue_count_max: int = limits.ROUTER_QUEUE_COUNT_MAX
    pending_count_max: int = limits.ROUTER_PENDING_MAX
    misses_max: int = limits.ROUTER_MISSES_MAX
    down_ns: int = limits.ROUTER_DOWN_NS
    seed: int | None = None

    def __post_init__(self) -> None:
        """Checks every bound.

        Raises:
            UserError: one is not kept; the message says which.
        """
        parse_policy(self.policy)
        if self.mode not in MODES:
            raise UserError(f"mode: {self.mode!r} is neither relay nor direct")
        if not 1 <= len(self.servers) <= limits.ROUTER_SERVERS_MAX:
            raise UserError(f"{len(self.servers)} servers, not between 1 and {limits.ROUTER_SERVERS_MAX}")
        if len(set(self.servers)) != len(self.servers):
            raise UserError("a server is named twice")
        for address in self.servers:
            if not 0 < address[1] <= 65_535:
                raise UserError(f"server {format_address(address)} has no UDP port to send to")
        for name, low, high in (
            ("local_port", 1, 65_535),
            ("control_port", 1, 65_535),
            ("queue_count_max", 1, QUEUE_COUNT_MAX),
            ("pending_count_max", 1, limits.ROUTER_PENDING_MAX),
            ("misses_max", 1, 2**31),
            ("timeout_ns", 1, 2**62),
            ("queue_timeout_ns", 1, 2**62),
            ("down_ns", 0, 2**62),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"{name} is {value}, not between {low} and {high}")


class ServerStatus(NamedTuple):
    """One server as the router sees it: counts of requests, since the start unless it says now."""

    ip: int
    port: int
    is_down: bool
    """Now: put out."""
    outstanding: int
    """Now: balanced requests sent and not answered."""
    misses: int
    """Now: unanswered in a row."""
    sent: int
    answered: int
    expired: int
    dropped: int


class Router:
    """One router over one port; a :class:`~r2p2.driver.Pollable`.

    Args:
        config: what it is.
        port_address: of the port's C struct, from a backend. It must receive on both UDP ports of the config.
        keep: an object to hold on to as long as the router lives, normally the port.
    """

    def __init__(self, config: RouterConfig, port_address: int, *, keep: object = None) -> None:
        self.config = config
        name, bound = parse_policy(config.policy)
        seed = secrets.randbits(64) if config.seed is None else config.seed
        c_config = {
            "seed": seed & _NEVER,
            "timeout_ns": config.timeout_ns,
            "queue_timeout_ns": config.queue_timeout_ns,
            "down_ns": config.down_ns,
            "misses_max": config.misses_max,
            "bound": bound,
            "queue_max": config.queue_count_max,
            "pending_max": config.pending_count_max,
            "packets_per_poll_max": limits.PACKETS_PER_POLL_MAX,
            "mode": MODES[config.mode],
            "choice": POLICIES[name],
            "local_port": config.local_port,
            "control_port": config.control_port,
        }
        targets = [{"ip": ip, "port": port} for ip, port in config.servers]
        error = ffi.new("int32_t *")
        self._router: Any = lib.r2p2_router_new(
            port_address,
            ffi.new("r2p2_router_config *", c_config),
            ffi.new("r2p2_target[]", targets),
            len(targets),
            error,
        )
        if not self._router:
            raise EngineError(f"r2p2_router_new: status {error[0]}")
        self._keep = keep
        # A port that is closed first closes what is over it.
        if (engines := getattr(keep, "engines", None)) is not None:
            engines.add(self)
        self._result = ffi.new("r2p2_router_result *")
        self._result_view = memoryview(ffi.buffer(self._result)).cast("B").cast("Q")
        self._deadline_ns = _NEVER
        self.pending_count = 0
        """Requests on their way, as of the last poll."""
        self.queued_count = 0
        """Requests that wait for a slot, as of the last poll."""

    def close(self) -> None:
        """Frees everything; the port lives on. Idempotent."""
        if self._router:
            lib.r2p2_router_free(self._router)
            self._router = None

    def __enter__(self) -> Router:
        """The router."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes it."""
        self.close()

    def poll_once(self) -> int:
        """One step: receive, pass on, expire, send. Returns the datagrams received."""
        lib.r2p2_router_poll(self._router, self._result)
        _, packets, self.pending_count, self.queued_count, self._deadline_ns = self._result_view.tolist()
        return packets

    def next_deadline_ns(self) -> int | None:
        """When something expires next, on the port's clock."""
        return None if self._deadline_ns == _NEVER else self._deadline_ns

    def now_ns(self) -> int:
        """The port's clock, ns."""
        return lib.r2p2_router_now_ns(self._router)

    def counters(self) -> dict[str, int]:
        """Every counter of the router and its port by name."""
        values = ffi.new("uint64_t[]", len(_COUNTER_NAMES))
        lib.r2p2_router_counters_read(self._router, values)
        return dict(zip(_COUNTER_NAMES, list(values), strict=True))

    def servers(self) -> list[ServerStatus]:
        """Each server, in the order of the config."""
        count = len(self.config.servers)
        records = ffi.new("r2p2_router_server[]", count)
        lib.r2p2_router_servers(self._router, records)
        numbers = memoryview(ffi.buffer(records)).cast("B").cast("Q").tolist()
        rows = (numbers[i : i + _SERVER_NUMBERS] for i in range(0, len(numbers), _SERVER_NUMBERS))
        return [ServerStatus(ip, port, bool(is_down), *rest) for ip, port, is_down, *rest in rows]

    @property
    def leader(self) -> tuple[int, int]:
        """The address that replicated requests are sent to."""
        return self.config.servers[lib.r2p2_router_leader(self._router)]

    def status(self) -> dict[str, Any]:
        """All of it, ready for JSON; counters that are 0 are left out."""
        return {
            "mode": self.config.mode,
            "policy": self.config.policy,
            "pending_count": self.pending_count,
            "queued_count": self.queued_count,
            "leader": format_address(self.leader),
            "servers": [
                {"address": format_address((server.ip, server.port)), **server._asdict()} for server in self.servers()
            ],
            "counters": {name: value for name, value in self.counters().items() if value},
        }
