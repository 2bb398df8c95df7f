"""Changing fields of an artifact behind right checksums, as a wrong compiler or a patient attacker would."""

from __future__ import annotations

import zlib

import numpy as np

from edgec.runtime import tables
from edgec.runtime.tables import Section

SHARED = (Section.STRINGS, Section.STORAGES, Section.TENSORS, Section.VARIANTS, Section.WEIGHTS, Section.MANIFEST)

REQUIRED = tuple(section for section in tables.RECORDS if section != Section.PRODUCTS)  # that may be absent


class Tampered:
    """A file in pieces: `header`, `sections` (its table) and `content(section)`, all writable; `bytes()` seals it."""

    def __init__(self, data: bytes):
        self._data = bytearray(data)
        self.header = np.frombuffer(self._data, tables.HEADER, count=1)[0]
        count = int(self.header["section_count"])
        self.sections = np.frombuffer(self._data, tables.SECTION, count=count, offset=tables.HEADER.itemsize)

    def row(self, section: Section, variant: int = 0) -> np.void:
        """The section's line in the section table."""
        wanted = tables.NONE if section in SHARED else variant
        return next(row for row in self.sections if row["type"] == section and row["variant"] == wanted)

    def records(self, section: Section, variant: int = 0) -> np.ndarray:
        row = self.row(section, variant)
        dtype = tables.RECORDS.get(section, np.dtype("u1"))
        return np.frombuffer(self._data, dtype, count=int(row["bytes"]) // dtype.itemsize, offset=int(row["offset"]))

    def bytes(self) -> bytes:
        """With all checksums computed anew, of sections that still lie inside the file."""
        for row in self.sections:
            content = self._data[int(row["offset"]) :][: int(row["bytes"])]
            row["crc32"] = zlib.crc32(content)
        self.header["sections_crc32"] = zlib.crc32(self.sections.tobytes())
        self.header["header_crc32"] = zlib.crc32(self.header.tobytes()[:-4])
        return bytes(self._data)
