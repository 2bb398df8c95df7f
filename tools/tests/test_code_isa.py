"""Code of a whole model uses the instructions its target declares, and no others."""

import pytest

from edgec.compiler.train import Train
from edgec.runtime.layout import read_artifact
from edgec.tools import api
from edgec.tools.testing.isa import ASSEMBLERS, refused_instructions
from edgec.tools.testing.models import small_cnn_onnx


@pytest.mark.parametrize("name", ASSEMBLERS)
@pytest.mark.parametrize("train", [None, pytest.param(Train(batch=8, momentum=0.9), marks=pytest.mark.long)])
def test_code_of_a_model_uses_only_what_its_target_declares(name, train, tmp_path):
    request = api.Request(small_cnn_onnx(), api.parse_targets(name), batch=1, train=train)
    api.build(request, tmp_path / "cnn.edge")
    code = read_artifact(tmp_path / "cnn.edge").variants[0].code
    assert refused_instructions(code, name, ASSEMBLERS[name][1], tmp_path) == []
