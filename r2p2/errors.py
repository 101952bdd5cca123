"""The errors a user meets: what is wrong, and what to do about it.

Library code raises these where the cause lies with the caller's input or machine; the command line prints them as one
line without a traceback. A peer's bad bytes never raise: they are counted (see docs/wire.md). Programming errors stay
what Python makes of them.
"""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(Exception):
    """Something the user can mend. `message` names what is wrong with every number; `remedy`, if known, what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        """Keep both parts apart: the command line prints them on two lines."""
        super().__init__(message if not remedy else f"{message} ({remedy})")
        self.message = message
        self.remedy = remedy
