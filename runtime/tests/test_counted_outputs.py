"""Outputs whose extent depends on data: room for the most, and an output that says how many slices hold results."""

import dataclasses

import numpy as np
import pytest
from sample_artifact import ARENA, BUFFERS, HOST, LABELS, sample, variant

from edgec.runtime import RuntimeFailure, load
from edgec.runtime.format import Binding, Program, Slot
from edgec.runtime.layout import read_artifact, write_artifact
from edgec.runtime.signature import TensorInfo, cut_to_counts


def _counted_program(**changes: object) -> Program:
    """`found` is the memory of the labels, its count the first of them; no calls."""
    number = Binding("found.count", Slot.OUTPUT, "i64", (), LABELS.buffer)
    labels = dataclasses.replace(LABELS, shape=(3,), low=0, high=-1)
    found = Binding("found", Slot.OUTPUT, "i64", (1, 3), LABELS.buffer, count="found.count", count_axis=1)
    wide = Binding("wide", Slot.OUTPUT, "f32", (), list(BUFFERS).index("wide"))
    bindings = [labels, found, number, wide]
    return Program("find", ARENA, (), tuple(dataclasses.replace(b, **changes.get(b.name, {})) for b in bindings))


def test_an_output_is_cut_to_its_count(tmp_path):
    host = dataclasses.replace(variant(HOST), programs=(_counted_program(),))
    write_artifact(tmp_path / "a.edge", sample(host))
    assert read_artifact(tmp_path / "a.edge").variants[0].programs == host.programs
    with load(tmp_path / "a.edge", threads=1) as model:
        found, _ = model.signature("find").outputs
        assert (found.name, found.shape, found.count, found.count_axis) == ("found", (1, 3), "found.count", 1)
        for labels in ([2, 5, 3], [0, 5, 3], [3, 1, 1]):
            outputs = model.run({"labels": np.array(labels)}, program="find")
            assert outputs.keys() == {"found", "wide"}
            assert outputs["found"].tolist() == [labels[: labels[0]]]


@pytest.mark.parametrize("change", [{"found": {"count_axis": 2}}, {"found.count": {"dtype": "f32"}},
                                    {"found.count": {"shape": (1,)}}, {"found": {"count": "labels"}},
                                    {"wide": {"count_axis": 1}}])  # fmt: skip
def test_a_count_is_one_integer_of_an_axis_that_exists(tmp_path, change):
    host = dataclasses.replace(variant(HOST), programs=(_counted_program(**change),))
    write_artifact(tmp_path / "a.edge", sample(host))
    with pytest.raises(RuntimeFailure, match="E0502"):
        load(tmp_path / "a.edge", threads=1)


def test_cutting_leaves_other_outputs_alone():
    infos = [TensorInfo("a", (4, 2), np.dtype("f4"), count="n"), TensorInfo("n", (), np.dtype("i8"))]
    arrays = {"a": np.arange(8).reshape(4, 2), "n": np.array(3), "losses": np.zeros(5)}
    cut = cut_to_counts(arrays, infos)
    assert {name: array.shape for name, array in cut.items()} == {"a": (3, 2), "losses": (5,)}
