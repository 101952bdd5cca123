"""Requests that a node answers itself, by their payload: what commands and tests ask of it.

A file without imports of the node: a command that only asks needs none of it.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MEMBER_REQUEST", "STATE_REQUEST", "STATUS_REQUEST"]

STATUS_REQUEST: Final = b"\x00r2p2-status"
"""An unreplicated request with this payload is answered by the node itself, with a JSON object
(:meth:`Node.status`).
"""

STATE_REQUEST: Final = STATUS_REQUEST + b"-state"
"""The same with ``state_digest``, for which the application may go through all of its state. It does nothing else
meanwhile, and neither does the node: three seconds for a key-value store of a million keys.
"""

MEMBER_REQUEST: Final = b"\x00r2p2-member "
"""An unreplicated request with this prefix, and a JSON object behind it, is for
:class:`r2p2.node.membership.Membership`; its answer is a JSON object, too.
"""
