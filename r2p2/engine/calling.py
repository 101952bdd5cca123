"""Calls of other servers, with and without a session, and how they ended."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

from r2p2 import limits
from r2p2._engine import ffi, lib
from r2p2.engine.polling import Polling
from r2p2.engine.records import Completion, SessionInfo
from r2p2.engine.status import FULL, check
from r2p2.errors import RequestTooLarge, SessionExpiredError, UserError

# tag, latency_ns, offset, length, status, source_ip, source_port
_COMPLETION: Final = Struct("=QQQIIIH2x")
assert _COMPLETION.size == ffi.sizeof("r2p2_completion")


class Calling(Polling):
    """The client's side."""

    def client_open(self, local_port: int, calls_max: int = limits.CALLS_MAX, *, first_rid: int = 1) -> None:
        """Makes ``local_port`` one that calls can leave from.

        ``first_rid``: of its first call, 0..65535; drawn, an answer to who had this port before is nobody's.
        """
        check("r2p2_client_open", lib.r2p2_client_open(self._engine, local_port, calls_max))
        check("r2p2_client_number_from", lib.r2p2_client_number_from(self._engine, local_port, first_rid))

    def call(
        self,
        local_port: int,
        target: tuple[int, int],
        payload: bytes,
        *,
        policy: int,
        timeout_ns: int,
        tag: int,
        retry_ns: int = 0,
    ) -> int:
        """Begins a call; its end comes with :meth:`completions` under ``tag``. Returns the rid.

        ``retry_ns``: not 0 says that the request is safe to repeat: it is sent again after that time, then twice that.
        Once it has been, a refusal does not end the call: another copy may have been taken.

        Raises:
            RequestTooLarge: the payload does not fit in 254 packets.
            EngineError: too many calls wait already, or ``local_port`` is not open.
        """
        rid = self.try_call(
            local_port, target, payload, policy=policy, timeout_ns=timeout_ns, tag=tag, retry_ns=retry_ns
        )
        return rid if rid is not None else check("r2p2_client_call", FULL)

    def try_call(
        self,
        local_port: int,
        target: tuple[int, int],
        payload: bytes,
        *,
        policy: int,
        timeout_ns: int,
        tag: int,
        retry_ns: int = 0,
    ) -> int | None:
        """As :meth:`call`; None when ``local_port`` has all the calls it can have."""
        status = lib.r2p2_client_call(
            self._engine, local_port, target[0], target[1], policy, payload, len(payload), timeout_ns, retry_ns, tag
        )
        if status == lib.R2P2_ERROR_TOO_LARGE:
            raise RequestTooLarge(f"a request of {len(payload)} bytes; at most {limits.REQUEST_BYTES_MAX} fit")
        return None if status == FULL else check("r2p2_client_call", status)

    def session_new(self, local_port: int, targets: Sequence[tuple[int, int]], *, first_sequence: int = 1) -> int:
        """A client's session with the servers ``targets`` (1 to 16), whose calls leave from ``local_port``; its
        number. Nothing is sent before its first call.

        ``first_sequence``: of its first call, 1..2^63 - 1; drawn, it tells the session from another of the same id
        (docs/exactly-once.md).

        Raises:
            UserError: ``local_port`` has all the sessions it can have.
        """
        c_targets = ffi.new("r2p2_target[]", [(ip, port, 0) for ip, port in targets])
        status = lib.r2p2_session_new(self._engine, local_port, c_targets, len(targets), first_sequence)
        if status == FULL:
            raise UserError(
                f"a client has at most {limits.CLIENT_SESSIONS_MAX:,} sessions", "Close some, or open another client."
            )
        return check("r2p2_session_new", status)

    def session_call(
        self, local_port: int, session: int, payload: bytes, *, timeout_ns: int, tag: int, retry_ns: int = 0
    ) -> int | None:
        """Begins a replicated call that is executed at most once and sent again until its end. ``retry_ns`` 0: the
        default. Returns the rid; None when too many calls wait.

        Raises:
            RequestTooLarge: the payload does not fit in 254 packets.
            SessionExpiredError: the servers have ended the session; :meth:`session_renew` lets it begin anew.
        """
        status = lib.r2p2_session_call(
            self._engine, local_port, session, payload, len(payload), timeout_ns, retry_ns, tag
        )
        if status >= 0:
            return int(status)
        if status == lib.R2P2_ERROR_TOO_LARGE:
            raise RequestTooLarge(f"a request of {len(payload)} bytes; at most {limits.REQUEST_BYTES_MAX} fit")
        if status == lib.R2P2_ERROR_STATE:
            raise SessionExpiredError("the session has expired; nothing was sent. Renew it to go on with a new one")
        return None if status == FULL else check("r2p2_session_call", status)

    def session_renew(self, local_port: int, session: int) -> None:
        """Lets an expired session be opened anew by its next call.

        Raises:
            EngineError: it has not expired.
        """
        check("r2p2_session_renew", lib.r2p2_session_renew(self._engine, local_port, session))

    def session_close(self, local_port: int, session: int) -> None:
        """Forgets a session; its number may be given out again.

        Raises:
            EngineError: a call of it waits.
        """
        check("r2p2_session_close", lib.r2p2_session_close(self._engine, local_port, session))

    def session_info(self, local_port: int, session: int) -> SessionInfo:
        """How a session stands."""
        info = ffi.new("r2p2_session_info *")
        check("r2p2_session_read_info", lib.r2p2_session_read_info(self._engine, local_port, session, info))
        return SessionInfo(
            info.client_id,
            info.next_sequence,
            info.oldest_pending,
            info.waiting_count,
            info.state == lib.R2P2_SESSION_EXPIRED,
            (info.target_ip, info.target_port),
        )

    def restrict(self, local_port: int, senders: Sequence[tuple[int, int]]) -> None:
        """Only ``senders`` may answer calls of ``local_port`` from now on; none: anybody. At most 16."""
        c_senders = ffi.new("r2p2_target[]", [(ip, port, 0) for ip, port in senders])
        check("r2p2_client_restrict", lib.r2p2_client_restrict(self._engine, local_port, c_senders, len(senders)))

    def cancel(self, local_port: int, rid: int) -> None:
        """Ends a waiting call as ``DONE_CANCELLED``."""
        check("r2p2_client_cancel", lib.r2p2_client_cancel(self._engine, local_port, rid))

    def completions(self) -> list[Completion]:
        """The calls that ended since the last time."""
        descriptors, slab, slab_bytes = self._completions
        count = lib.r2p2_client_completions(self._engine, descriptors, slab, slab_bytes)
        if count == 0:
            return []
        data = ffi.buffer(slab[0], slab_bytes[0])[:] if slab_bytes[0] else b""
        fields = _COMPLETION.iter_unpack(ffi.buffer(descriptors[0], count * _COMPLETION.size))
        return [
            Completion(tag, status, data[offset : offset + length], latency_ns, source_ip, source_port)
            for tag, latency_ns, offset, length, status, source_ip, source_port in fields
        ]
