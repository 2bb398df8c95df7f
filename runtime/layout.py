"""An artifact to a file and back: header, section table, alignment, checksums. The bytes are described in README.md."""

from __future__ import annotations

import contextlib
import io
import os
import zlib
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edgec.runtime import tables
from edgec.runtime.decode import decode, decode_manifest
from edgec.runtime.encode import (
    Names,
    Storages,
    align,
    encode_manifest,
    encode_tensors,
    encode_variant,
    encode_variants,
    stored_tensor,
)
from edgec.runtime.errors import RuntimeFailure
from edgec.runtime.format import Artifact, Tensor
from edgec.runtime.original import encode_originals
from edgec.runtime.tables import Section

PAGED = (Section.WEIGHTS, Section.CODE)


# ---- Writing. ----


class _Writer:
    """Appends sections to a stream and remembers where they are; the header is filled in at the end."""

    def __init__(self, stream: BinaryIO, page_bytes: int, section_count: int):
        self._stream = stream
        self._page_bytes = page_bytes
        self._rows = np.zeros(section_count, tables.SECTION)
        self._count = 0
        self._position = tables.HEADER.itemsize + self._rows.nbytes
        stream.write(bytes(self._position))

    def _write(self, data: bytes | memoryview) -> None:
        self._stream.write(data)
        self._position += len(data)

    def append(self, section: Section, variant: int, pieces: Iterable[bytes | memoryview]) -> None:
        start = align(self._position, self._page_bytes if section in PAGED else 8)
        self._write(bytes(start - self._position))
        crc = 0
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
            self._write(piece)
        self._rows[self._count] = (section, variant, start, self._position - start, crc, 0)
        self._count += 1

    def finish(self, fingerprint: bytes) -> None:
        rows = self._rows.tobytes()
        header = np.zeros((), tables.HEADER)
        header["magic"] = np.frombuffer(tables.MAGIC, "u1")
        header["version"] = tables.VERSION
        header["section_count"] = self._count
        header["file_bytes"] = self._position
        header["fingerprint"] = np.frombuffer(fingerprint, "u1")
        header["page_bytes"] = self._page_bytes
        header["sections_crc32"] = zlib.crc32(rows)
        header["header_crc32"] = zlib.crc32(header.tobytes()[:-4])
        self._stream.seek(0)
        self._stream.write(header.tobytes() + rows)


def _weights(tensors: Iterable[Tensor]) -> Iterator[memoryview | bytes]:
    """One tensor at a time, so that a large model is in memory once."""
    for tensor in tensors:
        stored = stored_tensor(tensor)
        yield memoryview(stored.view(np.uint8)) if stored.size else b""
        yield bytes(align(stored.nbytes) - stored.nbytes)


def _write(stream: BinaryIO, artifact: Artifact) -> None:
    if len(artifact.fingerprint) != 16:
        raise ValueError(f"the fingerprint has {len(artifact.fingerprint)} bytes, not 16")
    names, storages = Names(), Storages()
    tensor_table, stored = encode_tensors(artifact, names, storages)
    variant_table = encode_variants(artifact, names)
    variants = [encode_variant(artifact, variant, names, storages) for variant in artifact.variants]
    shared = {
        Section.STRINGS: names.bytes,
        Section.STORAGES: storages.bytes,
        Section.TENSORS: tensor_table,
        Section.VARIANTS: variant_table,
        Section.MANIFEST: encode_manifest(artifact),
    }
    if artifact.originals:
        data = {tensor.name: tensor.data for tensor in artifact.tensors}
        shared[Section.ORIGINALS] = encode_originals(artifact.originals, data)
    has_image = any(Section.CODE in sections for sections in variants)
    page_bytes = tables.IMAGE_PAGE_BYTES if has_image else tables.PLAIN_PAGE_BYTES
    writer = _Writer(stream, page_bytes, len(shared) + sum(map(len, variants)) + 1)
    for section, data in shared.items():
        writer.append(section, tables.NONE, [data])
    for index, sections in enumerate(variants):
        for section, data in sections.items():
            writer.append(section, index, [data])
    writer.append(Section.WEIGHTS, tables.NONE, _weights(stored))
    writer.finish(artifact.fingerprint)


def artifact_bytes(artifact: Artifact) -> bytes:
    """The file as bytes. ValueError where a record breaks a limit of the format."""
    stream = io.BytesIO()
    _write(stream, artifact)
    return stream.getvalue()


def write_artifact(
    path: str | os.PathLike[str], artifact: Artifact, inspect: Callable[[Path], None] | None = None
) -> None:
    """Write to a temporary file beside `path`, sync, rename: `path` is the old file or the whole new one.

    `inspect` sees the temporary file before it takes its name; what it raises leaves the old file. OSError where the
    file system refuses; nothing is left behind. ValueError where a record breaks a limit.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            _write(stream, artifact)
            stream.flush()
            os.fsync(stream.fileno())
        if inspect is not None:
            inspect(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


# ---- Reading. ----


def _read_header(data: memoryview, where: str | None) -> np.void:
    if bytes(data[:8]) != tables.MAGIC[: len(data)] or not len(data):
        raise RuntimeFailure("E0501", "the file is not an edgec artifact", where=where)
    if len(data) < tables.HEADER.itemsize:
        raise RuntimeFailure("E0502", "the artifact is cut short", where=where)
    header = np.frombuffer(data[: tables.HEADER.itemsize], tables.HEADER)[0]
    if header["version"] > tables.VERSION:
        raise RuntimeFailure(
            "E0503",
            f"the artifact has format {header['version']}; this runtime reads up to {tables.VERSION}",
            where=where,
            hint="install a newer edgec, or compile the model again with this one",
        )
    if zlib.crc32(data[: tables.HEADER.itemsize - 4]) != header["header_crc32"]:
        raise RuntimeFailure("E0502", "the artifact is damaged: its header's checksum differs", where=where)
    if header["file_bytes"] != len(data):
        raise RuntimeFailure("E0502", f"the artifact has {len(data)} bytes, not {header['file_bytes']}", where=where)
    return header


def _read_sections(
    data: memoryview, header: np.void, where: str | None, wanted: Container[Section] = tuple(Section)
) -> dict[tuple[Section, int], memoryview]:
    table = data[tables.HEADER.itemsize :][: int(header["section_count"]) * tables.SECTION.itemsize]
    damaged = zlib.crc32(table) != header["sections_crc32"] or len(table) % tables.SECTION.itemsize
    if damaged:
        raise RuntimeFailure("E0502", "the artifact is damaged: its section table's checksum differs", where=where)
    known = {int(section) for section in Section if section in wanted}
    sections = {}
    for row in np.frombuffer(table, tables.SECTION):
        if row["type"] not in known:
            continue
        section, start, size = Section(row["type"]), int(row["offset"]), int(row["bytes"])
        content = data[start : start + size]
        if len(content) != size or zlib.crc32(content) != row["crc32"]:
            message = f"the artifact is damaged: the checksum of section {section.name} differs"
            raise RuntimeFailure("E0502", message, where=where)
        sections[section, int(row["variant"])] = content
    return sections


def read_artifact(source: str | os.PathLike[str] | bytes) -> Artifact:
    """All records of a file or of its bytes; tensors come out in logical form.

    RuntimeFailure: E0501 not an artifact, E0502 damaged, E0503 newer format, E0507 cannot be read.
    """
    where = None
    if not isinstance(source, bytes):
        where = os.fspath(source)
        with _opened(where) as file:
            source = file.read()
    data = memoryview(source)
    header = _read_header(data, where)
    return decode(header["fingerprint"].tobytes(), _read_sections(data, header, where))


def read_manifest(path: str | os.PathLike[str]) -> dict:
    """What an artifact says of itself in JSON; its weights are not read. RuntimeFailure as `read_artifact`."""
    where = os.fspath(path)
    with _opened(where) as file:
        data = memoryview(np.memmap(file, np.uint8, "r")) if os.fstat(file.fileno()).st_size else memoryview(b"")
    sections = _read_sections(data, _read_header(data, where), where, wanted=(Section.MANIFEST,))
    return decode_manifest(sections)


@contextlib.contextmanager
def _opened(where: str) -> Iterator[BinaryIO]:
    try:
        with open(where, "rb") as file:
            yield file
    except OSError as error:
        raise RuntimeFailure("E0507", f"cannot read the artifact: {error.strerror}", where=where) from error
