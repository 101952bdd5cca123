"""Runs the cases of a figure and keeps what came of them as JSON: ``benchmarks/results/NAME.json``."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures.cases import FIGURES, Case, Figure
from benchmarks.figures.special import SPECIAL, Effort
from r2p2.bench.measure import machine
from r2p2.errors import UserError

__all__ = ["Plan", "run_figure", "write_atomically"]

ROOT = Path(__file__).resolve().parents[2]
SECONDS_MIN = 0.4
FAILURE_LINES = 16
SECONDS_MAX = 120.0  # a run beyond its measured time: starting, an election, reading back
# Of a run's JSON, what is kept; histograms and timelines would be most of the file.
LEFT_OUT = ("histogram", "timeline", "machine", "pauses")


@dataclass(frozen=True, slots=True)
class Plan:
    """How thoroughly: runs of each case, a factor on the seconds of each, and where results go."""

    runs: int
    factor: float
    results: Path
    memory_seconds: float = 60.0

    def load(self) -> dict[str, Any]:
        """Figure name -> its results, as far as they are there."""
        paths = {figure.name: self.results / f"{figure.name}.json" for figure in FIGURES}
        return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def command_of(case: Case, plan: Plan) -> str:
    """What is run and printed beside its row."""
    seconds, warmup = max(SECONDS_MIN, case.seconds * plan.factor), max(SECONDS_MIN, case.warmup * plan.factor)
    repeat = f" --repeat {plan.runs}" if plan.runs > 1 else ""
    return f"r2p2 bench {case.arguments} --duration {seconds:g} --warmup {warmup:g}{repeat}"


def run_case(case: Case, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """One row: the case's medians and spreads, or its error."""
    command = command_of(case, plan)
    words = shlex.split(command)[1:]
    with tempfile.TemporaryDirectory(prefix="r2p2-figures-") as folder:
        path = Path(folder) / "run.json"
        argv = [sys.executable, "-m", "r2p2", *words, "--json", str(path)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        try:
            done = subprocess.run(
                argv,
                capture_output=True,
                text=True,
                cwd=ROOT,
                env=environment,
                check=False,
                timeout=plan.runs * (case.seconds + case.warmup + SECONDS_MAX),
            )
        except subprocess.TimeoutExpired:
            return {"label": case.label, "command": command, "error": "did not end"}
        if done.returncode or not path.exists():
            lines = [*done.stderr.splitlines(), *done.stdout.splitlines()]
            errors = [line for line in lines if "error" in line or "NOT " in line or "not answered" in line]
            error = "; ".join(errors or lines[-1:]) or f"exit code {done.returncode}"
            say(f"    {case.label}: FAILED: {error}")
            for line in lines[-FAILURE_LINES:]:  # with the end of the log of the process that failed
                say(f"      | {line}")
            return {"label": case.label, "command": command, "error": error}
        report = json.loads(path.read_text())
    return {"label": case.label, "command": command, **_row(report)}


def _row(report: Mapping[str, Any]) -> dict[str, Any]:
    reports = report.get("runs", [report])
    runs = [{name: value for name, value in run.items() if name not in LEFT_OUT} for run in reports]
    middle = sorted(runs, key=lambda run: float(run["throughput_rps"]))[(len(runs) - 1) // 2]
    names = ("throughput_rps", "p50_us", "p90_us", "p99_us", "p999_us", "generator_share")
    row: dict[str, Any] = {name: report[name] for name in names}
    row["cpu_us"] = round(sum(middle["cpu_us_per_request"].values()), 3)
    row["generator_cpu_us"] = middle["cpu_us_per_request"].get("generator", 0.0)
    row["mib_per_s"] = round(row["throughput_rps"] * middle["size"] / 2**20, 1)
    syncs = [sizes["entries an fsync"] for sizes in middle["batches"].values() if "entries an fsync" in sizes]
    if syncs:
        row["entries_per_fsync"] = max(syncs)
    if reports[0].get("pauses"):
        row["pauses"] = reports[0]["pauses"]
    row["spread"] = report.get("spread", {})
    row["batches"] = middle["batches"]
    row["runs"] = runs
    return row


def run_figure(figure: Figure, plan: Plan, say: Callable[[str], None]) -> bool:
    """Runs it and writes its JSON; whether nothing failed. UserError when it needs a figure that is not there."""
    began = time.monotonic()
    say(f"{figure.name}: {figure.title}")
    if figure.special:
        try:
            rows = SPECIAL[figure.special](Effort(2.0 * plan.factor, plan.runs, plan.memory_seconds))
        except UserError as error:
            rows = [{"label": figure.title, "command": figure.special, "error": error.message}]
            say(f"    FAILED: {error.message}")
    else:
        cases = figure.cases
        if figure.derive is not None:
            cases = figure.derive(plan.load())
        rows = []
        for case in cases:
            rows.append(run_case(case, plan, say))
            if "error" in rows[-1]:  # a launch can fail on a busy machine; what fails twice is told
                rows[-1] = run_case(case, plan, say)
            if "error" not in rows[-1]:
                row = rows[-1]
                say(
                    f"    {case.label:<40} {row['throughput_rps']:>12,.0f}/s   p50 {row['p50_us']:>8,.0f} us   "
                    f"p99 {row['p99_us']:>8,.0f} us"
                )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False
    ).stdout.strip()
    kept = {
        "figure": figure.name,
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit,
        "runs": plan.runs,
        "machine": machine(),
        "rows": rows,
    }
    write_atomically(plan.results / f"{figure.name}.json", json.dumps(kept, indent=1) + "\n")
    say(f"    {time.monotonic() - began:.0f} s")
    return not any("error" in row for row in rows)


def write_atomically(path: Path, text: str) -> None:
    """The whole file or the one that was there. UserError when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        new.write_text(text)
        new.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}") from error
