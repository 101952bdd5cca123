"""What a node tells the service manager that started it (systemd, ``Type=notify``): ready, stopping, a line of status.

The protocol is a datagram to the UNIX socket that ``NOTIFY_SOCKET`` names; without it nothing is sent. Leaves to
others: what is told (`serve.py`), the unit (deploy/systemd).
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable

__all__ = ["ServiceManager"]

log = logging.getLogger("r2p2.service_manager")

STATUS_CHARACTERS_MAX = 200


class ServiceManager:
    """The manager, if there is one.

    Args:
        address: of its socket: a path, or ``@`` and a name; by default ``NOTIFY_SOCKET`` of the environment, which is
            taken out of it, so that no child of this process speaks for it.
    """

    def __init__(self, address: str | None = None) -> None:
        found = os.environ.pop("NOTIFY_SOCKET", "") if address is None else address
        self._address = f"\0{found[1:]}" if found.startswith("@") else found

    def ready(self) -> None:
        """The node answers."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The node has begun to end."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line on what the node is doing."""
        self._send(f"STATUS={text[:STATUS_CHARACTERS_MAX]}")

    def telling(self, tell: Callable[[str], None]) -> Callable[[str], None]:
        """``tell`` that tells the manager, too: its status is what was told last."""
        if not self._address:
            return tell

        def both(text: str) -> None:
            tell(text)
            self.status(text.partition("\n")[0])

        return both

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
                sock.sendto(message.encode(errors="backslashreplace"), self._address)
        except OSError as error:  # a manager that is away or slow is no reason to end or to wait
            log.warning("cannot tell the service manager %s: %s", message, error)
