"""What the C reader refuses, and with which status: damage, wrong machines, and lies behind right checksums."""

import platform

import numpy as np
import pytest
from c_model import open_bytes
from hypothesis import given
from hypothesis import strategies as st
from sample_artifact import BUFFERS, KERNELS, sample, variant
from tampering import Tampered

from edgec.runtime import tables
from edgec.runtime.abi import Arch, Feature
from edgec.runtime.check import check_artifact
from edgec.runtime.dtypes import DTYPES
from edgec.runtime.errors import RuntimeFailure
from edgec.runtime.format import Region, Slot, TensorKind
from edgec.runtime.layout import artifact_bytes
from edgec.runtime.library import Status
from edgec.runtime.tables import Section

HOST = {"x86_64": Arch.X86_64, "aarch64": Arch.AARCH64}[platform.machine()]
FOREIGN = Arch.AARCH64 if HOST == Arch.X86_64 else Arch.X86_64
GOOD = artifact_bytes(sample(variant(HOST)))
INDEX = {name: i for i, name in enumerate(BUFFERS)}
CALLS = {"dense": 0, "guard": 4, "update": 5, "zero": 10, "wide": 11}  # numbers of calls in the file


def test_good():
    assert open_bytes(GOOD)[0] == Status.OK


# ---- Damage. ----


@pytest.mark.parametrize(
    "data, status",
    [
        (b"", Status.NOT_AN_ARTIFACT),
        (b"\x7fELF" + GOOD[4:], Status.NOT_AN_ARTIFACT),
        (GOOD[:5], Status.TRUNCATED),
        (GOOD[:63], Status.TRUNCATED),
        (GOOD[:-1], Status.TRUNCATED),
        (GOOD + bytes(1), Status.TRUNCATED),
    ],
)
def test_cut_and_foreign_files(data, status):
    assert open_bytes(data)[0] == status


def test_every_section_is_checked():
    """One bit in each section that this machine reads."""
    rows = Tampered(GOOD).sections
    for row in rows[(rows["type"] != Section.MANIFEST) & (rows["bytes"] > 0)]:
        data = bytearray(GOOD)
        data[int(row["offset"]) + int(row["bytes"]) // 2] ^= 0x10
        status, refused = open_bytes(bytes(data))
        assert (status, refused.section) == (Status.DAMAGED, row["type"])


@given(st.integers(0, 64 + 32 * int(Tampered(GOOD).header["section_count"]) - 1), st.integers(0, 7))
def test_every_bit_of_header_and_section_table(position, bit):
    data = bytearray(GOOD)
    data[position] ^= 1 << bit
    assert open_bytes(bytes(data))[0] in (Status.NOT_AN_ARTIFACT, Status.NEWER_FORMAT, Status.DAMAGED)


def test_newer_format():
    """Refused before its checksum is looked at, since a newer header may be longer."""
    tampered = Tampered(GOOD)
    tampered.header["version"] = tables.VERSION + 1
    assert open_bytes(tampered.bytes())[0] == Status.NEWER_FORMAT


# ---- Machines. ----


def test_other_architecture():
    assert open_bytes(artifact_bytes(sample(variant(FOREIGN))))[0] == Status.WRONG_MACHINE
    assert open_bytes(artifact_bytes(sample(variant(FOREIGN), variant(HOST))))[0] == Status.OK


def test_missing_feature():
    foreign_feature = Feature.SVE if HOST == Arch.X86_64 else Feature.AVX512F
    data = artifact_bytes(sample(variant(HOST, foreign_feature, target="future")))
    assert open_bytes(data)[0] == Status.MISSING_FEATURE
    assert open_bytes(data, target=b"future")[0] == Status.MISSING_FEATURE
    assert open_bytes(artifact_bytes(sample(variant(HOST, 1 << 63))))[0] == Status.MISSING_FEATURE


def test_unknown_target():
    assert open_bytes(GOOD, target=b"toaster")[0] == Status.NO_SUCH_TARGET


def test_no_variants():
    tampered = Tampered(GOOD)
    tampered.row(Section.VARIANTS)["bytes"] = 0
    assert open_bytes(tampered.bytes())[0] == Status.WRONG_MACHINE


def test_check_looks_at_every_variant():
    """Also at those of other machines: a lie in the second of three."""
    data = artifact_bytes(sample(variant(HOST), variant(FOREIGN, 1 << 60), variant(Arch.PORTABLE)))
    check_artifact(data)
    tampered = Tampered(data)
    tampered.records(Section.CALLS, 1)[3]["tasks"] = -5
    assert open_bytes(tampered.bytes())[0] == Status.OK
    with pytest.raises(RuntimeFailure, match=r"E0502.*section CALLS, record 3"):
        check_artifact(tampered.bytes())
    tampered = Tampered(data)
    tampered.records(Section.CODE, 1)[:4] = 0
    with pytest.raises(RuntimeFailure, match="E0504"):
        check_artifact(tampered.bytes())


def test_portable_needs_kernels():
    assert open_bytes(artifact_bytes(sample(variant(Arch.PORTABLE))))[0] == Status.NO_KERNELS


# ---- Code images. ----

# Offsets of fields in an ELF64 header, and in the program header that follows it.
TYPE, MACHINE, SEGMENTS, SEGMENT_BYTES, SEGMENT_COUNT = 16, 18, 32, 54, 56
FIRST = 64
FLAGS, OFFSET, ADDRESS, FILE_BYTES, MEMORY_BYTES = (FIRST + n for n in (4, 8, 16, 32, 40))


@pytest.mark.parametrize(
    "position, value, width",
    [
        (0, 0, 1),
        (4, 1, 1),
        (5, 2, 1),
        (TYPE, 2, 2),
        (MACHINE, 40, 2),
        (SEGMENTS, 1 << 40, 8),
        (SEGMENTS, 65, 8),
        (SEGMENT_BYTES, 32, 2),
        (SEGMENT_COUNT, 0, 2),
        (SEGMENT_COUNT, 0xFFFF, 2),
        (FIRST, 7, 4),
        (FIRST, 3, 4),
        (FLAGS, 7, 4),
        (FLAGS, 4, 4),
        (OFFSET, 4096, 8),
        (ADDRESS, 4096, 8),
        (FILE_BYTES, 1 << 30, 8),
        (MEMORY_BYTES, 1 << 30, 8),
    ],
)
def test_bad_images(position, value, width):
    tampered = Tampered(GOOD)
    tampered.records(Section.CODE)[position : position + width] = np.frombuffer(value.to_bytes(width, "little"), "u1")
    assert open_bytes(tampered.bytes())[0] == Status.BAD_IMAGE


# ---- Lies behind right checksums: (section, record, field, value). ----

HUGE = 2**64 - 1
LIES = [
    (Section.STORAGES, 0, "rank", 9),
    (Section.STORAGES, 0, "perm", (0, 0, 0, 0, 0, 0, 0, 0)),
    (Section.STORAGES, 0, "perm", (0, 2, 0, 0, 0, 0, 0, 0)),
    (Section.STORAGES, 0, "dims", (0xFFFFFFFF,) * 2 + (0,) * 6),
    (Section.TENSORS, 0, "name", 0xFFFFFFF0),
    (Section.TENSORS, 0, "kind", 3),
    (Section.TENSORS, 0, "dtype", 9),
    (Section.TENSORS, 0, "rank", 9),
    (Section.TENSORS, 0, "shape", (8, 7, 0, 0, 0, 0, 0, 0)),
    (Section.TENSORS, 0, "bytes", 188),
    (Section.TENSORS, 0, "storage", 99),
    (Section.TENSORS, 0, "storage", 1),
    (Section.TENSORS, 0, "offset", 8),
    (Section.TENSORS, 0, "offset", 1 << 40),
    (Section.TENSORS, 0, "offset", HUGE - 63),
    (Section.VARIANTS, 0, "target", 0xFFFFFFF0),
    (Section.VARIANTS, 0, "param_bytes", HUGE),
    (Section.VARIANTS, 0, "state_bytes", 1 << 63),
    (Section.PLACEMENTS, 0, "region", Region.ARENA),
    (Section.PLACEMENTS, 0, "region", Region.STATE),
    (Section.PLACEMENTS, 0, "region", 4),
    (Section.PLACEMENTS, 0, "offset", 128),
    (Section.PLACEMENTS, 0, "offset", HUGE - 63),
    (Section.PLACEMENTS, 0, "storage", 99),
    (Section.PLACEMENTS, 0, "storage", 1),
    (Section.PLACEMENTS, 0, "trained", 2),
    (Section.PLACEMENTS, 1, "trained", 1),
    (Section.PLACEMENTS, 1, "storage", 0),
    (Section.PLACEMENTS, 1, "offset", 64),
    (Section.PLACEMENTS, 2, "offset", 0),
    (Section.PLACEMENTS, 2, "offset", 200),
    (Section.PLACEMENTS, 3, "region", Region.PARAM),
    (Section.BUFFERS, INDEX["x"], "region", 4),
    (Section.BUFFERS, INDEX["x"], "offset", 4),
    (Section.BUFFERS, INDEX["x"], "bytes", HUGE),
    (Section.BUFFERS, INDEX["w"], "bytes", 257),
    (Section.BUFFERS, INDEX["w"], "offset", HUGE),
    (Section.BUFFERS, INDEX["steps"], "offset", 64),
    (Section.BUFFERS, INDEX["scale"], "bytes", 28),
    (Section.BUFFERS, INDEX["scale"], "tensor", 99),
    (Section.BUFFERS, INDEX["scale"], "tensor", 0),
    (Section.KERNELS, 0, "name", 0xFFFFFFF0),
    (Section.KERNELS, 0, "entry", 8),
    (Section.KERNELS, 0, "entry", 1 << 20),
    (Section.KERNELS, 0, "first_argument", 1),
    (Section.KERNELS, 0, "argument_count", 0),
    (Section.KERNELS, 0, "argument_count", 25),
    (Section.KERNELS, 5, "argument_count", 0xFFFFFFFF),
    (Section.ARGUMENTS, 0, "access", 0),
    (Section.ARGUMENTS, 0, "access", 4),
    (Section.PROGRAMS, 0, "name", 0xFFFFFFF0),
    (Section.PROGRAMS, 0, "arena_bytes", HUGE),
    (Section.PROGRAMS, 0, "first_call", 1),
    (Section.PROGRAMS, 0, "call_count", 0xFFFFFFFF),
    (Section.PROGRAMS, 1, "first_call", 0),
    (Section.PROGRAMS, 1, "first_binding", 0),
    (Section.PROGRAMS, 3, "binding_count", 2),
    (Section.CALLS, CALLS["dense"], "opcode", 3),
    (Section.CALLS, CALLS["dense"], "kernel", 99),
    (Section.CALLS, CALLS["dense"], "kernel", 1),
    (Section.CALLS, CALLS["dense"], "tasks", -1),
    (Section.CALLS, CALLS["dense"], "label", 0xFFFFFFF0),
    (Section.CALLS, CALLS["dense"], "first_operand", 1),
    (Section.CALLS, CALLS["dense"], "operand_count", 4),
    (Section.CALLS, CALLS["wide"], "operand_count", 25),
    (Section.CALLS, CALLS["guard"], "operand_count", 0),
    (Section.BINDINGS, 0, "name", 0xFFFFFFF0),
    (Section.BINDINGS, 0, "slot", 4),
    (Section.BINDINGS, 0, "dtype", 9),
    (Section.BINDINGS, 0, "rank", 9),
    (Section.BINDINGS, 0, "shape", (65, 8, 0, 0, 0, 0, 0, 0)),
    (Section.BINDINGS, 0, "shape", (1 << 31, 1 << 31, 1 << 31, 0, 0, 0, 0, 0)),
    (Section.BINDINGS, 0, "buffer", 99),
    (Section.BINDINGS, 0, "buffer", INDEX["scale"]),
    (Section.BINDINGS, 0, "buffer", INDEX["w"]),
    (Section.BINDINGS, 0, "high", 5),
    (Section.BINDINGS, 0, "slot", Slot.SCALAR),
    (Section.BINDINGS, 3, "slot", Slot.OUTPUT),
    (Section.BINDINGS, 3, "slot", Slot.LOSS),
    (Section.BINDINGS, 5, "dtype", DTYPES.index("i32")),
]


@pytest.mark.parametrize("section, record, field, value", LIES, ids=str)
def test_lies_are_refused(section, record, field, value):
    tampered = Tampered(GOOD)
    assert (tampered.records(section)[record][field] != np.asarray(value)).any(), "the lie must differ from the truth"
    tampered.records(section)[record][field] = value
    status, refused = open_bytes(tampered.bytes())
    assert status == Status.MALFORMED
    # That a storage does not fit can only be seen from its tensor.
    assert refused.section == section or (section, refused.section) == (Section.STORAGES, Section.TENSORS)


def change(section: Section, record: int, **fields: object) -> Tampered:
    tampered = Tampered(GOOD)
    for name, value in fields.items():
        tampered.records(section)[record][name] = value
    return tampered


def refused_at(tampered: Tampered) -> Section:
    status, refused = open_bytes(tampered.bytes())
    assert status == Status.MALFORMED
    return Section(refused.section)


def test_operand_smaller_than_argument():
    assert refused_at(change(Section.BUFFERS, INDEX["y"], bytes=64 * 6 * 4 - 4)) == Section.CALLS


def test_arena_buffer_outside_of_the_program():
    assert refused_at(change(Section.PROGRAMS, 0, arena_bytes=2048 + 64)) == Section.CALLS
    assert refused_at(change(Section.PROGRAMS, 3, arena_bytes=5120)) == Section.CALLS


def test_guard_on_too_few_bytes():
    tampered = change(Section.BUFFERS, INDEX["loss"], bytes=3)
    tampered.records(Section.ARGUMENTS)[9]["bytes"] = 3  # the kernel that writes it
    assert refused_at(tampered) == Section.CALLS


def test_write_into_weights():
    """A kernel's operand, and a buffer to be zeroed."""
    operands = Tampered(GOOD).records(Section.OPERANDS)
    first = Tampered(GOOD).records(Section.CALLS)["first_operand"]
    for call, operand in ((CALLS["zero"], 0), (CALLS["wide"], 23)):
        tampered = Tampered(GOOD)
        assert operands[first[call] + operand] == INDEX["wide"]
        tampered.records(Section.OPERANDS)[first[call] + operand] = INDEX["half_wide"]
        assert refused_at(tampered) == Section.CALLS


def test_update_before_guard():
    """The guard and the update swap places."""
    tampered = Tampered(GOOD)
    calls = tampered.records(Section.CALLS)
    for field in ("kernel", "opcode", "tasks"):
        guard, count = CALLS["guard"], CALLS["update"] + 1
        calls[field][[guard, count]] = calls[field][[count, guard]]
    operands, first = tampered.records(Section.OPERANDS), calls["first_operand"]
    operands[first[CALLS["guard"]]], operands[first[count]] = operands[first[count]], operands[first[CALLS["guard"]]]
    assert refused_at(tampered) == Section.CALLS


def test_state_in_param_region():
    assert refused_at(change(Section.TENSORS, 0, kind=TensorKind.STATE)) == Section.PLACEMENTS


def test_names_end():
    tampered = Tampered(GOOD)
    strings = tampered.records(Section.STRINGS)
    strings[strings == 0] = ord("a")
    assert open_bytes(tampered.bytes())[0] == Status.MALFORMED


@pytest.mark.parametrize("field", ["offset", "bytes"])
@pytest.mark.parametrize("section", [Section.STRINGS, Section.TENSORS, Section.CALLS, Section.CODE])
def test_section_outside_of_the_file(section, field):
    for value in (HUGE, 1 << 40, len(GOOD) + 1, HUGE - 7):
        tampered = Tampered(GOOD)
        tampered.row(section)[field] = value
        assert open_bytes(tampered.bytes())[0] == Status.MALFORMED


def test_sections_overlap_or_repeat_or_are_missing():
    tampered = Tampered(GOOD)
    tampered.sections[1]["offset"] = tampered.sections[0]["offset"]
    assert open_bytes(tampered.bytes())[0] == Status.MALFORMED

    tampered = Tampered(GOOD)
    tampered.row(Section.BINDINGS)["type"] = Section.OPERANDS
    assert open_bytes(tampered.bytes())[0] == Status.MALFORMED

    for section in set(Section) - {Section.MANIFEST, Section.SIGNATURE, Section.CODE, Section.SOURCE}:
        tampered = Tampered(GOOD)
        tampered.row(section)["type"] = 999
        assert refused_at(tampered) == section


def test_section_count_beyond_the_file():
    for count in (0xFFFFFFFF, 4097, 2000):
        tampered = Tampered(GOOD)
        tampered.header["section_count"] = count
        assert open_bytes(tampered.bytes())[0] in (Status.MALFORMED, Status.DAMAGED)


def test_partial_records():
    for section in tables.RECORDS:
        tampered = Tampered(GOOD)
        tampered.row(section)["bytes"] -= 1
        assert refused_at(tampered) == section


def test_unknown_sections_are_skipped():
    """A later writer of this version may add some."""
    tampered = Tampered(GOOD)
    tampered.row(Section.MANIFEST)["type"] = 999
    assert open_bytes(tampered.bytes())[0] == Status.OK


def test_bad_page_bytes():
    for value in (0, 63, 96, 1 << 17):
        tampered = Tampered(GOOD)
        tampered.header["page_bytes"] = value
        assert open_bytes(tampered.bytes())[0] == Status.MALFORMED


@given(st.data())
def test_any_field_may_lie(data):
    """A random field of a random record gets a random value: the reader accepts or refuses, and survives."""
    tampered = Tampered(GOOD)
    section = data.draw(st.sampled_from([s for s in tables.RECORDS if s != Section.OPERANDS]))
    records = tampered.records(section)
    record = records[data.draw(st.integers(0, len(records) - 1))]
    field = data.draw(st.sampled_from(records.dtype.names))
    bits = 8 * records.dtype[field].base.itemsize
    value = data.draw(st.one_of(st.integers(0, 2**bits - 1), st.integers(0, 40), st.just(2**bits - 1)))
    record[field] = np.array(value, f"<u{bits // 8}").view(records.dtype[field].base)
    assert open_bytes(tampered.bytes())[0] in (
        Status.OK,
        Status.MALFORMED,
        Status.WRONG_MACHINE,
        Status.MISSING_FEATURE,
    )


def test_the_sample_has_what_the_lies_need():
    calls = Tampered(GOOD).records(Section.CALLS)
    assert len(calls) == 12 and calls[CALLS["guard"]]["opcode"] == 1 and calls[CALLS["zero"]]["opcode"] == 2
    assert calls[CALLS["wide"]]["kernel"] == list(KERNELS).index("sample_wide")
