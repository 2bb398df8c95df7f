"""`.pt2` files: read without torch's loader, which unpickles, evaluates expressions and loads shared libraries.

torch.export.load calls `torch.load(weights_only=False)` for sample inputs, constants and older weights, `eval` (through
sympy) for symbolic sizes, compiles the guards that the file brings as Python text, imports modules that a tree
specification names, and opens the shared libraries of an AOTInductor package. None of that is needed for a model. Here
the program is JSON, checked against `vetted` before torch's deserializer sees it; tensors are raw bytes of the archive,
mapped; pickled entries are refused where the program needs them and never opened where it does not.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch._export.serde import schema, serialize
from torch.export import ExportedProgram

from edgec.frontend.torch.vetted import Refused, vet_program
from edgec.graph.errors import UserError

_PROGRAM = "models/model.json"
_MAX_JSON = 2**26  # bytes of the program, or of a list of tensors
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_HINT = "torch.export.save(torch.export.export(module.eval(), example_inputs), 'model.pt2')"


def load_archive(path: Path) -> ExportedProgram:
    """The program of a `.pt2` file. UserError E0101 if it is none, E0102 if it is damaged or holds what it must not,
    E0106 if it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _Archive(path, archive).program()
    except OSError as error:
        raise UserError("E0106", f"cannot read the model: {error.strerror or error}", where=str(path)) from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OverflowError) as error:
        raise UserError("E0101", f"it is not a torch.export archive: {error}", where=str(path), hint=_HINT) from error
    except Refused as error:
        raise UserError("E0102", str(error), where=str(path), hint=_HINT) from error


class _Archive:
    def __init__(self, path: Path, archive: zipfile.ZipFile):
        self.path, self.archive = path, archive
        self.entries: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            if info.filename in self.entries:
                raise Refused(f"the archive holds `{info.filename}` twice")
            self.entries[info.filename] = info
        programs = [name for name in self.entries if name == _PROGRAM or name.endswith(f"/{_PROGRAM}")]
        if len(programs) != 1:
            raise UserError("E0101", "it is not a torch.export archive", where=str(path), hint=_HINT)
        self.prefix = programs[0].removesuffix(_PROGRAM)
        if "byteorder" in self.entries or f"{self.prefix}byteorder" in self.entries:
            if self.read(self.prefix + "byteorder").strip() != b"little":
                raise Refused("the archive was written on a big-endian machine")

    def program(self) -> ExportedProgram:
        described = self.json(_PROGRAM)
        vet_program(described)
        weights = self.tensors("data/weights/", "model_weights_config.json")
        constants = self.tensors("data/constants/", "model_constants_config.json")
        try:
            record = serialize._dict_to_dataclass(schema.ExportedProgram, described)
            return serialize.ExportedProgramDeserializer(None).deserialize(record, weights, constants, b"")
        except RecursionError:
            raise Refused("the program is nested too deeply") from None
        except Exception as error:  # torch's deserializer trusts its input: anything may happen in it
            line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise Refused(f"torch {torch.__version__} cannot read the program: {line}") from error

    # -- tensors ----------------------------------------------------------------------------------------------------

    def tensors(self, folder: str, index: str) -> dict[str, torch.Tensor]:
        """Tensors by name; those that share an entry share its memory."""
        config = self.json(folder + index).get("config")
        if not isinstance(config, dict):
            raise Refused(f"`{index}` lists no tensors")
        flat: dict[str, np.ndarray] = {}
        tensors = {}
        for name, payload in config.items():
            if not isinstance(payload, dict) or not isinstance(payload.get("path_name"), str):
                raise Refused(f"`{index}` does not describe `{name}`")
            file = payload["path_name"]
            if payload.get("use_pickle") is not False or payload.get("tensor_meta") is None:
                raise Refused(f"`{name}` is stored as a pickled object, which is never loaded")
            if file not in flat:
                flat[file] = self.mapped(f"{self.prefix}{folder}{file}")
            tensor = _strided(name, flat[file], payload["tensor_meta"])
            if payload.get("is_param"):
                gradient = bool(payload["tensor_meta"].get("requires_grad"))
                tensor = torch.nn.Parameter(tensor, requires_grad=gradient and tensor.is_floating_point())
            tensors[name] = tensor
        return tensors

    def mapped(self, name: str) -> np.ndarray:
        """The bytes of an entry, mapped from the file; changes of them stay in this process."""
        info = self.entry(name)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise Refused(f"`{name}` is compressed or encrypted")
        with open(self.path, "rb") as file:
            file.seek(info.header_offset)
            header = file.read(_LOCAL_HEADER.size)
            size = file.seek(0, 2)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise Refused(f"`{name}` lies outside the file")
        *_, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        start = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        if start + info.file_size > size:
            raise Refused(f"`{name}` lies outside the file")
        if not info.file_size:
            return np.zeros(0, np.uint8)
        return np.memmap(self.path, np.uint8, "c", start, (info.file_size,))

    # -- entries ----------------------------------------------------------------------------------------------------

    def entry(self, name: str) -> zipfile.ZipInfo:
        if name not in self.entries:
            raise Refused(f"the archive lacks `{name}`")
        return self.entries[name]

    def read(self, name: str) -> bytes:
        info = self.entry(name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > _MAX_JSON:
            raise Refused(f"`{name}` is compressed, or larger than {_MAX_JSON >> 20} MiB")
        try:
            return self.archive.read(info)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error) as error:
            raise Refused(f"`{name}` cannot be read: {error}") from None

    def json(self, name: str) -> dict:
        try:
            value = json.loads(self.read(self.prefix + name))
        except (ValueError, RecursionError) as error:
            raise Refused(f"`{name}` is not JSON: {type(error).__name__}") from None
        if not isinstance(value, dict):
            raise Refused(f"`{name}` is not a JSON object")
        return value


def _strided(name: str, data: np.ndarray, meta: dict) -> torch.Tensor:
    """A tensor over the bytes of its entry; it must lie inside them."""
    try:
        dtype = serialize.deserialize_scalar_type(meta["dtype"])
        sizes, strides = ([item["as_int"] for item in meta[key]] for key in ("sizes", "strides"))
        offset = meta["storage_offset"]["as_int"]
    except (KeyError, TypeError, ValueError, AssertionError):
        raise Refused(f"the shape of `{name}` is not described") from None
    numbers = [*sizes, *strides, offset]
    if len(sizes) != len(strides) or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
        raise Refused(f"the shape of `{name}` makes no sense")
    reach = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True)) + 1
    if math.prod(sizes) and reach * dtype.itemsize > data.size:
        raise Refused(f"`{name}` is larger than its entry in the archive")
    if math.prod(sizes) > 2**31 - 1:
        raise Refused(f"`{name}` has more than {2**31 - 1} elements")
    if data.size % dtype.itemsize or (data.size and data.ctypes.data % dtype.itemsize):
        data = data[: data.size - data.size % dtype.itemsize].copy()
    flat = torch.from_numpy(data).view(dtype) if data.size else torch.empty(0, dtype=dtype)
    return flat.as_strided(sizes, strides, offset) if math.prod(sizes) else torch.empty(sizes, dtype=dtype)
