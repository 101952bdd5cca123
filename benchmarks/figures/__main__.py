"""Runs figures and writes the page: ``python -m benchmarks.figures [--only NAME,...] [--quick]``, ``make figures``.

The whole takes about twenty minutes on an idle machine. ``--quick`` makes each run a fraction of a second, once, to
see that all of it works; it writes into out/figures-quick and leaves results and the page alone. ``--page`` writes the
page from the results that are there.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.figures.cases import FIGURES
from benchmarks.figures.page import draw, insert, page
from benchmarks.figures.run import ROOT, Plan, run_figure, write_atomically
from r2p2.errors import UserError

NAMES = [figure.name for figure in FIGURES]
QUICK_FACTOR = 0.1


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def write_page(plan: Plan, document: Path, pictures: Path) -> None:
    """The tables into the document, the pictures beside it."""
    results = plan.load()
    write_atomically(document, insert(document.read_text(), page(results)))
    for figure in FIGURES:
        if figure.x and any("error" not in row for row in results.get(figure.name, {}).get("rows", ())):
            draw(figure, results[figure.name], pictures / f"{figure.name}.svg")


def main() -> int:
    """0 when nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures", description=__doc__)
    parser.add_argument("--only", default="", metavar="NAME,...", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="a fraction of a second each, into out/figures-quick")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="of each case")
    parser.add_argument(
        "--memory-seconds", type=float, default=60.0, metavar="S", help="of load while memory is watched"
    )
    parser.add_argument("--page", action="store_true", help="run nothing, write the page")
    args = parser.parse_args()
    wanted = [name for name in args.only.split(",") if name] or NAMES
    unknown = [name for name in wanted if name not in NAMES]
    if unknown or args.runs < 1 or args.memory_seconds <= 0:
        parser.error(f"no figure {unknown[0]!r}" if unknown else "--runs at least 1, --memory-seconds above 0")
    document, pictures = ROOT / "docs" / "performance.md", ROOT / "docs" / "figures"
    plan = Plan(args.runs, 1.0, ROOT / "benchmarks" / "results", args.memory_seconds)
    if args.quick:
        folder = ROOT / "out" / "figures-quick"
        plan = Plan(1, QUICK_FACTOR, folder / "results", 2.0)
        page_there = folder / "performance.md"
        write_atomically(page_there, document.read_text())
        document, pictures = page_there, folder / "figures"
    (ROOT / "out").mkdir(exist_ok=True)  # durable members write there
    began, failed = time.monotonic(), []
    for figure in FIGURES if not args.page else ():
        if figure.name not in wanted:
            continue
        try:
            is_good = run_figure(figure, plan, say)
        except (UserError, KeyError, ValueError) as error:
            say(f"    FAILED: {error!r}")
            is_good = False
        if not is_good:
            failed.append(figure.name)
        write_page(plan, document, pictures)  # what has been measured is kept, whatever comes next
    write_page(plan, document, pictures)
    say(f"{time.monotonic() - began:.0f} s; {document}" + (f"; FAILED: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
