"""Why a UDP port could not be opened, in words.

What: one function for both ports of this package. Leaves to others: when it happens.
"""

from __future__ import annotations

import errno
import os
from typing import Final

__all__ = ["open_error"]

_REMEDIES: Final = {
    errno.EADDRINUSE: "another process has this UDP port: choose another, or 0 for any free one",
    errno.EADDRNOTAVAIL: "no interface of this machine has this address: see `ip address`, or bind 0.0.0.0",
    errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE: choose a higher one",
    errno.EPERM: "the system forbids it (seccomp, a container's policy, or a security module)",
    errno.EMFILE: "too many open files: raise `ulimit -n`",
    errno.ENOMEM: "not enough memory for the buffers: lower buffers_count",
    errno.ENOSPC: "this port has as many UDP ports as it can have",
}


def open_error(code: int, ip: str, port: int) -> OSError:
    """The OSError (of the subclass Python has for the errno `code`) that names the address and the way out."""
    text = f"cannot open UDP {ip}:{port}: {os.strerror(code)}"
    remedy = _REMEDIES.get(code)
    return OSError(code, f"{text} ({remedy})" if remedy else text)
