"""Labels that must be less than a scalar: the live classes of a head that has room for more."""

import dataclasses

import numpy as np
import pytest
from sample_artifact import ARENA, BUFFERS, HOST, LABELS, sample, variant

from edgec.runtime import RuntimeFailure, load
from edgec.runtime.format import Binding, Program, Slot
from edgec.runtime.layout import read_artifact, write_artifact


def _limited_program(**changes: object) -> Program:
    """Labels 0 to 5 that must be less than the scalar `classes`, itself 1 to 6; no calls."""
    classes = Binding("classes", Slot.SCALAR, "i32", (), list(BUFFERS).index("wide"), 1, 6)
    labels = dataclasses.replace(LABELS, shape=(3,), low=0, high=5, below="classes")
    bindings = [labels, classes]
    return Program("check", ARENA, (), tuple(dataclasses.replace(b, **changes.get(b.name, {})) for b in bindings))


def test_labels_are_less_than_the_live_classes(tmp_path):
    host = dataclasses.replace(variant(HOST), programs=(_limited_program(),))
    write_artifact(tmp_path / "a.edge", sample(host))
    assert read_artifact(tmp_path / "a.edge").variants[0].programs == host.programs
    with load(tmp_path / "a.edge", threads=1) as model:
        assert [info.below for info in model.signature("check").inputs] == ["classes"]
        feeds = {"labels": np.array([0, 5, 3])}
        model.run(feeds, program="check")  # all classes live
        model.run(feeds | {"classes": 6}, program="check")
        with pytest.raises(RuntimeFailure, match=r"E0604.*`labels`\[1\] is 5: it must be less than `classes`"):
            model.run(feeds | {"classes": 5}, program="check")
        model.run({"labels": np.array([0, 2, 2]), "classes": 3}, program="check")
        with pytest.raises(RuntimeFailure, match="E0604.*`labels`.* is 9, outside 0 to 5"):
            model.run({"labels": np.array([0, 9, 0])}, program="check")
        with pytest.raises(RuntimeFailure, match="E0604.*`classes` is 7, outside 1 to 6"):
            model.run({"labels": np.zeros(3, np.int64), "classes": 7}, program="check")


@pytest.mark.parametrize("change", [{"classes": {"slot": Slot.INPUT}}, {"classes": {"dtype": "f32", "high": 0}},
                                    {"labels": {"high": -1}}])  # fmt: skip
def test_a_limit_is_an_integer_scalar_on_bounded_labels(tmp_path, change):
    host = dataclasses.replace(variant(HOST), programs=(_limited_program(**change),))
    write_artifact(tmp_path / "a.edge", sample(host))
    with pytest.raises(RuntimeFailure, match="E0502"):
        load(tmp_path / "a.edge", threads=1)
