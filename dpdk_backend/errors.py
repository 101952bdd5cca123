"""What goes wrong with DPDK, in words that name the call, DPDK's reason and the remedy."""

from __future__ import annotations


class DpdkError(RuntimeError):
    """An error of the DPDK backend.

    Attributes:
        code: the positive errno value DPDK gave, 0 where there is none.
        remedy: what to do about it, one sentence or two; empty where nothing is known.
    """

    def __init__(self, message: str, *, code: int = 0, remedy: str = "") -> None:
        """``message`` names the call and DPDK's text."""
        super().__init__(f"{message}\n  remedy: {remedy}" if remedy else message)
        self.code = code
        self.remedy = remedy


class DpdkMissingError(DpdkError):
    """The compiled module is not there, or DPDK's libraries are not."""


class EalError(DpdkError):
    """The EAL did not start."""


class EalAlreadyStartedError(EalError):
    """The EAL was started before in this process; DPDK allows it once."""


class DeviceError(DpdkError):
    """A device or a port could not be made, or a call on it failed."""
