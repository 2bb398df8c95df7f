"""The comparison of update schemes: both sides of a row follow one policy, and its figures are those of the plans."""

import json

import pytest
from click.testing import CliRunner

from edgec.tools.bench import spam_schemes
from edgec.tools.bench.compare import Timing
from edgec.tools.bench.schemes import COLUMNS, POLICIES, Row, main, rendered
from edgec.tools.bench.table import Table


def test_cells_stand_under_their_titles() -> None:
    table = Table(("", "5"), ("KB", ",.0f"), ("kept for later", ".1%"))
    assert table.head() == "|       |       KB | kept for later |\n|---|---|---|"
    assert table.row("a", 1234.4, None) == "| a     |    1,234 |                |"


def test_a_row_says_how_many_times_less_and_faster() -> None:
    row = Row("all", (400_000, 100_000), (0.0, 0.05), (Timing(6.0, 0.1), Timing(2.0, 0.2)))
    cells = [cell.strip() for cell in rendered(row).split("|")[1:-1]]
    assert cells == ["all", "400", "0.0%", "100", "5.0%", "4.00", "6.00 (0.10)", "2.00 (0.20)", "3.00"]
    assert rendered(row).count("|") == COLUMNS.head().split("\n")[0].count("|")


def test_policies_come_one_on_top_of_the_other() -> None:
    assert all(after.skip <= before.skip for before, after in zip(POLICIES, POLICIES[1:], strict=False))
    assert POLICIES[-1].skip == frozenset()


@pytest.mark.long
def test_a_comparison_by_plans() -> None:
    done = CliRunner().invoke(main, ["--plan-only", "--json", "head"])
    assert done.exit_code == 0, done.output
    table = json.loads(done.stdout)
    ratios = {row["policy"]: row["arenas"][0] / row["arenas"][1] for row in table}
    assert ratios["+ small saved forms"] > 3.5
    assert all(max(row["twice"]) <= policy.twice for row, policy in zip(table, POLICIES, strict=True))
    assert all(ratio > 6.5 for policy, ratio in ratios.items() if "twice" in policy)


def test_parts_of_torchs_step_are_of_what_neighbours_disturb_least() -> None:
    ours, theirs = Timing(9.0, 1.0, least_ms=4.0, cpu_ms=3.0), Timing(9.0, 1.0, least_ms=8.0, cpu_ms=12.0)
    row = spam_schemes.Row("lora", 0.9, 2_000_000)
    for threads in (1, 2):
        row = spam_schemes._with(row, threads, ours, theirs)
    assert row.parts == {1: 0.25, 2: 0.5}
    cells = [cell.strip() for cell in spam_schemes.rendered(row).split("|")[1:-1]]
    assert cells == ["lora", "90.0%", "", "", "2.0", "9 (1)", "0.25", "9 (1)", "0.50"]
