"""Histograms of latency: percentiles of them, the cumulative curve, and HdrHistogram's percentile text.

A histogram is (upper edge in ns, calls) of each bucket that is not empty, edges ascending, buckets at most 0.1 % wide
(``r2p2/csrc/r2p2_histogram.h``). The text (``.hgrm``) is what HdrHistogram's plotters read and what its
``outputPercentileDistribution`` prints; it is written here, so that no further package is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from r2p2.errors import UserError

__all__ = ["Histogram", "curve", "hgrm_text", "percentile_ns", "write_hgrm"]

Histogram = Sequence[tuple[int, int]]
TICKS_PER_HALVING = 5  # lines of the text for each halving of what is left, as HdrHistogram's default


def percentile_ns(histogram: Histogram, fraction: float) -> int:
    """The upper edge of the bucket that holds the call at `fraction` (0..1) of all; 0 without any call."""
    total = sum(count for _, count in histogram)
    if total == 0:
        return 0
    rank = min(total - 1, int(fraction * total))
    below = accumulate(count for _, count in histogram)
    return next(edge for (edge, _), so_far in zip(histogram, below, strict=True) if so_far > rank)


def curve(histogram: Histogram) -> tuple[list[float], list[float]]:
    """(latency in us, part of the calls that took no longer), a point for each bucket."""
    total = sum(count for _, count in histogram)
    edges_us = [edge / 1e3 for edge, _ in histogram]
    return edges_us, [below / total for below in accumulate(count for _, count in histogram)]


def _fractions() -> Iterator[float]:
    """0, then steps that get half as wide each time half of what was left has been done; the last is below 1."""
    fraction = 0.0
    while True:
        yield fraction
        halvings = math.floor(math.log2(1 / (1 - fraction)) + 1e-9) + 1
        fraction += 1 / (TICKS_PER_HALVING * 2**halvings)


def hgrm_text(histogram: Histogram) -> str:
    """The percentile distribution in microseconds, as HdrHistogram prints it."""
    total = sum(count for _, count in histogram)
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
    if total:
        below = list(accumulate(count for _, count in histogram))
        place = 0
        for fraction in _fractions():
            while below[place] < fraction * total:
                place += 1
            value_us = histogram[place][0] / 1e3
            if below[place] == total:
                break
            lines.append(f"{value_us:12.3f} {fraction:14.12f} {below[place]:10d} {1 / (1 - fraction):14.2f}")
        lines.append(f"{histogram[-1][0] / 1e3:12.3f} {1:14.12f} {total:10d}")
        mean = sum(edge * count for edge, count in histogram) / total
        spread = math.sqrt(sum(count * (edge - mean) ** 2 for edge, count in histogram) / total)
        lines.append(f"#[Mean    = {mean / 1e3:12.3f}, StdDeviation   = {spread / 1e3:12.3f}]")
        lines.append(f"#[Max     = {histogram[-1][0] / 1e3:12.3f}, Total count    = {total:12d}]")
    return "\n".join(lines) + "\n"


def write_hgrm(path: Path, histogram: Histogram) -> None:
    """Write the text. UserError when the file cannot be written."""
    try:
        path.write_text(hgrm_text(histogram))
    except OSError as error:
        raise UserError(f"the histogram cannot be written: {error}") from error
