"""The engine, typed: one Python call for a burst, nothing of C in what it returns.

Wraps ``r2p2._engine`` (see ``r2p2/csrc/r2p2_engine_api.h``). CData stays in this package: callers see ints, bytes and
:class:`~r2p2.requests.Requests`. Addresses are ``(ip, port)`` with the IPv4 address as an int in host order
(:mod:`r2p2.address`).

:class:`Engine` is one object in four parts over ``polling`` (opened, polled, counted): ``serving`` (requests and
replies), ``replicating`` (Raft's messages and the steady step), ``entries`` (the log, its time, sessions) and
``calling`` (the client). ``records``: what goes in and comes out; ``status``: what failed; ``checks``: the C codecs
by themselves.
"""

from __future__ import annotations

from r2p2.engine.calling import Calling
from r2p2.engine.checks import header_check, resp_first_broken
from r2p2.engine.entries import Entries
from r2p2.engine.records import (
    DONE_CANCELLED,
    DONE_DROPPED,
    DONE_EXPIRED,
    DONE_OK,
    DONE_TIMEOUT,
    ROLE_FOLLOWER,
    ROLE_HOLD,
    ROLE_LEADER,
    ROLE_NONE,
    STEADY_ANSWERED,
    STEADY_FOLLOWED,
    STEADY_HEAD_BYTES,
    STEADY_SENT,
    CapturedDatagram,
    Completion,
    EngineConfig,
    RaftMessage,
    SessionInfo,
    counter_helps,
)
from r2p2.engine.replicating import Replicating
from r2p2.engine.serving import Serving
from r2p2.engine.status import FULL

__all__ = [
    "DONE_CANCELLED",
    "DONE_DROPPED",
    "DONE_EXPIRED",
    "DONE_OK",
    "DONE_TIMEOUT",
    "FULL",
    "ROLE_FOLLOWER",
    "ROLE_HOLD",
    "ROLE_LEADER",
    "ROLE_NONE",
    "STEADY_ANSWERED",
    "STEADY_FOLLOWED",
    "STEADY_HEAD_BYTES",
    "STEADY_SENT",
    "CapturedDatagram",
    "Completion",
    "Engine",
    "EngineConfig",
    "RaftMessage",
    "SessionInfo",
    "counter_helps",
    "header_check",
    "resp_first_broken",
]


class Engine(Serving, Replicating, Entries, Calling):
    """One engine over one port.

    Args:
        port_address: of the port's ``struct r2p2_port``, from a backend. The port must outlive the engine.
        config: bounds.
        keep: an object to hold on to as long as the engine lives, normally the port.
    """
