"""The digest of the application's state, as a node's status tells it."""

from __future__ import annotations

from collections.abc import Callable

from r2p2.app import StateMachine
from r2p2.engine import Engine

__all__ = ["StateDigest"]


class StateDigest:
    """Of one node's application.

    Args:
        replicated: whether an index tells what has been applied.
        app_is_busy: whether the application may not be called now.
    """

    def __init__(self, app: StateMachine, engine: Engine, *, replicated: bool, app_is_busy: Callable[[], bool]) -> None:
        self._app = app
        self._engine = engine
        self._replicated = replicated
        self._app_is_busy = app_is_busy
        self._digest, self._digest_at = "", -1  # the last that was asked for, and the applied index then

    def get(self) -> str:
        """The digest, "" while the application is busy. A member makes one for an applied index and keeps it: the
        question is repeated when the answer is late, which it is where there is much state.
        """
        if self._app_is_busy():
            return ""
        index = self._engine.applied_index
        if not self._replicated or self._digest_at != index:
            self._digest, self._digest_at = self._app.state_digest(), index
        return self._digest
