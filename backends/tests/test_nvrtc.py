"""CUDA C to cubins: the architecture asked for, the cache, what is refused."""

from __future__ import annotations

import struct

import pytest

from edgec.backends import nvrtc
from edgec.backends.targets import find_target
from edgec.backends.tvm.build import build
from edgec.backends.tvm.computation import bind_computation
from edgec.backends.tvm.gpu.kernels import ItemSpec, TeamSpec
from edgec.graph.errors import InternalError, UserError
from edgec.graph.ops.relu import Relu
from edgec.graph.ops.softmax import Softmax
from edgec.graph.types import DType, TensorType
from edgec.runtime.abi import Storage
from edgec.tools.testing.op_group import op_group

SOURCE = b'extern "C" __global__ void k(float *p) { *p = 1; }'
needs_nvrtc = pytest.mark.skipif(not nvrtc.installed(), reason=f"needs {nvrtc.REQUIREMENT}")
EM_CUDA = 190


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path))


def architecture(cubin: bytes) -> tuple[int, int]:
    """Machine and architecture number of an ELF file."""
    (machine,) = struct.unpack_from("<H", cubin, 18)
    (flags,) = struct.unpack_from("<I", cubin, 48)
    return machine, flags & 0xFF


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_87", "sm_90"])
def test_the_architecture_asked_for(arch: str) -> None:
    assert architecture(nvrtc.cubin(SOURCE, arch, lambda job: job())) == (EM_CUDA, int(arch[3:]))


@needs_nvrtc
def test_a_cubin_is_compiled_once() -> None:
    jobs = []

    def run(job: nvrtc.Job) -> bytes:
        jobs.append(job)
        return job()

    first = nvrtc.cubin(SOURCE, "sm_87", run)
    assert nvrtc.cubin(SOURCE, "sm_87", run) == first and len(jobs) == 1
    nvrtc.cubin(SOURCE, "sm_90", run)
    assert len(jobs) == 2


@needs_nvrtc
def test_a_source_that_is_refused() -> None:
    with pytest.raises(InternalError, match="undefined"):
        nvrtc.cubin(b"void k() { nowhere(); }", "sm_87", lambda job: job())


def test_without_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "_path", lambda: None)
    with pytest.raises(UserError) as caught:
        nvrtc.cubin(SOURCE, "sm_87", lambda job: job())
    assert caught.value.code == "E0402" and "nvidia-cuda-nvrtc-cu12" in caught.value.hint


@needs_nvrtc
def test_an_image_for_jetson() -> None:
    """All kernels in one cubin, under their names."""
    kind = TensorType(DType.F32, (5, 70))
    specs = []
    for op, cls, rows, axes in ((Relu(), ItemSpec, 350, 2), (Softmax(1), TeamSpec, 5, 0)):
        group = op_group(op, (kind,))
        storage = {value: Storage.row_major(value.type.shape) for value in (*group.inputs, *group.outputs)}
        specs.append(cls(bind_computation(group, storage, {}).computation, rows, axes, 64))
    image = build(specs, find_target("jetson"))
    assert image.kind == "cubin" and architecture(image.data) == (EM_CUDA, 87)
    assert all(name.encode() in image.data for name in image.names.values())
