"""The comparison of update schemes: its figures are those of the plans, its factors what they say."""

import json

import pytest
from click.testing import CliRunner

from edgec.tools.bench.schemes import SWITCHES, Row, factors, main


def test_factors_are_quotients_of_the_full_update() -> None:
    full = Row("full", 40, 8, 500, {"without tiling": 400} | dict.fromkeys(SWITCHES, 400), 6.0)
    one = Row("one", 20, 2, 300, {"all passes": 100, "without tiling": 200} | dict.fromkeys(SWITCHES, 300), 2.0)
    found = factors(full, one)
    assert found.pop("arena by sparsity") == 2 and found.pop("by tiling") == 2 and found.pop("by both") == 4
    assert found.pop("multiply-adds") == 2 and found.pop("time") == 3
    assert found == {"by order and in-place": 1.5, "by fusion": 1.5, "by small saved forms": 1.5}


@pytest.mark.long
def test_a_comparison_by_plans() -> None:
    done = CliRunner().invoke(main, ["--plan-only", "--json", "head"])
    assert done.exit_code == 0, done.output
    full, head = json.loads(done.stdout)
    assert (full["scheme"], head["scheme"]) == ("full", "head")
    assert 3.5 < full["arenas"]["without tiling"] / head["arenas"]["without tiling"]
    assert full["macs"] > 2.8 * head["macs"] and head["saved_activation_bytes"] < 1000
