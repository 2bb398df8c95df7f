"""What is shipped was found twice: a record is kept where it wins again, in every model that poses its problem."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgec.backends.targets import find_target
from edgec.backends.tvm.tuning.choice import Record
from edgec.backends.tvm.tuning.database import read_records, write_records
from edgec.tools.bench import shipped
from edgec.tools.bench.rows import Row
from edgec.tools.tune import measure
from edgec.tools.tune.race import Outcome

OTHER, OLD = "product f32 avx512 rows:1", "product f32 avx2 rows:1"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    rows = [Row("train", "small_cnn", "train", 1, 1), Row("infer", "small_cnn", "infer", 1, 1)]
    monkeypatch.setattr(shipped, "TUNED", rows)
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "shipped.json")
    monkeypatch.setattr(shipped, "second_cache", lambda: 0)  # no cache here is larger than elsewhere
    write_records(tmp_path / "shipped.json", dict.fromkeys((OTHER, OLD), Record({"rows": 6}, 1.1)), "")
    return tmp_path


def command(*words: str) -> None:
    result = CliRunner().invoke(shipped.main, [*words, "--target", "x86-64-v3"], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_what_wins_again_everywhere_is_shipped(folder: Path, monkeypatch):
    monkeypatch.setattr(measure, "run_ways", lambda ways, *_: Outcome(len(ways) - 1, 1.2, 1e-4))
    command("tune", str(folder))
    found = read_records(folder / "x86-64-v3.json")
    winners = {key for key, record in found.items() if record.parameters}
    assert len(winners) > 5
    # The first that is asked again gains less than before, others more; the second does not win.
    gains = iter([1.1, 1.0])

    def again(ways, *_):
        gain = next(gains, 1.5)
        return Outcome(int(gain > 1), gain, 1e-4)

    monkeypatch.setattr(measure, "run_ways", again)
    command("confirm", str(folder))
    kept = read_records(folder / "shipped.json")
    assert OTHER in kept and OLD not in kept  # other instruction sets are left as they are
    ours = {key: record for key, record in kept.items() if key != OTHER}
    assert len(ours) == len(winners) - 1 and ours.keys() < winners
    assert sorted({record.gain for record in ours.values()}) == [1.1, 1.2]
    assert all(record.parameters == found[key].parameters for key, record in ours.items())


@pytest.mark.parametrize(
    ("winner", "larger"), [({"rows": 5, "block_rows": 384}, True), ({"rows": 5, "block_rows": 96}, False)]
)
def test_larger_blocks_are_told_from_other_gains(winner: dict[str, int], larger: bool, monkeypatch):
    """AVX2 machines are known to have 256 KB: what more gains says nothing of them."""
    usual, target = {"rows": 6, "block_rows": 96}, find_target("x86-64-v3")
    for cache, told in ((1 << 20, larger), (256 << 10, False)):
        monkeypatch.setattr(shipped, "second_cache", lambda cache=cache: cache)
        assert shipped.gained_by_cache(winner, usual, target) == told
