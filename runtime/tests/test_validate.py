"""Lies behind right checksums: what the C validator refuses, and where it says that it did."""

import dataclasses

import numpy as np
import pytest
from c_model import open_bytes, refused_at
from hypothesis import given
from hypothesis import strategies as st
from sample_artifact import BUFFERS, HOST, KERNELS, sample, variant
from tampering import REQUIRED, Tampered

from edgec.runtime import tables
from edgec.runtime.abi import MAX_NAME, Storage
from edgec.runtime.dtypes import DTYPES
from edgec.runtime.format import Placement, Region, Slot, Tensor, TensorKind
from edgec.runtime.layout import artifact_bytes
from edgec.runtime.library import Status
from edgec.runtime.tables import Section

GOOD = artifact_bytes(sample(variant(HOST)))
INDEX = {name: i for i, name in enumerate(BUFFERS)}
COUNT = {section: len(Tampered(GOOD).records(section)) for section in (Section.STRINGS, *REQUIRED)}
SCALAR_STORAGE = next(i for i, row in enumerate(Tampered(GOOD).records(Section.STORAGES)) if row["rank"] == 0)
CALLS = {"dense": 0, "guard": 4, "update": 5, "zero": 10, "wide": 11}  # numbers of calls in the file


# Section, record, field, value.

HUGE = 2**64 - 1
LIES = [
    (Section.STORAGES, 0, "rank", 9),
    (Section.STORAGES, 0, "perm", (0, 0, 0, 0, 0, 0, 0, 0)),
    (Section.STORAGES, 0, "perm", (0, 2, 0, 0, 0, 0, 0, 0)),
    (Section.STORAGES, 0, "dims", (0xFFFFFFFF,) * 2 + (0,) * 6),
    (Section.STORAGES, SCALAR_STORAGE, "block", 4),
    (Section.TENSORS, 0, "name", 0xFFFFFFF0),
    (Section.TENSORS, 0, "name", COUNT[Section.STRINGS]),
    (Section.TENSORS, 0, "kind", 3),
    (Section.TENSORS, 0, "dtype", 9),
    (Section.TENSORS, 0, "rank", 9),
    (Section.TENSORS, 0, "shape", (8, 7, 0, 0, 0, 0, 0, 0)),
    (Section.TENSORS, 0, "bytes", 188),
    (Section.TENSORS, 0, "storage", COUNT[Section.STORAGES]),
    (Section.TENSORS, 0, "storage", 1),
    (Section.TENSORS, 0, "offset", 8),
    (Section.TENSORS, 0, "offset", 1 << 40),
    (Section.TENSORS, 0, "offset", HUGE - 63),
    (Section.VARIANTS, 0, "target", 0xFFFFFFF0),
    (Section.TENSORS, 2, "offset", 192),
    (Section.VARIANTS, 0, "param_bytes", HUGE),
    (Section.VARIANTS, 0, "param_bytes", 320),
    (Section.VARIANTS, 0, "param_bytes", 192),
    (Section.VARIANTS, 0, "state_bytes", 1 << 63),
    (Section.VARIANTS, 0, "state_bytes", 0),
    (Section.PLACEMENTS, 0, "region", Region.ARENA),
    (Section.PLACEMENTS, 0, "region", Region.STATE),
    (Section.PLACEMENTS, 0, "region", 4),
    (Section.PLACEMENTS, 0, "offset", 128),
    (Section.PLACEMENTS, 0, "offset", HUGE - 63),
    (Section.PLACEMENTS, 0, "storage", COUNT[Section.STORAGES]),
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
    (Section.BUFFERS, INDEX["scale"], "tensor", COUNT[Section.TENSORS]),
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
    (Section.CALLS, CALLS["dense"], "kernel", COUNT[Section.KERNELS]),
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
    (Section.BINDINGS, 0, "buffer", COUNT[Section.BUFFERS]),
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


def test_what_begins_as_zeros_is_not_read_from_the_file():
    assert refused_at(change(Section.TENSORS, 1, offset=tables.ZEROS).bytes()) == Section.PLACEMENTS
    assert open_bytes(change(Section.TENSORS, 0, offset=tables.ZEROS).bytes())[0] == Status.OK


def test_operand_smaller_than_argument():
    assert refused_at(change(Section.BUFFERS, INDEX["y"], bytes=64 * 6 * 4 - 4).bytes()) == Section.CALLS


def test_arena_buffer_outside_of_the_program():
    assert refused_at(change(Section.PROGRAMS, 0, arena_bytes=2048 + 64).bytes()) == Section.CALLS
    assert refused_at(change(Section.PROGRAMS, 3, arena_bytes=5120).bytes()) == Section.CALLS


def test_guard_on_too_few_bytes():
    tampered = change(Section.BUFFERS, INDEX["loss"], bytes=3)
    tampered.records(Section.ARGUMENTS)[9]["bytes"] = 3  # the kernel that writes it
    assert refused_at(tampered.bytes()) == Section.CALLS


def test_write_into_weights():
    """A kernel's operand, and a buffer to be zeroed."""
    operands = Tampered(GOOD).records(Section.OPERANDS)
    first = Tampered(GOOD).records(Section.CALLS)["first_operand"]
    for call, operand in ((CALLS["zero"], 0), (CALLS["wide"], 23)):
        tampered = Tampered(GOOD)
        assert operands[first[call] + operand] == INDEX["wide"]
        tampered.records(Section.OPERANDS)[first[call] + operand] = INDEX["half_wide"]
        assert refused_at(tampered.bytes()) == Section.CALLS


def test_update_before_guard():
    """The guard and the update swap places."""
    tampered = Tampered(GOOD)
    calls = tampered.records(Section.CALLS)
    for field in ("kernel", "opcode", "tasks"):
        guard, count = CALLS["guard"], CALLS["update"] + 1
        calls[field][[guard, count]] = calls[field][[count, guard]]
    operands, first = tampered.records(Section.OPERANDS), calls["first_operand"]
    operands[first[CALLS["guard"]]], operands[first[count]] = operands[first[count]], operands[first[CALLS["guard"]]]
    assert refused_at(tampered.bytes()) == Section.CALLS


def test_operand_that_is_no_buffer():
    tampered = Tampered(GOOD)
    tampered.records(Section.OPERANDS)[0] = COUNT[Section.BUFFERS]
    assert refused_at(tampered.bytes()) == Section.CALLS


def test_entry_behind_the_segment():
    segment_bytes = int.from_bytes(Tampered(GOOD).records(Section.CODE)[96:104].tobytes(), "little")
    assert 64 < segment_bytes <= len(Tampered(GOOD).records(Section.CODE))
    assert refused_at(change(Section.KERNELS, 0, entry=segment_bytes).bytes()) == Section.KERNELS
    assert open_bytes(change(Section.KERNELS, 0, entry=segment_bytes - 1).bytes())[0] == Status.OK


def test_one_call_too_many():
    """The last program claims a record after the last."""
    for field in ("call_count", "binding_count"):
        tampered = Tampered(GOOD)
        tampered.records(Section.PROGRAMS)[3][field] += 1
        assert refused_at(tampered.bytes()) == Section.PROGRAMS


def test_every_limit_itself_is_legal():
    """Rank 8, names of 4095 bytes, an empty tensor at the very end; one byte more is not."""
    artifact = sample(variant(HOST))
    deep = Tensor("n" * MAX_NAME, TensorKind.PARAM, np.zeros((1, 2) * 4, np.float32), Storage.row_major((1, 2) * 4))
    empty = Tensor("empty", TensorKind.PARAM, np.zeros((0, 3), np.float32), Storage.row_major((0, 3)))
    placements = (Placement(5, Region.WEIGHTS, 0, deep.storage), Placement(6, Region.WEIGHTS, 0, empty.storage))
    changed = dataclasses.replace(artifact.variants[0], placements=artifact.variants[0].placements + placements)
    data = artifact_bytes(dataclasses.replace(artifact, tensors=(*artifact.tensors, deep, empty), variants=(changed,)))
    assert open_bytes(data)[0] == Status.OK
    tampered = Tampered(data)
    assert tampered.records(Section.TENSORS)[6]["offset"] == tampered.row(Section.WEIGHTS)["bytes"]
    strings = tampered.records(Section.STRINGS)
    name = int(tampered.records(Section.TENSORS)[5]["name"])
    assert strings[name + MAX_NAME - 1] == ord("n") and strings[name + MAX_NAME] == 0
    strings[name + MAX_NAME] = ord("n")
    assert refused_at(tampered.bytes()) == Section.TENSORS


def test_state_in_param_region():
    assert refused_at(change(Section.TENSORS, 0, kind=TensorKind.STATE).bytes()) == Section.PLACEMENTS


def test_names_end():
    tampered = Tampered(GOOD)
    strings = tampered.records(Section.STRINGS)
    strings[strings == 0] = ord("a")
    assert open_bytes(tampered.bytes())[0] == Status.MALFORMED


@given(st.data())
def test_any_field_may_lie(data):
    """A random field of a random record gets a random value: the reader accepts or refuses, and survives."""
    tampered = Tampered(GOOD)
    section = data.draw(st.sampled_from([s for s in REQUIRED if s != Section.OPERANDS]))
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
