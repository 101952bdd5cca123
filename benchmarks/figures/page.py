"""The generated part of docs/performance.md: tables from results, between two markers, and a picture for each sweep.

Pure but for the pictures. Nothing here has numbers of its own: a table that is not in the results is not on the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures.cases import FIGURES, Figure
from r2p2.bench.pauses import Pauses, pauses_text

__all__ = ["BEGIN", "END", "draw", "insert", "page", "section"]

BEGIN, END = "<!-- figures -->", "<!-- /figures -->"

# Column -> its head, and how a number is written.
COLUMNS: dict[str, tuple[str, str]] = {
    "throughput_rps": ("requests/s", ",.0f"),
    "p50_us": ("p50, us", ",.0f"),
    "p90_us": ("p90, us", ",.0f"),
    "p99_us": ("p99, us", ",.0f"),
    "p999_us": ("p99.9, us", ",.0f"),
    "cpu_us": ("processor time a request, us", ",.2f"),
    "generator_cpu_us": ("of the generator a request, us", ",.3f"),
    "generator_share": ("of a processor", ",.0%"),
    "mib_per_s": ("MiB/s", ",.0f"),
    "entries_per_fsync": ("entries an fsync", ",.0f"),
    "overhead_bytes": ("overhead an entry, bytes", ",.0f"),
    "rss_mib": ("resident, MiB", ",.0f"),
}


def _cell(row: Mapping[str, Any], column: str) -> str:
    if column not in row:
        return ""
    form = COLUMNS[column][1]
    text = format(row[column], form)
    ends = row.get("spread", {}).get(column)
    return f"{text} ({format(ends[0], form)}..{format(ends[1], form)})" if ends and ends[0] != ends[1] else text


def section(figure: Figure, result: Mapping[str, Any]) -> str:
    """One figure: title, text, table, commands."""
    lines = [f"### {figure.title}", "", figure.text, ""]
    rows: Sequence[Mapping[str, Any]] = result["rows"]
    good = [row for row in rows if "error" not in row]
    if good and "markdown" in good[0]:
        lines += [good[0]["markdown"], "", f"At {good[0]['throughput_rps']:,.0f} requests/s under the profiler.", ""]
        lines += [f"- {name}: {_sizes(sizes)}" for name, sizes in good[0]["batches"].items()]
    elif good:
        heads = [COLUMNS[column][0] for column in figure.columns]
        lines += [f"| {figure.x} | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
        lines += [f"| {row['label']} | {' | '.join(_cell(row, column) for column in figure.columns)} |" for row in good]
        if len(good) > 1 and not figure.x and figure.columns[0] == "throughput_rps" and not figure.special:
            best = max(good, key=lambda row: float(row["throughput_rps"]))
            lines += ["", f"Highest rate: {best['label']}, {best['throughput_rps']:,.0f} requests/s."]
    if good and (pauses := good[0].get("pauses")):
        lines += ["", *(f"- {line}" for line in pauses_text([Pauses(**found) for found in pauses]).splitlines())]
    if figure.x and good:
        lines += ["", f"![{figure.title}](figures/{figure.name}.svg)"]
    lines += [
        "",
        f"Runs: {result['runs']}; {result['date']}, at {result['commit']}; {result['machine']['cpu']}.",
        "",
        "```",
    ]
    lines += list(dict.fromkeys(row["command"] for row in rows))
    lines += ["```", ""]
    lines += [f"Not measured: {row['label']}: {row['error']}" for row in rows if "error" in row]
    return "\n".join(lines).rstrip() + "\n"


def _sizes(sizes: Mapping[str, float]) -> str:
    return ", ".join(f"{size:,.1f} {what}" for what, size in sizes.items())


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """All figures there are results of, in the page's order."""
    parts = []
    machines = {tuple(result["machine"].items()) for result in results.values()}
    for machine in sorted(machines):
        found = dict(machine)
        parts.append(
            f"Measured by `make figures` on {found['cores']} processors ({found['cpu']}), Linux {found['kernel']}, "
            f"CPython {found['python']}; servers and generator share them. Numbers are medians, with the least and the "
            "most of all runs in parentheses; each run starts its processes anew.\n"
        )
    parts += [section(figure, results[figure.name]) for figure in FIGURES if figure.name in results]
    return "\n".join(parts)


def insert(document: str, text: str) -> str:
    """The document with what is between the markers replaced. ValueError without them."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} ... {END} in it")
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}"


def draw(figure: Figure, result: Mapping[str, Any], path: Path) -> None:
    """Throughput, with its spread, and p99 where there is one, against a figure's x; into the SVG `path`."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Picture

    matplotlib.rcParams["svg.hashsalt"] = figure.name  # the same numbers give the same file
    rows = [row for row in result["rows"] if "error" not in row]
    at = [float(row["label"].replace(",", "")) for row in rows]
    rates = [row["throughput_rps"] / 1e3 for row in rows]
    ends = [row.get("spread", {}).get("throughput_rps", [row["throughput_rps"]] * 2) for row in rows]
    below = [max(0.0, rate - low / 1e3) for rate, (low, _) in zip(rates, ends, strict=True)]
    above = [max(0.0, high / 1e3 - rate) for rate, (_, high) in zip(rates, ends, strict=True)]
    picture = Picture(figsize=(7, 3.8), layout="constrained")
    FigureCanvasSVG(picture)
    axes = picture.subplots()
    axes.errorbar(at, rates, yerr=[below, above], fmt="o-", color="#1f5f99", capsize=3, label="requests/s")
    axes.set_ylim(bottom=0, top=1.15 * max(rate + up for rate, up in zip(rates, above, strict=True)))
    axes.set_xlabel(figure.x)
    axes.set_ylabel("thousand requests/s", color="#1f5f99")
    if max(at) / max(1.0, min(at)) > 20:
        axes.set_xscale("log")
    axes.set_xticks(at, [row["label"] for row in rows])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    if all("p99_us" in row for row in rows):
        right = axes.twinx()
        right.plot(at, [row["p99_us"] for row in rows], "s--", color="#d98c3f", linewidth=1, markersize=4)
        right.set_ylim(bottom=0)
        right.set_ylabel("p99 (us)", color="#d98c3f")
    axes.set_title(figure.title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, format="svg", metadata={"Date": None})
