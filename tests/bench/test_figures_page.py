"""The page of figures: tables from results between markers, and nothing that was not measured. And flame graphs."""

from __future__ import annotations

import argparse
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from benchmarks.figures.cases import FIGURES, half_rate
from benchmarks.figures.page import BEGIN, COLUMNS, END, draw, insert, page
from benchmarks.figures.run import Plan, command_of
from benchmarks.figures.special import SPECIAL
from benchmarks.flame import draw as draw_flames
from benchmarks.flame import fold
from r2p2.bench.command import add_arguments, bench_config

ROOT = Path(__file__).resolve().parents[2]


def result(label: str, **numbers: Any) -> dict[str, Any]:
    row = {"label": label, "command": f"r2p2 bench {label}", "throughput_rps": 1000.0, "p50_us": 5.0, "p99_us": 9.0}
    machine = {"cpu": "X", "cores": 2, "kernel": "6", "python": "3.11"}
    rows = [row | {"cpu_us": 2.5} | numbers]
    return {"figure": "x", "date": "2026-01-02", "commit": "abc", "runs": 5, "machine": machine, "rows": rows}


def test_tables_have_numbers_spread_and_commands() -> None:
    text = page({"uv": result("64", spread={"throughput_rps": [900.0, 1100.0]})})
    assert "| 64 | 1,000 (900..1,100) | 5 | 9 | 2.50 |" in text
    assert "r2p2 bench 64" in text and "Runs: 5; 2026-01-02, at abc; X." in text
    assert "### " + FIGURES[0].title not in text


def test_what_the_machine_took_away_is_beside_the_tail() -> None:
    pauses = [{"cpu": 1, "lost_ms_per_s": 4.25, "long_per_s": 2.0, "longest_ms": 3.5}]
    text = page({"half": result("half of it", pauses=pauses, p999_us=20.0)})
    assert (
        "- processor 1 at rest: taken away for 4.25 ms of a second, 2.0 times for 1 ms or longer, at most 3.5 ms"
        in text
    )


def test_a_case_that_failed_is_told_and_has_no_row() -> None:
    failed = result("64")
    failed["rows"] = [{"label": "64", "command": "r2p2 bench x", "error": "it broke"}]
    text = page({"uv": failed})
    assert "Not measured: 64: it broke" in text and "| 64 |" not in text


def test_the_page_is_put_between_its_markers_and_nowhere_else() -> None:
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = insert(document, "new")
    assert once == f"before\n{BEGIN}\n\nnew\n{END}\nafter\n"
    assert insert(once, "new") == once
    with pytest.raises(ValueError):
        insert("no markers", "new")
    insert((ROOT / "docs" / "performance.md").read_text(), "new")


def test_every_case_is_a_command_that_can_be_run() -> None:
    plan = Plan(5, 1.0, Path("nowhere"))
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    results = {"replicated": result("64")}
    for figure in FIGURES:
        assert set(figure.columns) <= set(COLUMNS)
        assert not figure.special or figure.special in SPECIAL
        cases = figure.derive(results) if figure.derive is not None else figure.cases
        assert cases or figure.special
        for case in cases:
            words = command_of(case, plan).split()
            assert words[:2] == ["r2p2", "bench"]
            bench_config(parser.parse_args(words[2:]))
    assert "--rate 500 " in half_rate(results)[0].arguments


@pytest.mark.needs("plot")
def test_a_sweep_is_drawn(tmp_path: Path) -> None:
    sweep = result("1")
    sweep["rows"] = [sweep["rows"][0] | {"label": label} for label in ("1", "3", "5", "7")]
    figure = next(figure for figure in FIGURES if figure.name == "scale")
    draw(figure, sweep, tmp_path / "a.svg")
    assert ET.fromstring((tmp_path / "a.svg").read_text()).tag.endswith("svg")


def test_code_without_symbols_is_one_frame_of_a_flame_graph() -> None:
    root = fold("all.py;0x7fdefee4524a (libc.so.6);work (a.py:2) 3\nall.py;0x55d0aa (libc.so.6) 2\n")
    (outer,) = root.below.values()
    assert {name: frame.samples for name, frame in outer.below.items()} == {"(libc.so.6)": 5}


def test_a_flame_graph_is_as_wide_as_its_samples() -> None:
    root = fold("main (a.py:1);work (a.py:2);memcpy <libc> 30\nmain (a.py:1);rest & more (b.py:9) 10\nnot a stack\n")
    assert root.samples == 40
    assert root.below["main (a.py:1)"].below["work (a.py:2)"].samples == 30
    picture = ET.fromstring(draw_flames(root, "a title"))
    titles = {title.text: group for group in picture.iter() for title in group if title.tag.endswith("title")}
    boxes = {name: float(group[1].get("width", "")) for name, group in titles.items()}
    assert boxes["all (100.0%)"] == pytest.approx(1200, abs=1)
    assert boxes["memcpy <libc> (75.0%)"] == pytest.approx(900, abs=1)
    assert boxes["rest & more (b.py:9) (25.0%)"] == pytest.approx(300, abs=1)
