"""What a judge raises when a property does not hold.

Left to others: the properties (checkers.py, histories.py, exhaustive.py).
"""

from __future__ import annotations


class Violation(AssertionError):
    """A property does not hold; ``checker`` names it."""

    def __init__(self, checker: str, detail: str) -> None:
        """What, and the numbers."""
        super().__init__(f"{checker}: {detail}")
        self.checker = checker
