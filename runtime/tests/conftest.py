"""The sample artifact for this machine, once for each file of tests, and a model of it for each test."""

import pytest
from sample_artifact import HOST, sample, variant

from edgec.runtime import load
from edgec.runtime.layout import write_artifact


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "sample.edge"
    write_artifact(path, sample(variant(HOST)))
    return path


@pytest.fixture
def model(path):
    with load(path, threads=1) as model:
        yield model
