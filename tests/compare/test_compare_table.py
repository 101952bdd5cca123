"""Medians, ratios and the page of the comparison."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.compare import run, table
from benchmarks.compare.measure import Load, Sample
from r2p2.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
OURS = {"dpdk": "R2P2 over memif"}


def row(system: str, category: str, setting: str, outstanding: int, *rates: float, p50_us: float = 100.0) -> table.Row:
    samples = tuple(Sample(rate, p50_us, 2 * p50_us, 1.5, 0.25) for rate in rates)
    return table.Row(system, OURS.get(system, system), category, setting, Load(outstanding), samples)


ROWS = [
    row("dpdk", "writes", "in memory", 1, 10_000, p50_us=50),
    row("dpdk", "writes", "in memory", 64, 600_000),
    row("dpdk", "writes", "in memory", 256, 900_000, 1_000_000, 800_000),
    row("dpdk", "writes", "files in memory", 256, 400_000),
    row("etcd", "writes", "files in memory", 1, 2_500, p50_us=400),
    row("etcd", "writes", "files in memory", 64, 15_000),
    row("etcd", "writes", "files in memory", 256, 20_000),
    row("etcd", "writes", "files in memory", 1024, 25_000),
]


def ratio_of(rows: list[table.Row], against: str) -> table.Ratio:
    return next(ratio for ratio in table.ratios(rows, OURS) if ratio.claim.against == against)


def test_the_median_of_the_rounds_counts() -> None:
    assert ROWS[2].rate_rps == 900_000


def test_ratios_at_each_load_and_best_to_best() -> None:
    ratio = ratio_of(ROWS, "etcd, files in memory; ours in memory")
    assert ratio.latency == 8
    assert ratio.rates == {64: 40, 256: 45}
    assert ratio.best == 36 and ratio.is_met


def test_the_same_setting_on_both_sides() -> None:
    ratio = ratio_of(ROWS, "etcd, files in memory; ours the same")
    assert ratio.rates == {64: None, 256: 20}
    assert ratio.latency is None and ratio.best == 16
    assert ratio.is_met is None  # no target is set


def test_a_target_that_is_missed_is_said_to_be() -> None:
    slow = [ROWS[1], row("etcd", "writes", "files in memory", 64, 20_001)]
    ratio = ratio_of(slow, "etcd, files in memory; ours in memory")
    assert ratio.is_met is False  # 29.998 is not rounded up
    assert "30: not met" in table.markdown(table.ratio_table([ratio]))


def test_the_best_of_their_settings_counts() -> None:
    rows = [
        row("dpdk", "echo", "batch handler", 64, 1_000_000),
        row("grpc", "echo", "asyncio", 64, 10_000),
        row("grpc", "echo", "threads", 64, 12_500),
    ]
    assert ratio_of(rows, "gRPC for Python, echo").rates[64] == 80


def test_without_the_other_side_there_is_no_ratio() -> None:
    assert table.ratios(ROWS[:4], OURS) == []


def test_the_table_of_a_category() -> None:
    head, first, second, etcd = table.category_table(ROWS, "writes")
    assert first[:2] == ["R2P2 over memif", "in memory"]
    cells = dict(zip(head, first, strict=True))
    assert cells["p50 at 1"] == "50 us" and cells["at 64"] == "600,000"
    assert cells["best rate"] == "900,000" and cells["its range"] == "800,000 to 1,000,000" and cells["at"] == "256"
    assert cells["cores"] == "1.50 + 0.25"
    assert second[2:4] == ["-", "-"]
    assert etcd[5:8] == ["25,000", "25,000 to 25,000", "1,024"]
    assert table.category_table(ROWS, "kv") == []


def names_of(system: str, category: str) -> set[str]:
    found = next(each for each in run.SYSTEMS if each.key == system)
    return {setting.name for setting in found.settings if setting.category == category}


def test_every_claim_is_about_settings_that_there_are() -> None:
    for claim in table.CLAIMS:
        for key in claim.theirs.systems:
            names = names_of(key, claim.theirs.category)
            assert names and set(claim.theirs.settings) <= names, claim
        for ours in run.OURS:
            names = names_of(ours.key, claim.ours_category)
            assert names and set(claim.ours_settings) <= names, claim


def test_every_system_is_measured_at_1_64_and_256() -> None:
    for system in run.SYSTEMS:
        for category in {setting.category for setting in system.settings} - {"inside"}:
            settings = [setting for setting in system.settings if setting.category == category]
            loads = {load.outstanding for setting in settings for load in setting.loads}
            assert loads >= {1, 64, 256}, (system.key, category)


def test_a_page_keeps_all_but_what_is_between_its_markers() -> None:
    text = f"before\n{table.BEGIN}\n\nold\n\n{table.END}\nafter\n"
    page = table.insert(text, "new")
    assert page == f"before\n{table.BEGIN}\n\nnew\n\n{table.END}\nafter\n"
    assert table.insert(page, "new") == page


@pytest.mark.parametrize("text", ["", table.BEGIN, f"{table.END}{table.BEGIN}", f"{table.BEGIN * 2}{table.END}"])
def test_a_page_without_its_markers_is_left_alone(text: str) -> None:
    with pytest.raises(UserError, match="the page has not one"):
        table.insert(text, "new")


def test_the_page_has_a_table_for_each_category_that_was_measured() -> None:
    text = table.page(ROWS, table.ratios(ROWS, OURS), ["Measured."])
    assert text.startswith("Measured.\n\n### Ratios\n")
    assert table.CATEGORIES["writes"] in text and table.CATEGORIES["kv"] not in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {8, 10}


def test_the_pages_markers_are_in_the_docs() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    assert re.search(re.escape(table.BEGIN) + ".*" + re.escape(table.END), text, re.DOTALL)


def test_json_has_every_sample() -> None:
    result = ROWS[2].to_json()
    assert result["rate_rps"] == 900_000
    assert [sample["rate_rps"] for sample in result["samples"]] == [900_000, 1_000_000, 800_000]
    assert result["load"] == {"outstanding": 256, "connections": 1}


def test_ours_is_measured_unless_told_otherwise_and_unknown_systems_are_named() -> None:
    assert [system.key for system in run.chosen("etcd")] == ["dpdk", "uv", "etcd"]
    assert [system.key for system in run.chosen("etcd", with_ours=False)] == ["etcd"]
    everything = {system.key for system in run.chosen("")}
    assert everything - {system.key for system in run.chosen("", with_ours=False)} == {"dpdk", "uv"}
    with pytest.raises(UserError, match="no system zookeeper"):
        run.chosen("zookeeper")
