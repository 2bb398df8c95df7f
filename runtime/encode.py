"""Records of an artifact to the tables of its sections. Limits are checked here: ValueError names the record."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from edgec.runtime import tables
from edgec.runtime.abi import BUFFER_ALIGNMENT, MAX_DEVICE_ARGS, MAX_KERNEL_ARGS, MAX_NAME, MAX_RANK, Arch, Storage
from edgec.runtime.dtypes import DTYPES, dtype_name
from edgec.runtime.format import Artifact, Opcode, Placement, Program, Region, Tensor, TensorKind, Variant
from edgec.runtime.tables import Section

IMAGE_ARCHS = (Arch.X86_64, Arch.AARCH64, Arch.CUDA, Arch.OPENCL)  # where the runtime loads code by itself


def align(offset: int, alignment: int = BUFFER_ALIGNMENT) -> int:
    return -(-offset // alignment) * alignment


class Names:
    """The STRINGS section: every name once, ended by a zero byte."""

    def __init__(self) -> None:
        self._offsets: dict[str, int] = {}
        self._bytes = bytearray()

    def offset(self, name: str) -> int:
        if name not in self._offsets:
            encoded = name.encode()
            if len(encoded) > MAX_NAME or b"\0" in encoded:
                message = f"name {name[:40]!r}... has {len(encoded)} bytes or a zero byte; the limit is {MAX_NAME}"
                raise ValueError(message)
            self._offsets[name] = len(self._bytes)
            self._bytes += encoded + b"\0"
        return self._offsets[name]

    @property
    def bytes(self) -> bytes:
        return bytes(self._bytes)


class Storages:
    """The STORAGES section: every descriptor once."""

    def __init__(self) -> None:
        self._index: dict[Storage, int] = {}

    def index(self, storage: Storage) -> int:
        if len(storage.dims) > MAX_RANK or sorted(storage.perm) != list(range(len(storage.dims))):
            raise ValueError(f"{storage} has a rank above {MAX_RANK}, or its perm is no permutation")
        return self._index.setdefault(storage, len(self._index))

    @property
    def bytes(self) -> bytes:
        rows = np.zeros(len(self._index), tables.STORAGE)
        for row, storage in zip(rows, self._index, strict=True):
            row["dims"][: len(storage.dims)] = storage.dims
            row["perm"][: len(storage.perm)] = storage.perm
            row["block"], row["rank"] = storage.block, len(storage.dims)
        return rows.tobytes()


def _padded(shape: Sequence[int], what: str) -> tuple[int, ...]:
    if len(shape) > MAX_RANK:
        raise ValueError(f"{what} has rank {len(shape)}; the limit is {MAX_RANK}")
    return (*shape, *(0 for _ in range(MAX_RANK - len(shape))))


def _table(dtype: np.dtype, rows: list[dict]) -> bytes:
    """Rows by field name; fields that a row leaves out are zero."""
    table = np.zeros(len(rows), dtype)
    for record, row in zip(table, rows, strict=True):
        for name, value in row.items():
            record[name] = value
    return table.tobytes()


def stored_tensor(tensor: Tensor) -> np.ndarray:
    """A tensor's elements in the order of the file, little-endian. A uint16 holds the bits of a bf16."""
    data = np.asarray(tensor.data)
    return tensor.storage.pack(data.astype(data.dtype.newbyteorder("<"), copy=False))


def begins_as_zeros(tensor: Tensor) -> bool:
    """Whether the file says so instead of holding the bytes: of states, which no variant reads from the file."""
    return tensor.kind == TensorKind.STATE and tensor.data.size > 0 and not np.ravel(tensor.data).view(np.uint8).any()


def encode_tensors(artifact: Artifact, names: Names, storages: Storages) -> tuple[bytes, list[Tensor]]:
    """The TENSORS table, and the tensors that lie in WEIGHTS, each at the next multiple of 64."""
    rows, stored, end = [], [], 0
    for tensor in artifact.tensors:
        if tensor.storage.size != tensor.data.size:
            raise ValueError(
                f"tensor `{tensor.name}` has {tensor.data.size} elements, its storage {tensor.storage.size}"
            )
        zeros = begins_as_zeros(tensor)
        rows.append(
            {
                "offset": tables.ZEROS if zeros else end,
                "bytes": tensor.data.nbytes,
                "name": names.offset(tensor.name),
                "storage": storages.index(tensor.storage),
                "kind": tensor.kind,
                "dtype": DTYPES.index(dtype_name(tensor.data.dtype)),
                "rank": tensor.data.ndim,
                "shape": _padded(tensor.data.shape, f"tensor `{tensor.name}`"),
            }
        )
        if not zeros:
            stored.append(tensor)
            end = align(end + tensor.data.nbytes)
    _refuse_duplicates([tensor.name for tensor in artifact.tensors], "tensor")
    return _table(tables.TENSOR, rows), stored


def _refuse_duplicates(names: list[str], what: str) -> None:
    if len(set(names)) != len(names):
        raise ValueError(f"{what} `{next(name for name in names if names.count(name) > 1)}` occurs twice")


def encode_variants(artifact: Artifact, names: Names) -> bytes:
    rows = [
        {
            "features": int(variant.features),
            "param_bytes": variant.param_bytes,
            "state_bytes": variant.state_bytes,
            "target": names.offset(variant.target),
            "arch": variant.arch,
            "capability": variant.capability,
        }
        for variant in artifact.variants
    ]
    return _table(tables.VARIANT, rows)


def _encode_placements(artifact: Artifact, variant: Variant, storages: Storages) -> bytes:
    """In the order of tensors. Regions are dense: so the reader bounds them and knows that nothing overlaps."""
    placements: list[Placement] = sorted(variant.placements, key=lambda placement: placement.tensor)
    if [placement.tensor for placement in placements] != list(range(len(artifact.tensors))):
        raise ValueError(f"variant `{variant.target}` must place every tensor once")
    sizes = {Region.PARAM: 0, Region.STATE: 0}
    rows = []
    for placement, tensor in zip(placements, artifact.tensors, strict=True):
        if placement.region == Region.WEIGHTS:
            if placement.storage != tensor.storage:
                raise ValueError(f"`{tensor.name}` is read from the file in a storage that is not the file's")
        elif placement.offset != sizes[placement.region]:
            raise ValueError(f"`{tensor.name}` must lie at {sizes[placement.region]} of its region")
        else:
            sizes[placement.region] = align(placement.offset + tensor.data.nbytes)
        rows.append(
            {
                "offset": placement.offset if placement.region != Region.WEIGHTS else 0,
                "storage": storages.index(placement.storage),
                "region": placement.region,
                "trained": placement.trained,
            }
        )
    if (variant.param_bytes, variant.state_bytes) != tuple(sizes.values()):
        raise ValueError(f"variant `{variant.target}` must have regions of {tuple(sizes.values())} bytes")
    return _table(tables.PLACEMENT, rows)


def _encode_buffers(variant: Variant) -> bytes:
    rows = [
        {
            "offset": buffer.offset,
            "bytes": buffer.bytes,
            "tensor": buffer.tensor if buffer.region == Region.WEIGHTS else tables.NONE,
            "region": buffer.region,
        }
        for buffer in variant.buffers
    ]
    return _table(tables.BUFFER, rows)


def _encode_kernels(variant: Variant, names: Names) -> tuple[bytes, bytes]:
    """KERNELS and ARGUMENTS."""
    kernels, arguments = [], []
    most = MAX_DEVICE_ARGS if variant.arch.is_device else MAX_KERNEL_ARGS
    for kernel in variant.kernels:
        if not 1 <= len(kernel.arguments) <= most:
            raise ValueError(f"kernel `{kernel.name}` has {len(kernel.arguments)} pointers; 1 to {most} work")
        kernels.append(
            {
                "entry": kernel.entry,
                "name": names.offset(kernel.name),
                "first_argument": len(arguments),
                "argument_count": len(kernel.arguments),
                "threads": kernel.threads,
            }
        )
        arguments += [{"bytes": argument.bytes, "access": argument.access} for argument in kernel.arguments]
    return _table(tables.KERNEL, kernels), _table(tables.ARGUMENT, arguments)


def _encode_products(variant: Variant) -> bytes:
    """In the order of kernels."""
    rows = []
    for index, kernel in enumerate(variant.kernels):
        if kernel.product is None:
            continue
        product, factors = kernel.product, (kernel.product.left, kernel.product.right)
        rows.append(
            {
                "strides": [factor.stride for factor in factors],
                "kernel": index,
                "batch": product.batch,
                "rows": product.rows,
                "columns": product.columns,
                "depth": product.depth,
                "leading": [factor.leading for factor in factors],
                "factors": [factor.argument for factor in factors],
                "transposed": [factor.transposed for factor in factors],
                "result": product.result,
                "tf32": product.tf32,
            }
        )
    return _table(tables.PRODUCT, rows)


def _encode_programs(variant: Variant, names: Names) -> dict[Section, bytes]:
    """PROGRAMS, CALLS, OPERANDS, BINDINGS. Records of a program follow those of the one before it."""
    programs, calls, bindings = [], [], []
    operands: list[int] = []
    for program in variant.programs:
        programs.append(
            {
                "arena_bytes": program.arena_bytes,
                "name": names.offset(program.name),
                "first_call": len(calls),
                "call_count": len(program.calls),
                "first_binding": len(bindings),
                "binding_count": len(program.bindings),
            }
        )
        for call in program.calls:
            calls.append(
                {
                    "macs": call.macs,
                    "kernel": call.kernel if call.opcode == Opcode.KERNEL else tables.NONE,
                    "first_operand": len(operands),
                    "tasks": call.tasks,
                    "label": names.offset(call.label),
                    "opcode": call.opcode,
                    "operand_count": len(call.operands),
                }
            )
            operands += call.operands
        for binding in program.bindings:
            bindings.append(
                {
                    "low": binding.low,
                    "high": binding.high,
                    "ignored": binding.low if binding.ignored is None else binding.ignored,
                    "name": names.offset(binding.name),
                    "buffer": binding.buffer,
                    "slot": binding.slot,
                    "dtype": DTYPES.index(binding.dtype),
                    "rank": len(binding.shape),
                    "axis": binding.count_axis,
                    "limit": _binding_number(program, binding.below or binding.count),
                    "shape": _padded(binding.shape, f"`{binding.name}` of program `{program.name}`"),
                }
            )
        _refuse_duplicates([binding.name for binding in program.bindings], f"in program `{program.name}`,")
    _refuse_duplicates([program.name for program in variant.programs], "program")
    return {
        Section.PROGRAMS: _table(tables.PROGRAM, programs),
        Section.CALLS: _table(tables.CALL, calls),
        Section.OPERANDS: np.asarray(operands, tables.OPERAND).tobytes(),
        Section.BINDINGS: _table(tables.BINDING, bindings),
    }


def _binding_number(program: Program, name: str | None) -> int:
    """0 for none, else 1 + the number of the program's binding `name`."""
    return 0 if name is None else 1 + [binding.name for binding in program.bindings].index(name)


def encode_variant(artifact: Artifact, variant: Variant, names: Names, storages: Storages) -> dict[Section, bytes]:
    """All sections of one variant."""
    kernels, arguments = _encode_kernels(variant, names)
    sections = {
        Section.PLACEMENTS: _encode_placements(artifact, variant, storages),
        Section.BUFFERS: _encode_buffers(variant),
        Section.KERNELS: kernels,
        Section.ARGUMENTS: arguments,
        **_encode_programs(variant, names),
    }
    if products := _encode_products(variant):
        sections[Section.PRODUCTS] = products
    if variant.code:
        sections[Section.CODE if variant.arch in IMAGE_ARCHS else Section.SOURCE] = variant.code
    return sections


def encode_manifest(artifact: Artifact) -> bytes:
    return json.dumps(artifact.manifest, sort_keys=True, ensure_ascii=False).encode()
