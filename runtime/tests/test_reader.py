"""What the C reader refuses, and with which status: damage, wrong machines, bad images, wrong section tables."""

import numpy as np
import pytest
from c_model import open_bytes, refused_at
from hypothesis import given
from hypothesis import strategies as st
from sample_artifact import HOST, sample, variant
from tampering import REQUIRED, Tampered

from edgec.runtime import tables
from edgec.runtime.abi import Arch, Feature
from edgec.runtime.check import check_artifact
from edgec.runtime.errors import RuntimeFailure
from edgec.runtime.layout import artifact_bytes
from edgec.runtime.library import Status
from edgec.runtime.tables import Section

FOREIGN = Arch.AARCH64 if HOST == Arch.X86_64 else Arch.X86_64
GOOD = artifact_bytes(sample(variant(HOST)))
HUGE = 2**64 - 1


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
    read = ~np.isin(rows["type"], [Section.MANIFEST, Section.ORIGINALS])
    for row in rows[read & (rows["bytes"] > 0)]:
        data = bytearray(GOOD)
        data[int(row["offset"]) + int(row["bytes"]) // 2] ^= 0x10
        status, refused = open_bytes(bytes(data))
        assert (status, refused.section) == (Status.DAMAGED, row["type"])


@given(st.integers(0, 64 + 32 * int(Tampered(GOOD).header["section_count"]) - 1), st.integers(0, 7))
def test_every_bit_of_header_and_section_table(position, bit):
    data = bytearray(GOOD)
    data[position] ^= 1 << bit
    assert open_bytes(bytes(data))[0] in (Status.NOT_AN_ARTIFACT, Status.NEWER_FORMAT, Status.DAMAGED)


def test_older_format():
    tampered = Tampered(GOOD)
    tampered.header["version"] = 1
    assert open_bytes(tampered.bytes())[0] == Status.OK


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


# ---- Sections. ----


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

    optional = {Section.MANIFEST, Section.SIGNATURE, Section.ORIGINALS, Section.CODE, Section.SOURCE, Section.PRODUCTS}
    for section in set(Section) - optional:
        tampered = Tampered(GOOD)
        tampered.row(section)["type"] = 999
        assert refused_at(tampered.bytes()) == section


def test_section_count_beyond_the_file():
    for count in (0xFFFFFFFF, 4097, 2000):
        tampered = Tampered(GOOD)
        tampered.header["section_count"] = count
        assert open_bytes(tampered.bytes())[0] in (Status.MALFORMED, Status.DAMAGED)


def test_partial_records():
    for section in REQUIRED:
        tampered = Tampered(GOOD)
        tampered.row(section)["bytes"] -= 1
        assert refused_at(tampered.bytes()) == section


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
