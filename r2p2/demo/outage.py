"""Finds the interruption that a kill caused in what the load generator saw.

The generator knows its longest time between two answers to the nanosecond. Where that is not the kill's (a machine with
few cores makes pauses of its own, and a fast cluster beats them), the timeline says it within a step.
"""

from __future__ import annotations

from r2p2.bench.plots import Outage
from r2p2.loadgen import LoadStats, Timeline

__all__ = ["find_outage"]


def find_outage(stats: LoadStats, timeline: Timeline, killed_ns: int) -> Outage:
    """The outage at `killed_ns` (the port's clock), in seconds since the timeline's start.

    An outage that never ended lasts to the end of the timeline.
    """
    start_ns, step_ns = stats.started_ns, timeline.step_ns
    killed_s = (killed_ns - start_ns) / 1e9
    gap_start_ns = stats.max_gap_at_ns - stats.max_gap_ns
    # Answers that were under way at the kill still come: the gap may begin a little later, and ends after it.
    if stats.max_gap_at_ns >= killed_ns and gap_start_ns - killed_ns < 20 * step_ns:
        return Outage(killed_s, (gap_start_ns - start_ns) / 1e9, (stats.max_gap_at_ns - start_ns) / 1e9)
    answered = timeline.answered
    first = max(0, min((killed_ns - start_ns) // step_ns, len(answered)))
    # The longest run of steps without an answer that begins within twenty steps of the kill.
    longest, longest_at = 0, first
    index = first
    while index < min(first + 20, len(answered)):
        run = 0
        while index + run < len(answered) and answered[index + run] == 0:
            run += 1
        if run > longest:
            longest, longest_at = run, index
        index += run + 1
    if not longest:
        return Outage(killed_s, killed_s, killed_s + step_ns / 1e9)  # shorter than a step
    return Outage(killed_s, longest_at * step_ns / 1e9, (longest_at + longest) * step_ns / 1e9)
