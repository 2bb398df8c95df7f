"""The demonstration on a few samples: its parts fit together, and a miss is told from a hit."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from edgec.graph.errors import UserError
from edgec.tools import demo


def test_differences_that_cannot_be_measured_are_misses():
    assert demo._largest_difference([1.0, 2.0], [1.0, 2.5]) == 0.5
    for left, right in [([1.0], [1.0, 2.0]), ([], []), ([1.0, np.nan], [1.0, 2.0])]:
        assert demo._largest_difference(left, right) == np.inf


@pytest.mark.parametrize(("ok", "status"), [(True, 0), (None, 0), (False, 1)])
def test_the_status_says_whether_all_bars_held(monkeypatch, ok, status):
    monkeypatch.setattr(demo, "_data", lambda split: {})
    monkeypatch.setattr(demo, "run", lambda bench: [demo.Line("a part", "1", "<= 2", ok)])
    done = CliRunner().invoke(demo.main, ["--json"])
    assert done.exit_code == status and json.loads(done.stdout)["ok"] is (status == 0)
    done = CliRunner().invoke(demo.main)
    assert done.exit_code == status and ("MISSED" in done.stdout) is (status == 1)


def test_what_is_missing_is_said_without_a_traceback(monkeypatch):
    def data(split):
        raise UserError("E0507", "cannot read the pictures", hint="apt-get install dataset-fashion-mnist")

    monkeypatch.setattr(demo, "_data", data)
    done = CliRunner().invoke(demo.main)
    assert done.exit_code == 1 and "error[E0507]" in done.stderr and "hint: apt-get" in done.stderr


@pytest.mark.parametrize("code", ["E0402", "E0608"])
def test_without_an_emulator_that_part_is_skipped_with_a_reason(monkeypatch, tmp_path, code):
    def run_on_device(*_, **__):
        raise UserError(code, "`qemu-aarch64` is needed", hint="apt-get install qemu-user-static")

    monkeypatch.setattr(demo, "run_on_device", run_on_device)
    samples = demo.EMULATED_STEPS * demo.BATCH
    data = {"x": np.zeros((samples, 1)), "labels": np.zeros(samples, np.int64)}
    bench = demo.Bench(tmp_path, data, data)
    if code == "E0402":
        (line,) = demo.train_on_emulated_pi(bench, demo.Fit(0, (), ()))
        assert line.ok is None and "qemu-user-static" in line.figure
    else:
        with pytest.raises(UserError):
            demo.train_on_emulated_pi(bench, demo.Fit(0, (), ()))


@pytest.mark.long
def test_all_parts_run_on_few_samples(tmp_path):
    samples = demo.EMULATED_STEPS * demo.BATCH
    train, test = ({name: array[:samples] for name, array in demo._data(split).items()} for split in ("train", "test"))
    lines = {line.what: line for line in demo.run(demo.Bench(tmp_path, train, test))}
    missed = [what for what, line in lines.items() if line.ok is False]
    assert missed in ([], ["x86: test accuracy"]), "too few samples for the accuracy, enough for all else"
    assert [what for what in lines if "qemu" in what] and all(line.figure for line in lines.values())
