"""``r2p2 top``: the status of a cluster again and again, with what changed since the last time as rates.

Leaves to others: asking (`status.py`).
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, Final

from r2p2.arguments import SECONDS_MAX
from r2p2.cluster.status import add_target_arguments, look, table, targets_of
from r2p2.cluster.view import Statuses, View
from r2p2.errors import UserError

__all__ = ["page"]

NAME = "top"
HELP = "watch a cluster: roles, indices, rates, and which counters of drops move"
EPILOG = """exit codes, with --count: 0 when the last look showed a healthy cluster, else 1. Ctrl-C ends it.
Members that come and go while it runs are seen: each look asks whom the cluster has now.

example:
  r2p2 top --nodes 10.0.0.1:8000 --period 1"""

_HOME_AND_CLEAR: Final = "\x1b[H\x1b[J"
_MOVERS_MAX: Final = 8
_PERIOD_MIN_S: Final = 0.1
_ASK_MIN_S: Final = 0.5  # a member may be busy for a moment, however often one looks
_ASK_MAX_S: Final = 2.0  # one that is down does not hold up what the others say, however seldom one looks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_target_arguments(parser)
    parser.add_argument("--period", type=float, default=2.0, metavar="SECONDS", help="between two looks")
    parser.add_argument("--count", type=int, default=0, metavar="LOOKS", help="looks, then end; 0: until Ctrl-C")


def _rate(name: str, before: dict[str, Any], now: dict[str, Any], seconds: float) -> str:
    """How fast an index rises; "-" where it is not known twice, or the member is another one than before."""
    if before.get("incarnation") != now.get("incarnation") or name not in before or name not in now:
        return "-"
    return f"{(now[name] - before[name]) / seconds:,.0f}/s"


def _movers(before: dict[str, Any], now: dict[str, Any], seconds: float) -> list[str]:
    """Counters of drops and of what was wrong that have risen, the fastest first."""
    if before.get("incarnation") != now.get("incarnation"):
        return []
    old, new = before.get("counters", {}), now.get("counters", {})
    risen = {name: count - old.get(name, 0) for name, count in new.items() if "drop" in name or "bad" in name}
    fastest = sorted((item for item in risen.items() if item[1] > 0), key=lambda item: -item[1])
    return [f"{name} {count / seconds:,.1f}/s" for name, count in fastest[:_MOVERS_MAX]]


def page(before: Statuses, view: View, seconds: float) -> str:
    """One look as text: the table of the status, then each member's rates over ``seconds``."""
    lines = [f"{'healthy' if view.is_healthy else 'NOT HEALTHY'}, {time.strftime('%H:%M:%S')}", "", table(view), ""]
    for address, status in view.answered.items():
        old = before.get(address, {})
        rates = [f"applied {_rate('applied_index', old, status, seconds)}"]
        rates += _movers(old, status, seconds)
        lines.append(f"{address}  {', '.join(rates)}")
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    """Looks until Ctrl-C, or ``--count`` times; 0 when the last look showed a healthy cluster, else 1."""
    if not _PERIOD_MIN_S <= args.period < SECONDS_MAX or args.count < 0:
        raise UserError(
            f"--period is {args.period} and --count {args.count}: at least {_PERIOD_MIN_S}, and not below 0"
        )
    targets = targets_of(args)
    is_terminal = sys.stdout.isatty()
    before: Statuses = {}
    before_s = time.monotonic()
    looks = 0
    while True:
        view = look(targets, min(max(args.period, _ASK_MIN_S), _ASK_MAX_S))
        now_s = time.monotonic()
        text = page(before, view, max(now_s - before_s, 1e-3))
        print(f"{_HOME_AND_CLEAR}{text}" if is_terminal else f"{text}\n", flush=True)
        before, before_s = view.statuses, now_s
        looks += 1
        if looks == args.count:
            return 0 if view.is_healthy else 1
        time.sleep(args.period)
