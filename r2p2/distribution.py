"""Distributions of sizes and times, from a word on the command line to what the load generator in C draws from.

``64`` or ``fixed:64``; ``uniform:16..1024``; ``exponential:256`` (the mean); ``bimodal:64,1024,0.1`` (the second in a
tenth of the cases). Times have a unit: ``10us``, ``exponential:10us``, ``bimodal:10us,1ms,0.01``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from r2p2.errors import UserError

__all__ = ["SHAPES", "Distribution", "parse_distribution", "parse_time_ns"]

SHAPES: Final = ("fixed", "uniform", "exponential", "bimodal")
UNITS_NS: Final = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}
EXAMPLES: Final = "For example 64, uniform:16..1024, exponential:256, bimodal:64,1024,0.1; times as 10us, 1ms."


@dataclass(frozen=True, slots=True)
class Distribution:
    """`shape`: fixed (a), uniform (a..b), exponential (mean a), bimodal (b in `share` of the cases, else a)."""

    shape: str = "fixed"
    a: float = 0.0
    b: float = 0.0
    share: float = 0.0
    text: str = ""
    """As it was written, for reports."""

    @property
    def largest(self) -> float:
        """Nothing drawn is larger; of an exponential one, one draw in a million."""
        if self.shape == "exponential":
            return 14 * self.a  # exp(-14): 1 in 1.2 million
        return max(self.a, self.b)

    @property
    def least(self) -> float:
        """Nothing drawn is smaller."""
        return 0.0 if self.shape == "exponential" else min(self.a, self.b) if self.shape != "fixed" else self.a

    @property
    def mean(self) -> float:
        """Of all draws."""
        if self.shape == "uniform":
            return (self.a + self.b) / 2
        return self.a + self.share * (self.b - self.a) if self.shape == "bimodal" else self.a

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Distribution:
        """From :func:`dataclasses.asdict`. TypeError for anything else."""
        return cls(**values)


def parse_time_ns(text: str) -> float:
    """``10us`` in ns.

    Raises:
        UserError: it is no time.
    """
    for unit in sorted(UNITS_NS, key=len, reverse=True):
        if text.endswith(unit):
            try:
                return float(text.removesuffix(unit)) * UNITS_NS[unit]
            except ValueError:
                break
    raise UserError(f"{text!r} is no time", "A number and ns, us, ms or s, as 10us.")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{text!r} is no number") from None


def parse_distribution(text: str, *, of_times: bool = False) -> Distribution:
    """A distribution of bytes, or of ns.

    Raises:
        UserError: it is none, or its numbers contradict each other.
    """
    value = parse_time_ns if of_times else _number
    shape, colon, rest = text.partition(":")
    if not colon:
        shape, rest = "fixed", text
    try:
        if shape == "fixed":
            found = Distribution("fixed", value(rest), text=text)
        elif shape == "uniform":
            low, _, high = rest.partition("..")
            found = Distribution("uniform", value(low), value(high), text=text)
        elif shape == "exponential":
            found = Distribution("exponential", value(rest), text=text)
        elif shape == "bimodal":
            usual, rare, share = rest.split(",")
            found = Distribution("bimodal", value(usual), value(rare), _number(share), text=text)
        else:
            raise UserError(f"{shape!r} is none of {', '.join(SHAPES)}")
    except ValueError as error:
        raise UserError(f"{text!r} is no distribution", EXAMPLES) from error
    except UserError as error:
        raise UserError(f"{text!r} is no distribution: {error.message}", EXAMPLES) from error
    if found.a < 0 or found.b < 0 or not 0 <= found.share <= 1 or (shape == "uniform" and found.b < found.a):
        raise UserError(f"{text!r}: its numbers are no distribution's", EXAMPLES)
    return found
