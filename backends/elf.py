"""Reading ELF64 little-endian files, and the rules that kernel objects and code images obey.

Written from the System V gABI (chapters 4 and 5). Only what the rules need is read; the one change is a symbol's name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Set
from dataclasses import dataclass

from edgec.graph.errors import InternalError
from edgec.runtime.abi import Arch

PAGE = 4096
# What LLVM makes of a run of stores of one constant, and the linker adds where a kernel calls it.
FILL = "memset"

_MACHINES = {Arch.X86_64: 62, Arch.AARCH64: 183}  # e_machine
_ET_REL, _ET_DYN = 1, 3
_PT_LOAD = 1
_PF_X, _PF_R = 1, 4
_SHT_SYMTAB, _SHT_STRTAB, _SHT_RELA, _SHT_NOBITS, _SHT_REL = 2, 3, 4, 8, 9
_SECTION_HEADER = 64  # bytes
_SHF_WRITE, _SHF_ALLOC = 1, 2
_STT_FUNC = 2
_STB_LOCAL = 0
_SHN_UNDEF = 0


@dataclass(frozen=True)
class Section:
    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    alignment: int

    @property
    def is_loaded(self) -> bool:
        return bool(self.flags & _SHF_ALLOC) and self.size > 0

    @property
    def is_writable(self) -> bool:
        return bool(self.flags & _SHF_WRITE)


@dataclass(frozen=True)
class Symbol:
    name: str
    value: int
    size: int
    is_function: bool
    is_local: bool
    is_defined: bool


@dataclass(frozen=True)
class Segment:
    type: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int


@dataclass(frozen=True)
class Elf:
    type: int
    machine: int
    sections: tuple[Section, ...]
    segments: tuple[Segment, ...]
    symbols: tuple[Symbol, ...]


def parse(data: bytes) -> Elf:
    """Headers and the symbol table of an ELF64 little-endian file. InternalError if it is not one or is cut short."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise InternalError("not a 64-bit little-endian ELF file")
    try:
        kind, machine, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, shstrndx = struct.unpack_from(
            "<HHIQQQIHHHHHH", data, 16
        )
        segments = tuple(_segment(data, phoff + i * phentsize) for i in range(phnum))
        headers = [struct.unpack_from("<IIQQQQIIQQ", data, shoff + i * shentsize) for i in range(shnum)]
        name_start = headers[shstrndx][4] if shnum else 0
        sections = tuple(_section(data, name_start, header) for header in headers)
        symbols = tuple(symbol for section in sections for symbol in _symbols(data, section, sections))
    except (struct.error, IndexError, ValueError) as error:
        raise InternalError(f"damaged ELF file: {error}") from error
    return Elf(kind, machine, sections, segments, symbols)


def _segment(data: bytes, at: int) -> Segment:
    kind, flags, offset, address, _, file_size, memory_size, _ = struct.unpack_from("<IIQQQQQQ", data, at)
    return Segment(kind, flags, offset, address, file_size, memory_size)


def _section(data: bytes, name_start: int, header: tuple[int, ...]) -> Section:
    name, kind, flags, address, offset, size, link, _, alignment, _ = header
    return Section(_string(data, name_start + name), kind, flags, address, offset, size, link, alignment)


def _symbols(data: bytes, section: Section, sections: tuple[Section, ...]) -> Iterable[Symbol]:
    if section.type != _SHT_SYMTAB:
        return
    names = sections[section.link].offset
    # The first entry is the reserved undefined symbol.
    for at in range(section.offset + 24, section.offset + section.size, 24):
        name, info, _, index, value, size = struct.unpack_from("<IBBHQQ", data, at)
        yield Symbol(
            name=_string(data, names + name),
            value=value,
            size=size,
            is_function=info & 15 == _STT_FUNC,
            is_local=info >> 4 == _STB_LOCAL,
            is_defined=index != _SHN_UNDEF,
        )


def _string(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def rename_symbol(data: bytes, old: str, new: str) -> bytes:
    """A copy of an object in which the symbol `old` is called `new`. InternalError if there is not just one of it."""
    elf, (shoff,) = parse(data), struct.unpack_from("<Q", data, 40)
    (shentsize,) = struct.unpack_from("<H", data, 58)
    table = next(section for section in elf.sections if section.type == _SHT_SYMTAB)
    names = elf.sections[table.link]
    matches = [
        at
        for at in range(table.offset + 24, table.offset + table.size, 24)
        if _string(data, names.offset + struct.unpack_from("<I", data, at)[0]) == old
    ]
    _require(len(matches) == 1, old, f"names {len(matches)} symbols of the object")
    # A longer string table, at the end of the file; sections keep their offsets.
    renamed = bytearray(data + data[names.offset : names.offset + names.size] + new.encode() + b"\0")
    struct.pack_into("<I", renamed, matches[0], names.size)
    struct.pack_into("<QQ", renamed, shoff + table.link * shentsize + 24, len(data), len(renamed) - len(data))
    return bytes(renamed)


def check_object(data: bytes, arch: Arch, symbol: str) -> None:
    """One kernel's relocatable object: it defines `symbol`, which it never calls, needs nothing but `FILL` and holds
    nothing writable.

    A kernel calls no kernel. Where its function has the name of one of C's library, a call of that name would be meant
    for the library and end up here. InternalError names the kernel and what is wrong.
    """
    elf = parse(data)
    _require(elf.type == _ET_REL and elf.machine == _MACHINES[arch], symbol, "is not an object for its target")
    _check_closed(elf, symbol, {FILL})
    if not any(s.name == symbol and s.is_function and s.is_defined for s in elf.symbols):
        raise InternalError(f"kernel `{symbol}`: the object does not define its function")
    _require(symbol not in _referred(data, elf), symbol, "calls itself")


def check_image(data: bytes, arch: Arch) -> None:
    """A code image: one segment, read and execute, whose addresses are file offsets; no relocations; nothing writable.

    The segment starts at the file's first byte and holds all that the code reads, so whoever maps the file read-execute
    at a page boundary can call `start + offset`. Symbols may follow the segment; nothing that runs reads them.
    """
    image = "the code image"
    elf = parse(data)
    _require(elf.machine == _MACHINES[arch], image, "is for another machine")
    _require(elf.type == _ET_DYN, image, "is not position independent")
    _require(len(elf.segments) == 1 and elf.segments[0].type == _PT_LOAD, image, "has more than one segment")
    segment = elf.segments[0]
    _require(segment.flags == _PF_R | _PF_X, image, "is not mapped read and execute only")
    _require(segment.offset == 0 and segment.address == 0, image, "does not start at its first byte")
    _require(segment.file_size == segment.memory_size <= len(data), image, "needs memory beyond the file")
    _check_closed(elf, image)
    for section in elf.sections:
        if section.is_loaded:
            _require(section.type not in (_SHT_RELA, _SHT_REL), image, f"has dynamic relocations ({section.name})")
            _require(section.address == section.offset, image, f"has {section.name} not at its file offset")
            _require(section.offset + section.size <= segment.file_size, image, f"leaves {section.name} unmapped")
            _require(section.alignment <= PAGE, image, f"aligns {section.name} to more than a page")


def entry_offsets(data: bytes, names: Iterable[str]) -> dict[str, int]:
    """File offsets of the functions `names` of a code image. InternalError if one is missing or stands there twice."""
    wanted = set(names)
    offsets: dict[str, int] = {}
    for symbol in parse(data).symbols:
        if symbol.name in wanted and symbol.is_function and symbol.is_defined:
            _require(symbol.name not in offsets, f"kernel `{symbol.name}`", "is defined twice")
            offsets[symbol.name] = symbol.value
    missing = wanted - offsets.keys()
    if missing:
        raise InternalError(f"the code image lacks {', '.join(f'`{name}`' for name in sorted(missing))}")
    return offsets


def without_symbols(image: bytes) -> bytes:
    """A code image with none but its loaded sections: names of kernels, 5 % of it, stand in the artifact anyway."""
    elf, (shoff,) = parse(image), struct.unpack_from("<Q", image, 40)
    (segment,) = elf.segments
    names, headers = bytearray(1), [bytes(_SECTION_HEADER)]
    for place, section in enumerate(elf.sections):
        if section.is_loaded:
            header = bytearray(image[shoff + place * _SECTION_HEADER :][:_SECTION_HEADER])
            struct.pack_into("<I", header, 0, len(names))
            headers.append(bytes(header))
            names += section.name.encode() + b"\0"
    own, end = len(names), segment.file_size
    names += b".shstrtab\0"
    headers.append(struct.pack("<IIQQQQIIQQ", own, _SHT_STRTAB, 0, 0, end, len(names), 0, 0, 1, 0))
    names += bytes(-(end + len(names)) % 8)
    cut = bytearray(image[:end] + names + b"".join(headers))
    struct.pack_into("<Q", cut, 40, end + len(names))  # e_shoff
    struct.pack_into("<HHH", cut, 58, _SECTION_HEADER, len(headers), len(headers) - 1)  # e_shentsize and on
    return bytes(cut)


def needs_fill(data: bytes) -> bool:
    """Whether an object calls `FILL`."""
    return any(symbol.name == FILL and not symbol.is_defined for symbol in parse(data).symbols)


def _referred(data: bytes, elf: Elf) -> set[str]:
    """Names of the symbols that relocations of code and constants refer to."""
    names = set()
    for section in elf.sections:
        if section.type == _SHT_RELA and not section.name.startswith((".rela.debug", ".rela.eh_frame")):
            table = elf.sections[section.link]
            strings = elf.sections[table.link].offset
            for at in range(section.offset, section.offset + section.size, 24):
                (info,) = struct.unpack_from("<Q", data, at + 8)
                names.add(_string(data, strings + struct.unpack_from("<I", data, table.offset + 24 * (info >> 32))[0]))
    return names


def _check_closed(elf: Elf, where: str, given: Set[str] = frozenset()) -> None:
    undefined = sorted({s.name for s in elf.symbols if not s.is_defined} - given)
    if undefined:
        raise InternalError(f"{_quote(where)} needs symbols from outside: {', '.join(undefined)}")
    writable = [s.name for s in elf.sections if s.is_loaded and s.is_writable]
    if writable:
        raise InternalError(f"{_quote(where)} has writable memory: {', '.join(writable)}")
    if any(s.type == _SHT_NOBITS and s.is_loaded for s in elf.sections):
        raise InternalError(f"{_quote(where)} has zero-filled memory")


def _require(condition: bool, where: str, problem: str) -> None:
    if not condition:
        raise InternalError(f"{_quote(where)} {problem}")


def _quote(where: str) -> str:
    return where if " " in where else f"kernel `{where}`"
