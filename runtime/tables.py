"""The fixed-width records of a `.edge` file as numpy types: the same fields as `csrc/format.h`, in the same order."""

from __future__ import annotations

import enum

import numpy as np

MAGIC = b"\x89EDGE\r\n\x1a"
VERSION = 2
NONE = 0xFFFFFFFF  # an index that points to nothing
ZEROS = 0xFFFFFFFFFFFFFFFF  # the offset of a tensor that begins as zeros and has no bytes in the file
IMAGE_PAGE_BYTES = 16384
PLAIN_PAGE_BYTES = 64


class Section(enum.IntEnum):
    STRINGS = 1
    STORAGES = 2
    TENSORS = 3
    VARIANTS = 4
    WEIGHTS = 5
    MANIFEST = 6
    SIGNATURE = 7
    ORIGINALS = 8
    PLACEMENTS = 16
    BUFFERS = 17
    KERNELS = 18
    ARGUMENTS = 19
    PROGRAMS = 20
    CALLS = 21
    OPERANDS = 22
    BINDINGS = 23
    CODE = 24
    SOURCE = 25
    PRODUCTS = 26


HEADER = np.dtype(
    [
        ("magic", "u1", 8),
        ("version", "<u4"),
        ("section_count", "<u4"),
        ("file_bytes", "<u8"),
        ("fingerprint", "u1", 16),
        ("page_bytes", "<u4"),
        ("reserved", "<u4", 3),
        ("sections_crc32", "<u4"),
        ("header_crc32", "<u4"),
    ]
)
SECTION = np.dtype(
    [
        ("type", "<u4"),
        ("variant", "<u4"),
        ("offset", "<u8"),
        ("bytes", "<u8"),
        ("crc32", "<u4"),
        ("reserved", "<u4"),
    ]
)
STORAGE = np.dtype([("dims", "<u4", 8), ("perm", "u1", 8), ("block", "<u4"), ("rank", "u1"), ("reserved", "u1", 3)])
TENSOR = np.dtype(
    [
        ("offset", "<u8"),
        ("bytes", "<u8"),
        ("name", "<u4"),
        ("storage", "<u4"),
        ("kind", "u1"),
        ("dtype", "u1"),
        ("rank", "u1"),
        ("reserved", "u1", 5),
        ("shape", "<u4", 8),
    ]
)
VARIANT = np.dtype(
    [
        ("features", "<u8"),
        ("param_bytes", "<u8"),
        ("state_bytes", "<u8"),
        ("target", "<u4"),
        ("arch", "u1"),
        ("capability", "u1"),
        ("reserved", "u1", 2),
    ]
)
PLACEMENT = np.dtype(
    [("offset", "<u8"), ("storage", "<u4"), ("region", "u1"), ("trained", "u1"), ("reserved", "u1", 2)]
)
BUFFER = np.dtype([("offset", "<u8"), ("bytes", "<u8"), ("tensor", "<u4"), ("region", "u1"), ("reserved", "u1", 3)])
KERNEL = np.dtype(
    [
        ("entry", "<u8"),
        ("name", "<u4"),
        ("first_argument", "<u4"),
        ("argument_count", "<u4"),
        ("threads", "<u4"),
    ]
)
ARGUMENT = np.dtype([("bytes", "<u8"), ("access", "<u4"), ("reserved", "<u4")])
PROGRAM = np.dtype(
    [
        ("arena_bytes", "<u8"),
        ("name", "<u4"),
        ("first_call", "<u4"),
        ("call_count", "<u4"),
        ("first_binding", "<u4"),
        ("binding_count", "<u4"),
        ("reserved", "<u4"),
    ]
)
CALL = np.dtype(
    [
        ("macs", "<u8"),
        ("kernel", "<u4"),
        ("first_operand", "<u4"),
        ("tasks", "<i4"),
        ("label", "<u4"),
        ("opcode", "u1"),
        ("operand_count", "u1"),
        ("reserved", "u1", 6),
    ]
)
OPERAND = np.dtype("<u4")
BINDING = np.dtype(
    [
        ("low", "<i8"),
        ("high", "<i8"),
        ("ignored", "<i8"),
        ("name", "<u4"),
        ("buffer", "<u4"),
        ("slot", "u1"),
        ("dtype", "u1"),
        ("rank", "u1"),
        ("axis", "u1"),
        ("limit", "<u4"),
        ("shape", "<u4", 8),
    ]
)
PRODUCT = np.dtype(
    [
        ("strides", "<u8", 2),
        ("kernel", "<u4"),
        ("batch", "<u4"),
        ("rows", "<u4"),
        ("columns", "<u4"),
        ("depth", "<u4"),
        ("leading", "<u4", 2),
        ("factors", "u1", 2),
        ("transposed", "u1", 2),
        ("result", "u1"),
        ("tf32", "u1"),
        ("reserved", "u1", 6),
    ]
)

RECORDS = {
    Section.STORAGES: STORAGE,
    Section.TENSORS: TENSOR,
    Section.VARIANTS: VARIANT,
    Section.PLACEMENTS: PLACEMENT,
    Section.BUFFERS: BUFFER,
    Section.KERNELS: KERNEL,
    Section.ARGUMENTS: ARGUMENT,
    Section.PROGRAMS: PROGRAM,
    Section.CALLS: CALL,
    Section.OPERANDS: OPERAND,
    Section.BINDINGS: BINDING,
    Section.PRODUCTS: PRODUCT,
}
