"""Sections of a checked file to the records of an artifact. A file may be wrong behind right checksums: E0502."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from edgec.runtime import tables
from edgec.runtime.abi import MAX_RANK, Access, Arch, Factor, Feature, Product, Storage
from edgec.runtime.dtypes import DTYPES, numpy_dtype
from edgec.runtime.errors import RuntimeFailure
from edgec.runtime.format import (
    Artifact,
    Binding,
    Buffer,
    Call,
    Kernel,
    KernelArgument,
    Opcode,
    Original,
    Placement,
    Program,
    Region,
    Slot,
    Tensor,
    TensorKind,
    Variant,
)
from edgec.runtime.original import DAMAGE, decode_originals
from edgec.runtime.tables import Section

Sections = Mapping[tuple[Section, int], memoryview]


def _rows(sections: Sections, section: Section, variant: int = tables.NONE) -> np.ndarray:
    return np.frombuffer(sections[section, variant], tables.RECORDS[section])


def _extents(values: np.ndarray, rank: int) -> tuple[int, ...]:
    if rank > MAX_RANK:
        raise ValueError(f"rank {rank}")
    return tuple(int(value) for value in values[:rank])


class _Names:
    def __init__(self, section: memoryview):
        self._bytes = bytes(section)

    def __getitem__(self, offset: int) -> str:
        return self._bytes[offset : self._bytes.index(b"\0", offset)].decode()


def _storages(sections: Sections) -> list[Storage]:
    return [
        Storage(_extents(row["dims"], row["rank"]), _extents(row["perm"], row["rank"]), int(row["block"]))
        for row in _rows(sections, Section.STORAGES)
    ]


def _tensors(sections: Sections, names: _Names, storages: list[Storage]) -> tuple[Tensor, ...]:
    weights = sections[Section.WEIGHTS, tables.NONE]
    tensors = []
    for row in _rows(sections, Section.TENSORS):
        storage, shape, dtype = storages[row["storage"]], _extents(row["shape"], row["rank"]), DTYPES[row["dtype"]]
        start, stop = int(row["offset"]), int(row["offset"]) + int(row["bytes"])
        if start == tables.ZEROS:
            data = np.zeros(shape, numpy_dtype(dtype))
        else:
            data = storage.unpack(np.frombuffer(weights[start:stop], numpy_dtype(dtype)), shape)
        tensors.append(Tensor(names[row["name"]], TensorKind(row["kind"]), data, storage))
    return tuple(tensors)


def _kernels(sections: Sections, index: int, names: _Names) -> tuple[Kernel, ...]:
    arguments = [
        KernelArgument(int(row["bytes"]), Access(row["access"])) for row in _rows(sections, Section.ARGUMENTS, index)
    ]
    listed = _rows(sections, Section.PRODUCTS, index) if (Section.PRODUCTS, index) in sections else ()
    products = {int(row["kernel"]): _product(row) for row in listed}
    kernels: list[Kernel] = []
    for row in _rows(sections, Section.KERNELS, index):
        first, count = int(row["first_argument"]), int(row["argument_count"])
        own = tuple(arguments[first : first + count])
        product = products.get(len(kernels))
        kernels.append(Kernel(names[row["name"]], int(row["entry"]), own, int(row["threads"]), product))
    return tuple(kernels)


def _product(row: np.void) -> Product:
    left, right = (
        Factor(int(row["factors"][i]), int(row["leading"][i]), int(row["strides"][i]), bool(row["transposed"][i]))
        for i in range(2)
    )
    batch, rows, columns, depth = (int(row[name]) for name in ("batch", "rows", "columns", "depth"))
    return Product(batch, rows, columns, depth, left, right, int(row["result"]), bool(row["tf32"]))


def _programs(sections: Sections, index: int, names: _Names) -> tuple[Program, ...]:
    operands = _rows(sections, Section.OPERANDS, index).tolist()
    calls = [
        Call(
            opcode=Opcode(row["opcode"]),
            kernel=int(row["kernel"]) if row["opcode"] == Opcode.KERNEL else -1,
            operands=tuple(operands[row["first_operand"] :][: row["operand_count"]]),
            tasks=int(row["tasks"]),
            macs=int(row["macs"]),
            label=names[row["label"]],
        )
        for row in _rows(sections, Section.CALLS, index)
    ]
    rows = _rows(sections, Section.BINDINGS, index)
    return tuple(
        Program(
            name=names[row["name"]],
            arena_bytes=int(row["arena_bytes"]),
            calls=tuple(calls[row["first_call"] :][: row["call_count"]]),
            bindings=_bindings(rows[row["first_binding"] :][: row["binding_count"]], names),
        )
        for row in _rows(sections, Section.PROGRAMS, index)
    )


def _bindings(rows: np.ndarray, names: _Names) -> tuple[Binding, ...]:
    """Those of one program."""
    return tuple(
        Binding(
            name=names[row["name"]],
            slot=Slot(row["slot"]),
            dtype=DTYPES[row["dtype"]],
            shape=_extents(row["shape"], row["rank"]),
            buffer=int(row["buffer"]),
            low=int(row["low"]),
            high=int(row["high"]),
            ignored=int(row["ignored"]) if row["ignored"] != row["low"] else None,
            below=_limit(row, rows, names) if row["slot"] != Slot.OUTPUT else None,
            count=_limit(row, rows, names) if row["slot"] == Slot.OUTPUT else None,
            count_axis=int(row["axis"]),
        )
        for row in rows
    )


def _limit(row: np.void, rows: np.ndarray, names: _Names) -> str | None:
    return names[rows[row["limit"] - 1]["name"]] if row["limit"] else None


def _variant(sections: Sections, index: int, record: np.void, names: _Names, storages: list[Storage]) -> Variant:
    code = sections.get((Section.CODE, index), sections.get((Section.SOURCE, index), b""))
    return Variant(
        target=names[record["target"]],
        arch=Arch(record["arch"]),
        features=Feature(int(record["features"])),
        placements=tuple(
            Placement(tensor, Region(row["region"]), int(row["offset"]), storages[row["storage"]], bool(row["trained"]))
            for tensor, row in enumerate(_rows(sections, Section.PLACEMENTS, index))
        ),
        buffers=tuple(
            Buffer(
                region=Region(row["region"]),
                offset=int(row["offset"]),
                bytes=int(row["bytes"]),
                tensor=int(row["tensor"]) if row["tensor"] != tables.NONE else -1,
            )
            for row in _rows(sections, Section.BUFFERS, index)
        ),
        kernels=_kernels(sections, index, names),
        programs=_programs(sections, index, names),
        code=bytes(code),
        param_bytes=int(record["param_bytes"]),
        state_bytes=int(record["state_bytes"]),
        capability=int(record["capability"]),
    )


def _originals(sections: Sections, tensors: Mapping[str, np.ndarray]) -> tuple[Original, ...]:
    section = sections.get((Section.ORIGINALS, tables.NONE))
    return tuple(
        Original(
            name=stored.name,
            data=None if stored.is_another_name else stored.initial(tensors.__getitem__),
            tensor=stored.tensor,
            scale=np.frombuffer(stored.scale, "<f4") if stored.scale else None,
            axis=0 if stored.is_another_name else stored.row["axis"],
            counter=stored.counter,
        )
        for stored in (decode_originals(bytes(section)) if section is not None else ())
    )


def decode(fingerprint: bytes, sections: Sections) -> Artifact:
    try:
        names = _Names(sections[Section.STRINGS, tables.NONE])
        storages = _storages(sections)
        variants = _rows(sections, Section.VARIANTS)
        tensors = _tensors(sections, names, storages)
        return Artifact(
            fingerprint=fingerprint,
            tensors=tensors,
            variants=tuple(_variant(sections, i, record, names, storages) for i, record in enumerate(variants)),
            manifest=decode_manifest(sections),
            originals=_originals(sections, {tensor.name: tensor.data for tensor in tensors}),
        )
    except (*DAMAGE, RecursionError) as error:
        raise RuntimeFailure("E0502", f"the artifact contradicts itself: {error}") from error


def decode_manifest(sections: Sections) -> dict:
    try:
        return json.loads(bytes(sections[Section.MANIFEST, tables.NONE]))
    except (KeyError, ValueError, RecursionError) as error:
        raise RuntimeFailure("E0502", f"the artifact contradicts itself: {error}") from error
