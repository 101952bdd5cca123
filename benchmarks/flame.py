"""Flame graphs of each process of a benchmark: ``make flame``, or ``python benchmarks/flame.py [-- BENCH ARGUMENTS]``.

py-spy samples each process in the middle of the run and names Python's functions; with ``--native`` it also unwinds the
frames of C below them, where it can. (perf alone cannot: CPython has its perf trampoline from 3.12 on.) What it folds
is drawn here as SVG: width is time, a box stands on who called it, the whole name is in the box's title.

py-spy is no dependency of the project: it is installed into the folder ``--tools`` when this is called.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from r2p2.bench.command import add_arguments, bench_config, say
from r2p2.bench.measure import measure

PY_SPY = "py-spy==0.4.3"
RATE_HZ = 200
WIDTH, ROW, LEAST = 1200.0, 17, 0.4  # pixels: of the picture, of a row, of the narrowest box drawn
_NO_SYMBOL = re.compile(r"0x[0-9a-f]+ \(([^)]*)\)")
DEFAULT = ["replicated", "--backend", "dpdk", "--outstanding", "512", "--duration", "4", "--sessions", "1"]


@dataclass(slots=True)
class Frame:
    """One function below those that called it; `samples` of it and of all it called."""

    name: str
    samples: int = 0
    below: dict[str, Frame] = field(default_factory=dict)

    def add(self, names: list[str], samples: int) -> None:
        """A stack, outermost first."""
        self.samples += samples
        frame = self
        for name in names:
            frame = frame.below.setdefault(name, Frame(name))
            frame.samples += samples

    @property
    def depth(self) -> int:
        """Rows of it."""
        return 1 + max((frame.depth for frame in self.below.values()), default=0)


def fold(text: str) -> Frame:
    """From lines ``outermost;...;innermost COUNT``."""
    root = Frame("all")
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        if stack and count.isdigit():
            # An address without a symbol is another one in each process: what can be said is whose code it is.
            root.add(_NO_SYMBOL.sub(r"(\1)", stack).split(";"), int(count))
    return root


def _colour(name: str) -> str:
    """Python's frames warm, those of C cold; the same name always the same."""
    shade = sum(map(ord, name)) % 40
    is_python = ".py" in name
    return (
        f"rgb({225 - shade},{130 + shade},60)" if is_python else f"rgb({90 + shade},{140 + shade},{200 - shade // 2})"
    )


def _boxes(frame: Frame, left: float, row: int, height: int, scale: float, total: int) -> Iterator[str]:
    width = frame.samples * scale
    if width < LEAST:
        return
    top = height - (row + 1) * ROW
    text = f"{frame.name} ({frame.samples / total:.1%})"
    yield f"<g><title>{escape(text)}</title>"
    yield (
        f'<rect x="{left:.1f}" y="{top}" width="{max(width - 0.5, 0.3):.1f}" height="{ROW - 1}" '
        f"fill={quoteattr(_colour(frame.name))}/>"
    )
    letters = int(width / 6.6)
    if letters > 3:
        shown = frame.name if len(frame.name) <= letters else frame.name[: letters - 1] + "…"
        yield f'<text x="{left + 3:.1f}" y="{top + 12}">{escape(shown)}</text>'
    yield "</g>"
    for below in sorted(frame.below.values(), key=lambda each: each.name):
        yield from _boxes(below, left, row + 1, height, scale, total)
        left += below.samples * scale


def draw(root: Frame, title: str) -> str:
    """The SVG."""
    height = (root.depth + 2) * ROW
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height}" width="{WIDTH:.0f}" '
        f'height="{height}" font-family="monospace" font-size="11"><rect width="100%" height="100%" fill="#fffdf7"/>'
        f'<text x="6" y="13" font-size="13">{escape(title)}: {root.samples:,} samples</text>'
    )
    scale = WIDTH / max(1, root.samples)
    return "\n".join([head, *_boxes(root, 0.0, 0, height, scale, max(1, root.samples)), "</svg>"]) + "\n"


def need_py_spy(folder: Path) -> Path:
    """The command, installed into `folder` where it is not there yet."""
    command = folder / "bin" / "py-spy"
    if not command.exists():
        say(f"installing {PY_SPY} into {folder}")
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", str(folder), PY_SPY], check=True)
    return command


@contextmanager
def sampled(command: Path, pids: Mapping[str, int], seconds: int, folder: Path, native: bool) -> Iterator[None]:
    """Every process has its sampler meanwhile, which ends by itself after `seconds`."""
    options = ["-f", "raw", "-r", str(RATE_HZ), "-d", str(seconds), *(["--native"] if native else [])]
    samplers = {
        name: subprocess.Popen(
            [str(command), "record", *options, "-p", str(pid), "-o", str(folder / f"{name}.folded")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, pid in pids.items()
    }
    yield
    for name, sampler in samplers.items():
        _, said = sampler.communicate(timeout=60)
        if sampler.returncode:
            say(f"py-spy of {name} ended with {sampler.returncode}: {said.strip()}")


def main() -> int:
    """0 when every process has its graph."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=Path("out/flame"), help="the folder of the SVGs")
    parser.add_argument("--tools", type=Path, default=Path("out/tools"), help="where py-spy is installed")
    parser.add_argument("--python-only", action="store_true", help="without the frames of C")
    parser.add_argument("bench", nargs="*", help="arguments of r2p2 bench, after --")
    args = parser.parse_args()
    bench = argparse.ArgumentParser()
    add_arguments(bench)
    config = bench_config(bench.parse_args(args.bench or DEFAULT))
    command = need_py_spy(args.tools)
    args.out.mkdir(parents=True, exist_ok=True)
    for old in args.out.glob("*.folded"):
        old.unlink()
    seconds = max(1, int(config.duration_s) - 1)
    result = measure(config, None, say, lambda pids: sampled(command, pids, seconds, args.out, not args.python_only))
    print(result.text())
    drawn = 0
    for folded in sorted(args.out.glob("*.folded")):
        target = folded.with_suffix(".svg")
        root = fold(folded.read_text())
        target.write_text(draw(root, f"{folded.stem}, {result.what} over {result.backend}"))
        print(f"{os.fspath(target)}: {root.samples} samples")
        drawn += root.samples > 0
    return 0 if drawn == len(result.cpu_s) else 1


if __name__ == "__main__":
    sys.exit(main())
