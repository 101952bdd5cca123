"""R2P2: request-response pairs over UDP, with Raft inside the transport.

The names below are the public interface; each is imported when it is first used, so that ``import r2p2`` is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from r2p2.app import RequestMachine, StateMachine, state_machine
    from r2p2.client import (
        FIXED_ROUTE,
        LB_ROUTE,
        REPLICATED,
        REPLICATED_READ,
        BlockingClient,
        BlockingSession,
        Client,
        PollClient,
        PollSession,
    )
    from r2p2.errors import (
        CallCancelled,
        CallDropped,
        CallError,
        CallTimeout,
        NoRoute,
        R2P2Error,
        RequestTooLarge,
        SessionExpiredError,
        TooManyCalls,
        UserError,
    )
    from r2p2.local import LocalCluster, LocalServer
    from r2p2.memory import MemoryNetwork
    from r2p2.node import Node, NodeConfig, Timers
    from r2p2.ports import PortSpec, open_port
    from r2p2.requests import DROP, LATER, Replies, Requests
    from r2p2.server import Deferred, Server, ServerConfig, Service

__all__ = [
    "DROP",
    "FIXED_ROUTE",
    "LATER",
    "LB_ROUTE",
    "REPLICATED",
    "REPLICATED_READ",
    "BlockingClient",
    "BlockingSession",
    "CallCancelled",
    "CallDropped",
    "CallError",
    "CallTimeout",
    "Client",
    "Deferred",
    "LocalCluster",
    "LocalServer",
    "MemoryNetwork",
    "NoRoute",
    "Node",
    "NodeConfig",
    "PollClient",
    "PollSession",
    "PortSpec",
    "R2P2Error",
    "Replies",
    "RequestMachine",
    "RequestTooLarge",
    "Requests",
    "Server",
    "ServerConfig",
    "Service",
    "SessionExpiredError",
    "StateMachine",
    "Timers",
    "TooManyCalls",
    "UserError",
    "open_port",
    "state_machine",
]

_MODULES = {
    "r2p2.app": ("RequestMachine", "StateMachine", "state_machine"),
    "r2p2.client": (
        "BlockingClient",
        "BlockingSession",
        "Client",
        "PollClient",
        "PollSession",
        "FIXED_ROUTE",
        "LB_ROUTE",
        "REPLICATED",
        "REPLICATED_READ",
    ),
    "r2p2.errors": (
        "CallCancelled",
        "CallDropped",
        "CallError",
        "CallTimeout",
        "NoRoute",
        "R2P2Error",
        "RequestTooLarge",
        "SessionExpiredError",
        "TooManyCalls",
        "UserError",
    ),
    "r2p2.local": ("LocalCluster", "LocalServer"),
    "r2p2.memory": ("MemoryNetwork",),
    "r2p2.node": ("Node", "NodeConfig", "Timers"),
    "r2p2.ports": ("PortSpec", "open_port"),
    "r2p2.requests": ("DROP", "LATER", "Replies", "Requests"),
    "r2p2.server": ("Deferred", "Server", "ServerConfig", "Service"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Imports a public name's module when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'r2p2' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, so that completion and ``help`` find them before they are imported."""
    return sorted(__all__)
