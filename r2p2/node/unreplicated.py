"""Requests that no log orders: questions for the node's status, operators' requests, queries of a member, and
everything that comes to a server without a group.

Leaves to others: what the status is (:meth:`r2p2.node.Node.status`), operators' requests
(:mod:`r2p2.node.member_requests`), the answers of an application.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from r2p2 import limits
from r2p2.app import StateMachine
from r2p2.engine import Engine
from r2p2.node.log_time import LogTime
from r2p2.node.own_requests import MEMBER_REQUEST, STATE_REQUEST, STATUS_REQUEST
from r2p2.requests import DROP, LATER, Requests, laid_out

__all__ = ["Unreplicated"]


class Unreplicated:
    """Of one node.

    Args:
        engine: has the requests, and sends the answers.
        app: answers; of a member of a group, its queries.
        time: of requests to a server without a group.
        counters: the node's.
        status: the node's, with the digest of its state or without.
        member_request: answers an operator's request of an asker, or returns None and answers later; None: a server
            without a group.
        app_is_busy: whether the application may not be called now; then queries wait.
    """

    COUNTERS: Final = ("queries_refused",)

    def __init__(
        self,
        engine: Engine,
        app: StateMachine,
        time: LogTime,
        counters: dict[str, int],
        *,
        status: Callable[[bool], dict[str, Any]],
        member_request: Callable[[bytes, bytes], bytes | None] | None,
        app_is_busy: Callable[[], bool],
    ) -> None:
        self._engine = engine
        self._app = app
        self._time = time
        self._counters = counters
        self._status = status
        self._member_request = member_request
        self._app_is_busy = app_is_busy
        # Queries that came while a batch was out: who asked, and what.
        self._waiting: list[tuple[bytes, bytes]] = []
        for name in self.COUNTERS:
            counters.setdefault(name, 0)

    def serve(self) -> None:
        """Answers the unreplicated requests of the last poll."""
        requests = self._engine.requests()
        if self._member_request is None:
            self._serve_alone(requests)
        elif MEMBER_REQUEST in requests.slab:
            self._serve_members(requests, self._member_request)
        else:
            askers = self._engine.askers(len(requests)) if self._app_is_busy() else b""
            self._engine.reply([self._query(request, askers, i) for i, request in enumerate(requests)])

    def serve_waiting(self) -> None:
        """Answers the queries that have waited for the application. It is not busy."""
        for asker, query in self._waiting:
            self._engine.reply_later(asker, self._app.query_safely(query))
        self._waiting.clear()

    # ---- a server without a group ----

    def _serve_alone(self, requests: Requests) -> None:
        requests.time_ms = self._time.own_ms()
        if STATUS_REQUEST not in requests.slab:
            self._engine.reply(self._app.apply(requests))
            return
        self._engine.reply([self._status_reply(r) or self._apply_one(r) for r in requests])

    def _apply_one(self, request: bytes) -> bytes:
        replies = self._app.apply(Requests.of([request], 1, time_ms=self._time.own_ms()))
        packed = laid_out(replies, limits.MESSAGE_BYTES_MAX)
        self._engine.replies_refused += packed.refused_count
        return packed.slab

    # ---- a member ----

    def _serve_members(self, requests: Requests, answer_of: Callable[[bytes, bytes], bytes | None]) -> None:
        """A batch with operators' requests in it."""
        replies: list[Any] = []
        askers = self._engine.askers(len(requests))
        for i, request in enumerate(requests):
            if not request.startswith(MEMBER_REQUEST):
                replies.append(self._query(request, askers, i))
                continue
            answer = answer_of(request, _asker(askers, i))
            replies.append(LATER if answer is None else answer)
        self._engine.reply(replies)

    def _query(self, request: bytes, askers: bytes, place: int) -> Any:
        """The reply to an unreplicated request to a member; LATER while the application is busy."""
        if reply := self._status_reply(request):
            return reply
        if not self._app_is_busy():
            return self._app.query_safely(request)
        if len(self._waiting) >= limits.DEFERRED_MAX:
            self._counters["queries_refused"] += 1
            return DROP
        self._waiting.append((_asker(askers, place), request))
        return LATER

    # ---- either ----

    def _status_reply(self, request: bytes) -> bytes:
        """The answer to a question for the status; empty: the request is none."""
        if request not in (STATUS_REQUEST, STATE_REQUEST):
            return b""
        return json.dumps(self._status(request == STATE_REQUEST)).encode()


def _asker(askers: bytes, place: int) -> bytes:
    return askers[place * limits.ASKER_BYTES : (place + 1) * limits.ASKER_BYTES]
