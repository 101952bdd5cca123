"""``make compare``: everything in turn, some rounds, medians, a table of ratios, the page.

In each round every setting of every system is started, measured under its loads and ended before the next one begins,
so whatever changes on the machine meanwhile changes for all. Only processes of this program are used, on addresses of
their own in 127.0.0.0/8; they end with it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.compare import etcd, grpc_python, kv_stores, ours, plain_sockets, pysyncobj_store, table
from benchmarks.compare.measure import ROOT, Load, Sample, Setting, Stage, System, Times, fresh_folder
from r2p2.bench.measure import machine
from r2p2.errors import UserError
from r2p2.ports import missing as missing_backend
from r2p2.processes import ProcessFailed, Supervisor

OURS = (ours.MEMIF, ours.UDP)
SYSTEMS: tuple[System, ...] = (
    *OURS,
    etcd.SYSTEM,
    pysyncobj_store.SYSTEM,
    grpc_python.SYSTEM,
    plain_sockets.ASYNCIO,
    plain_sockets.UVLOOP,
    kv_stores.REDIS,
    kv_stores.MEMCACHED,
)
VENV = ROOT / ".venv-compare"
PAGE = ROOT / "docs" / "performance.md"
SETUP = "sh tools/compare_setup.sh"
FULL, QUICK = Times(0.3, 1.0), Times(0.2, 0.4)

ATTEMPTS_MAX = 2  # to measure a setting in a round

Key = tuple[str, str, str, Load]


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make compare", description=__doc__.partition("\n")[0] if __doc__ else "")
    keys = ", ".join(system.key for system in SYSTEMS)
    parser.add_argument("--only", metavar="KEY,...", default="", help=f"these and ours: {keys}")
    parser.add_argument("--without-ours", action="store_true", help="only what is compared: no ratios")
    parser.add_argument("--category", metavar="NAME,...", default="", help=", ".join(table.CATEGORIES))
    parser.add_argument("--quick", action="store_true", help="one round of half seconds: whether all works")
    parser.add_argument("--repeat", type=int, default=0, metavar="N", help="rounds (default: 3)")
    parser.add_argument("--seconds", type=float, default=0.0, metavar="S", help="measured, for each load")
    parser.add_argument("--json", type=Path, default=ROOT / "out" / "compare.json", metavar="FILE")
    parser.add_argument("--disk", type=Path, default=ROOT / "out", metavar="DIR", help="on the disk to be measured")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep what the processes print")
    parser.add_argument(
        "--write",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="write the tables into docs/performance.md; by default when all was measured in all rounds",
    )
    args = parser.parse_args(argv)
    if args.repeat < 0 or args.seconds < 0:
        raise UserError("--repeat and --seconds are at least 1 and above 0")
    return args


def chosen(only: str, *, with_ours: bool = True) -> list[System]:
    """The systems to measure. UserError for a key that there is not."""
    keys = [word for word in only.split(",") if word]
    known = {system.key for system in SYSTEMS}
    if unknown := [word for word in keys if word not in known]:
        raise UserError(f"no system {', '.join(unknown)}", f"There are: {', '.join(sorted(known))}")
    ours_keys = {system.key for system in OURS}
    wanted = set(keys or known) | ours_keys if with_ours else set(keys or known) - ours_keys
    return [system for system in SYSTEMS if system.key in wanted]


def lacking(systems: Sequence[System], python: Path) -> list[str]:
    """Programs and modules that are not installed."""
    programs = {program for system in systems for program in system.programs if not shutil.which(program)}
    modules = sorted({module for system in systems for module in system.modules})
    if not python.exists():
        return [*sorted(programs), str(python.relative_to(ROOT))]
    test = f"from importlib.util import find_spec\nprint(*[m for m in {modules!r} if not find_spec(m)])"
    found = subprocess.run([str(python), "-c", test], capture_output=True, text=True, check=True).stdout.split()
    return [*sorted(programs), *found]


def available(systems: Sequence[System]) -> list[System]:
    """Without those of ours whose backend is not here. UserError when what is compared is not installed."""
    here = []
    for system in systems:
        reason = missing_backend(system.backend) if system.backend else None
        if reason is None:
            here.append(system)
        else:
            say(f"without {system.title}: {reason}")
    if absent := lacking(here, VENV / "bin" / "python"):
        raise UserError(
            f"not installed: {', '.join(absent)}", f"{SETUP} installs it (as root); or leave it out with --only KEY,..."
        )
    return here


@contextmanager
def stage_folders(args: argparse.Namespace) -> Iterator[tuple[Path, Path, Path]]:
    """For logs and sockets, for files in memory, for files on disk; all gone afterwards, but for --logs."""
    args.disk.mkdir(parents=True, exist_ok=True)
    shm = Path("/dev/shm")
    with ExitStack() as stack:
        memory = stack.enter_context(fresh_folder(shm if shm.is_dir() else Path(tempfile.gettempdir()), "r2p2-compare"))
        disk = stack.enter_context(fresh_folder(args.disk.resolve(), "r2p2-compare"))
        yield Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="r2p2-compare-"))), memory, disk


def compile_client(folder: Path) -> Path:
    """The TCP client. UserError without a compiler."""
    source, program = Path(__file__).with_name("tcp_load.c"), folder / "tcp_load"
    command = [*shlex.split(os.environ.get("CC", "gcc")), "-std=gnu11", "-O2", "-o", str(program), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"the TCP client does not compile: {done.stderr}")
    return program


def measure_round(
    systems: Sequence[System], categories: Sequence[str], stage: Stage, times: Times, logs: Path
) -> Iterator[tuple[System, Setting, Load, Sample | ProcessFailed]]:
    """Each load of each setting, in turn. A setting that fails is started anew once, for what is left of its loads."""
    for system in systems:
        for index, setting in enumerate(system.settings):
            left = list(setting.loads) if setting.category in categories else []
            for attempt in range(ATTEMPTS_MAX):
                if not left:
                    break
                supervisor = Supervisor(logs / f"{system.key}-{index}-{attempt}")
                try:
                    with supervisor, setting.start(replace(stage, supervisor=supervisor)) as measure:
                        while left:
                            sample = measure(left[0], times)
                            yield system, setting, left.pop(0), sample
                except ProcessFailed as error:
                    yield system, setting, left[0] if left else setting.loads[-1], error


def progress(number: int, system: System, setting: Setting, load: Load, sample: Sample) -> str:
    """A line for a sample."""
    client = "" if sample.client_cores is None else f", the client {sample.client_cores:.2f}"
    failed = f"   {sample.failed:,} FAILED" if sample.failed else ""
    name = f"{system.title}, {setting.name}"
    return (
        f"{number}  {name:<46} {load.outstanding:>5} outstanding {sample.rate_rps:>10,.0f}/s"
        f"   p50 {sample.p50_us:>8,.0f} us   servers {sample.server_cores:.2f} cores{client}{failed}"
    )


def versions(systems: Sequence[System]) -> list[str]:
    """Of what is compared, as each says it itself."""
    commands = {
        "etcd": ["etcd", "--version"],
        "h2load": ["h2load", "--version"],
        "redis-server": ["redis-server", "--version"],
        "memcached": ["memcached", "-V"],
    }
    programs = {program for system in systems for program in system.programs}
    found = []
    for program, command in commands.items():
        if program in programs:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            found.append(first_version(program, done.stdout))
    packages = {"grpc": "grpcio", "pysyncobj": "pysyncobj", "uvloop": "uvloop"}
    names = [packages[module] for system in systems for module in system.modules]
    show = "import sys, importlib.metadata as m\nprint(*[f'{n} {m.version(n)}' for n in sys.argv[1:]], sep='\\n')"
    done = subprocess.run(
        [str(VENV / "bin" / "python"), "-c", show, *names], capture_output=True, text=True, check=True
    )
    return found + [line for line in done.stdout.splitlines() if line]


def first_version(program: str, text: str) -> str:
    """``PROGRAM VERSION`` from what it prints for --version."""
    words = text.replace("v=", "").split()
    numbers = (word.rpartition("/")[2] for word in words if any(c.isdigit() for c in word) and "." in word)
    return f"{program} {next(numbers, '?')}"


def about(args: argparse.Namespace, times: Times, rounds: int, systems: Sequence[System]) -> list[str]:
    """What the page says above the figures."""
    host = machine()
    return [
        f"Measured on {time.strftime('%Y-%m-%d')} with `make compare`: {rounds} rounds, {times.measure_s:g} s for each",
        f"figure after {times.warmup_s:g} s of warm-up; {host['cores']} cores ({host['cpu']}), Python {host['python']}",
        f"and kernel {host['kernel']}, load average {os.getloadavg()[0]:.1f} beforehand.",
        f"Versions: {'; '.join(versions(systems)) or 'of Python alone'}.",
    ]


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def compare(args: argparse.Namespace) -> int:
    """Measures, prints, writes; 1 when something failed."""
    systems = available(chosen(args.only, with_ours=not args.without_ours))
    categories = [word for word in args.category.split(",") if word] or list(table.CATEGORIES)
    if unknown := set(categories) - table.CATEGORIES.keys():
        raise UserError(f"no category {', '.join(unknown)}", f"There are: {', '.join(table.CATEGORIES)}")
    times = QUICK if args.quick else FULL
    if args.seconds:
        times = replace(times, measure_s=args.seconds)
    rounds = args.repeat or (1 if args.quick else 3)
    is_full = not (args.quick or args.only or args.category or args.without_ours)
    samples: dict[Key, list[Sample]] = {}
    titles = {system.key: system.title for system in systems}
    failures: list[str] = []
    intro = about(args, times, rounds, systems)  # before any load
    with stage_folders(args) as (folder, memory, disk):
        pid = os.getpid()
        stage = Stage(
            supervisor=Supervisor(folder),
            folder=folder,
            memory=memory,
            disk=disk,
            python=VENV / "bin" / "python",
            our_python=Path(sys.executable),
            tcp_load=compile_client(folder),
            prefix=f"127.{192 + pid // 256 % 32}.{pid % 256}",
        )
        for number in range(1, rounds + 1):
            logs = (args.logs or folder / "logs") / f"round{number}"
            for system, setting, load, sample in measure_round(systems, categories, stage, times, logs):
                if isinstance(sample, ProcessFailed):
                    failures.append(f"{system.title}, {setting.name}, {load.outstanding} outstanding, round {number}")
                    say(f"FAILED {failures[-1]}: {sample}")
                    continue
                samples.setdefault((system.key, setting.category, setting.name, load), []).append(sample)
                say(progress(number, system, setting, load, sample))
    rows = [
        table.Row(key, titles[key], category, name, load, tuple(found))
        for (key, category, name, load), found in samples.items()
    ]
    found = table.ratios(rows, {system.key: system.title for system in OURS})
    show(rows, found, intro)
    write_json(args.json, rows, found, intro, failures)
    if absent := unmeasured(systems, categories, samples, rounds):
        say(f"not measured in every round: {'; '.join(absent)} (--logs DIR keeps what was printed)")
    if args.write or (args.write is None and is_full and not absent):
        PAGE.write_text(table.insert(PAGE.read_text(), table.page(rows, found, intro)))
        say(f"written: {PAGE.relative_to(ROOT)}")
    return 1 if absent else 0


def unmeasured(
    systems: Sequence[System], categories: Sequence[str], samples: Mapping[Key, Sequence[Sample]], rounds: int
) -> list[str]:
    """The settings and loads that lack a sample of some round."""
    return [
        f"{system.title}, {setting.name}, {load.outstanding} outstanding"
        for system in systems
        for setting in system.settings
        if setting.category in categories
        for load in setting.loads
        if len(samples.get((system.key, setting.category, setting.name, load), ())) < rounds
    ]


def show(rows: Sequence[table.Row], found: Sequence[table.Ratio], intro: Sequence[str]) -> None:
    """The tables on standard output."""
    print("\n".join(intro))
    for category, title in table.CATEGORIES.items():
        if lines := table.category_table(rows, category):
            print(f"\n{title}\n{table.text_table(lines)}")
    print(f"\nRatios\n{table.text_table(table.ratio_table(found))}")


def write_json(
    path: Path, rows: Sequence[table.Row], found: Sequence[table.Ratio], intro: Sequence[str], failures: Sequence[str]
) -> None:
    """Every sample, and the ratios. UserError when the file cannot be written."""
    result = {
        "about": " ".join(intro),
        "machine": machine(),
        "platform": platform.platform(),
        "rows": [row.to_json() for row in rows],
        "ratios": [
            {
                "against": ratio.claim.against,
                "ours": ratio.ours,
                "p50_at_1": ratio.latency,
                "rates": dict(ratio.rates),
                "best": ratio.best,
                "target": ratio.claim.target or None,
                "met": ratio.is_met,
            }
            for ratio in found
        ],
        "failures": list(failures),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"the results cannot be written: {error}") from error
    say(f"written: {path}")


def main(argv: Sequence[str]) -> int:
    """The command; its exit code."""
    # A shell has its background jobs, and whatever they start, ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return compare(arguments(argv))
