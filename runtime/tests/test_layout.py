"""Artifacts to bytes and back; the records are those of csrc/format.h; a failed write leaves nothing."""

import dataclasses
import os
import re
import subprocess
import sys
import zlib

import numpy as np
import pytest
from sample_artifact import HERE, sample, unstarted, variant

from edgec.runtime import tables
from edgec.runtime.abi import MAX_NAME, Arch, Feature, Storage
from edgec.runtime.dtypes import dtype_name, numpy_dtype
from edgec.runtime.errors import RuntimeFailure
from edgec.runtime.format import Artifact, Region, Tensor, TensorKind
from edgec.runtime.layout import artifact_bytes, read_artifact, write_artifact


def assert_equal(left: Artifact, right: Artifact) -> None:
    """Artifacts hold arrays, which `==` cannot compare."""
    assert (left.fingerprint, left.manifest, left.variants) == (right.fingerprint, right.manifest, right.variants)
    assert len(left.tensors) == len(right.tensors)
    for a, b in zip(left.tensors, right.tensors, strict=True):
        assert (a.name, a.kind, a.storage, a.data.dtype, a.data.shape) == (
            b.name,
            b.kind,
            b.storage,
            b.data.dtype,
            b.data.shape,
        )
        np.testing.assert_array_equal(a.data, b.data)
    assert len(left.originals) == len(right.originals) > 0
    for a, b in zip(left.originals, right.originals, strict=True):
        assert (a.name, a.tensor, a.axis, a.counter) == (b.name, b.tensor, b.axis, b.counter)
        np.testing.assert_array_equal(a.data, b.data)
        np.testing.assert_array_equal(a.scale, b.scale)


def test_round_trip(tmp_path):
    artifact = sample(variant(Arch.X86_64, Feature.AVX2 | Feature.FMA), variant(Arch.AARCH64), variant(Arch.PORTABLE))
    path = tmp_path / "a.edge"
    write_artifact(path, artifact)
    assert_equal(read_artifact(path), artifact)
    assert_equal(read_artifact(path.read_bytes()), artifact)
    assert os.listdir(tmp_path) == ["a.edge"]


def test_states_that_begin_as_zeros_have_no_bytes():
    artifact = sample(variant(Arch.X86_64))
    data, fresh = artifact_bytes(artifact), artifact_bytes(unstarted(artifact))
    assert len(data) - len(fresh) == 64
    assert_equal(read_artifact(fresh), unstarted(artifact))


def test_a_negative_zero_is_stored():
    data = np.full(3, -0.0, np.float32)
    artifact = Artifact(bytes(16), (Tensor("t", TensorKind.STATE, data, Storage.row_major((3,))),), ())
    assert np.signbit(read_artifact(artifact_bytes(artifact)).tensors[0].data).all()


def test_equal_artifacts_are_equal_bytes():
    assert artifact_bytes(sample()) == artifact_bytes(sample())


def test_all_dtypes_and_empty_tensors():
    arrays = [np.arange(6).reshape(2, 3).astype(code) for code in "<f2 <f4 <f8 i1 u1 <i4 <i8 ?".split()]
    arrays += [
        np.arange(6, dtype=np.uint16).reshape(2, 3).view(numpy_dtype("bf16")),  # as in this process: see dtypes.py
        np.empty((0, 4), np.float32),
        np.array(3.0),
        np.arange(4, dtype=">f4"),
    ]
    tensors = tuple(Tensor(f"t{i}", TensorKind.PARAM, a, Storage.row_major(a.shape)) for i, a in enumerate(arrays))
    artifact = Artifact(bytes(16), tensors, ())
    back = read_artifact(artifact_bytes(artifact))
    for before, after in zip(artifact.tensors, back.tensors, strict=True):
        # uint16 is the bits of bf16, and comes out as such where ml_dtypes is imported.
        assert after.data.dtype == numpy_dtype(dtype_name(before.data.dtype)) and after.data.shape == before.data.shape
        assert after.data.tobytes() == before.data.astype(before.data.dtype.newbyteorder("<")).tobytes()


def test_bfloat16_is_bits_without_its_library():
    """ml_dtypes is the compiler's; on a device the bits come out as uint16, and go in so."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    artifact = Artifact(bytes(16), (Tensor("t", TensorKind.PARAM, values, Storage.row_major((2,))),), ())
    data = artifact_bytes(artifact)
    np.testing.assert_array_equal(read_artifact(data).tensors[0].data, values)
    script = (
        "import sys; from edgec.runtime.layout import read_artifact;"
        "t = read_artifact(sys.stdin.buffer.read()).tensors[0];"
        "assert 'ml_dtypes' not in sys.modules; print(t.data.dtype, t.data.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=True)
    assert done.stdout.decode().split(maxsplit=1) == ["uint16", f"{values.view(np.uint16).tolist()}\n"]


def test_alignment():
    """Code lies on pages that every common kernel can map, tensors on cache lines; without code there are no holes."""
    for artifact, page in ((sample(), 16384), (sample(variant(Arch.PORTABLE)), 64)):
        data = artifact_bytes(artifact)
        header = np.frombuffer(data[:64], tables.HEADER)[0]
        rows = np.frombuffer(data[64:], tables.SECTION, count=header["section_count"])
        assert header["page_bytes"] == page and header["file_bytes"] == len(data)
        for row in rows:
            assert row["offset"] % (page if row["type"] in (tables.Section.WEIGHTS, tables.Section.CODE) else 8) == 0
        table = next(row for row in rows if row["type"] == tables.Section.TENSORS)
        tensors = np.frombuffer(data[table["offset"] :][: table["bytes"]], tables.TENSOR)
        assert not (tensors["offset"] % 64).any()


def test_tables_are_those_of_c(tmp_path):
    """Every record: the same fields at the same offsets as format.h, and the same numbers of sections."""
    records = {"header": tables.HEADER, "section": tables.SECTION} | {
        section.name.lower().removesuffix("s"): dtype
        for section, dtype in tables.RECORDS.items()
        if section != tables.Section.OPERANDS
    }
    lines = []
    for name, dtype in records.items():
        lines.append(f'printf("{name} %zu\\n", sizeof(format_{name}));')
        lines += [f'printf("{name}.{f} %zu\\n", offsetof(format_{name}, {f}));' for f in dtype.names]
    lines += [f'printf("{s.name} %d\\n", SECTION_{s.name});' for s in tables.Section]
    source = '#include <stddef.h>\n#include <stdio.h>\n#include "format.h"\nint main(void) {' + "".join(lines) + "}"
    (tmp_path / "offsets.c").write_text(source)
    csrc = HERE.parent / "csrc"
    subprocess.run(["gcc", f"-I{csrc}", "offsets.c", "-o", "offsets"], cwd=tmp_path, check=True)
    printed = subprocess.run([tmp_path / "offsets"], capture_output=True, text=True, check=True).stdout
    expected = {}
    for name, dtype in records.items():
        expected[name] = dtype.itemsize
        expected |= {f"{name}.{field}": dtype.fields[field][1] for field in dtype.names}
    expected |= {section.name: int(section) for section in tables.Section}
    assert {name: int(value) for name, value in map(str.split, printed.splitlines())} == expected
    in_c = set(re.findall(r"typedef FORMAT_RECORD format_(\w+)", (csrc / "format.h").read_text()))
    assert in_c == set(records)


def test_disk_full_leaves_nothing(tmp_path):
    """A limit on file size stands for a full disk: both end a write with an error."""
    path = tmp_path / "a.edge"
    path.write_bytes(b"old")
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        f"sys.path.insert(0, {str(HERE)!r})\n"
        "from sample_artifact import sample, variant, Arch\n"
        "from edgec.runtime.layout import write_artifact\n"
        "try: write_artifact(sys.argv[1], sample(variant(Arch.PORTABLE)))\n"
        "except OSError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.edge"]
    assert len(artifact_bytes(sample(variant(Arch.PORTABLE)))) > 4096


def test_no_such_folder(tmp_path):
    with pytest.raises(OSError):
        write_artifact(tmp_path / "none" / "a.edge", sample())


def with_header(data: bytes, **fields: int) -> bytes:
    header = np.frombuffer(data[:64], tables.HEADER)[0].copy()
    for name, value in fields.items():
        header[name] = value
    header["header_crc32"] = zlib.crc32(header.tobytes()[:-4])
    return header.tobytes() + data[64:]


@pytest.mark.parametrize(
    "damage, code",
    [
        (lambda d: b"", "E0501"),
        (lambda d: b"PK" + d[2:], "E0501"),
        (lambda d: d[:40], "E0502"),
        (lambda d: d[:-1], "E0502"),
        (lambda d: d + b"\0", "E0502"),
        (lambda d: with_header(d, version=3), "E0503"),
        (lambda d: d[:20] + b"\1" + d[21:], "E0502"),
        (lambda d: d[:65] + b"\xff" + d[66:], "E0502"),
        (lambda d: d[:-8] + b"\xff" + d[-7:], "E0502"),
    ],
)
def test_damaged_files_are_refused(damage, code):
    with pytest.raises(RuntimeFailure) as caught:
        read_artifact(damage(artifact_bytes(sample())))
    assert caught.value.code == code


def test_unreadable_file(tmp_path):
    with pytest.raises(RuntimeFailure, match=r"error\[E0507\]"):
        read_artifact(tmp_path / "none.edge")


def changed(**changes: object) -> Artifact:
    artifact = sample()
    return dataclasses.replace(artifact, variants=(dataclasses.replace(artifact.variants[0], **changes),))


def test_limits_are_checked_before_writing():
    base = sample().variants[0]
    long = dataclasses.replace(base.kernels[0], name="k" * (MAX_NAME + 1))
    wide = dataclasses.replace(base.kernels[0], arguments=base.kernels[0].arguments * 5)
    twice = (base.placements[0], *base.placements[:4])
    overlapping = tuple(dataclasses.replace(p, offset=0) for p in base.placements)
    restored = (dataclasses.replace(base.placements[0], region=Region.WEIGHTS, storage=Storage((8, 6), (1, 0))),)
    binding = dataclasses.replace(base.programs[0].bindings[0], shape=(1,) * 9)
    deep = dataclasses.replace(base.programs[0], bindings=(binding,))
    for change in (
        {"kernels": (long,)},
        {"kernels": (wide,)},
        {"placements": twice},
        {"placements": overlapping},
        {"placements": restored + base.placements[1:]},
        {"programs": (deep,)},
        {"programs": (base.programs[0], base.programs[0])},
    ):
        with pytest.raises(ValueError):
            artifact_bytes(changed(**change))
    artifact_bytes(changed(kernels=(dataclasses.replace(base.kernels[0], name="k" * MAX_NAME),)))
    with pytest.raises(ValueError):
        artifact_bytes(dataclasses.replace(sample(), fingerprint=b"short"))
    with pytest.raises(ValueError):
        artifact_bytes(dataclasses.replace(sample(), tensors=sample().tensors * 2))


def test_placements_may_come_in_any_order():
    base = sample().variants[0]
    data = artifact_bytes(changed(placements=base.placements[::-1]))
    assert read_artifact(data).variants[0].placements == base.placements
