"""Errors that users of the package see.

Two kinds: :class:`UserError` is the caller's or the operator's to mend and says how; :class:`CallError` is what
became of one call. Bytes from the network never raise: they are counted and dropped (:mod:`r2p2.engine`, ``counters``).
"""

from __future__ import annotations


class R2P2Error(Exception):
    """Base of every error of this package."""


class UserError(R2P2Error):
    """A mistake in configuration, arguments or environment. ``remedy`` says what to do about it.

    ``exit_code``: of a command that ends with it.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class CallError(R2P2Error):
    """A call did not get an answer."""


class CallTimeout(CallError):
    """No answer came before the deadline: the request may or may not have been executed."""


class CallDropped(CallError):
    """The server refused the request (DROP): it was not executed. Never of a request that was sent more than once
    (``retry_s``) outside a session: another copy may have been taken, and the call goes on to its deadline.
    """


class CallCancelled(CallError):
    """The caller gave the call up: the request may or may not have been executed."""


class SessionExpiredError(CallError):
    """The servers have ended the client's session. A call that was under way was executed at most once, and whether it
    was cannot be told any more; a call begun afterwards was not sent.
    """


class NoRoute(CallError):
    """This machine knows no way to the server. Nothing was sent."""


class TooManyCalls(CallError):
    """Every local port has all the calls it can have. Nothing was sent."""


class RequestTooLarge(CallError, ValueError):
    """The request does not fit in 254 packets. Nothing was sent."""


class ReplyTooLarge(R2P2Error, ValueError):
    """A handler's reply does not fit in a response. The client gets ``-ERR ReplyTooLarge``."""


class EngineError(R2P2Error):
    """The engine refused a call of ours: a mistake inside this package, with the name of the call and the status."""


class ReplyCountError(UserError, EngineError):
    """An application's batch of replies is not as long as its batch of requests."""

    @classmethod
    def of(cls, replies_count: int, requests_count: int) -> ReplyCountError:
        """The one with these two numbers."""
        return cls(
            f"the application gave {replies_count} replies to {requests_count} requests",
            "It has to give one reply to each request of a batch, in order.",
        )
