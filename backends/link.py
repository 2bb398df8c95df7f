"""Linking the objects of one image into a file that the runtime maps as it is: see `elf.check_image` for the rules."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgec.backends import elf
from edgec.backends.toolchain import execute, require, toolchain
from edgec.runtime.abi import Arch

# Every kernel is a root; helper functions and constants stay only where a kernel refers to them. Functions start on
# cache lines, so that a kernel's speed does not depend on its neighbours. GNU ld always reserves some entries of a
# global offset table on aarch64; they are never read.
_SCRIPT = """
PHDRS { code PT_LOAD FILEHDR PHDRS FLAGS(5); }
SECTIONS
{
  . = SIZEOF_HEADERS;
  .text : SUBALIGN(64) { KEEP(*(.text)) *(.text.*) FILL_CODE } :code
  .rodata (READONLY) : { *(.rodata .rodata.*) *(.got .got.plt) } :code
  /DISCARD/ : { *(.dynamic) *(.dynsym) *(.dynstr) *(.hash) *(.gnu.hash) *(.interp) *(.comment) *(.note*) }
}
"""
# memset(to, byte, count), byte by byte: kernels that fill much, or often, have code of their own for it.
_FILL = {
    # mov rcx, rdx; mov rdx, rdi; mov eax, esi; rep stosb; mov rax, rdx; ret
    Arch.X86_64: bytes.fromhex("4889d1 4889fa 89f0 f3aa 4889d0 c3"),
    # mov x3, x0; 1: cbz x2, 2f; strb w1, [x3], #1; sub x2, x2, #1; b 1b; 2: ret
    Arch.AARCH64: struct.pack("<6I", 0xAA0003E3, 0xB4000082, 0x38001461, 0xD1000442, 0x17FFFFFD, 0xD65F03C0),
}
_FLAGS = (
    "-pie",
    "--no-dynamic-linker",
    "--no-undefined",
    "--gc-sections",
    "--strip-debug",
    "--discard-all",
    "--build-id=none",
    "-z",
    "norelro",
    "-z",
    f"max-page-size={elf.PAGE}",
)
_TIMEOUT = 120.0


def link(objects: Mapping[str, bytes], arch: Arch) -> bytes:
    """One code image from relocatable objects by symbol name, in the order of the names: equal input, equal bytes.

    Of a weak helper that several objects define the first copy stays. UserError E0402 without a linker; InternalError
    if the result breaks a rule.
    """
    linker = require(toolchain(arch).linker, "link kernels")
    with tempfile.TemporaryDirectory(prefix="edgec-link-") as name:
        folder = Path(name)
        fill = _fill_code(arch) if any(map(elf.needs_fill, objects.values())) else ""
        (folder / "image.ld").write_text(_SCRIPT.replace("FILL_CODE", fill))
        inputs = []
        # Numbers, not symbols: names of files may be shorter than names of kernels.
        for number, symbol in enumerate(sorted(objects)):
            (folder / f"{number}.o").write_bytes(objects[symbol])
            inputs.append(f"{number}.o")
        (folder / "inputs").write_text("\n".join(inputs))
        execute([linker, *_FLAGS, "-T", "image.ld", "-o", "image", "@inputs"], timeout=_TIMEOUT, cwd=folder)
        image = (folder / "image").read_bytes()
    elf.check_image(image, arch)
    return image


def _fill_code(arch: Arch) -> str:
    """`elf.FILL` as statements of the linker's script."""
    return " ".join([f". = ALIGN(64); HIDDEN({elf.FILL} = .);", *(f"BYTE({byte})" for byte in _FILL[arch])])
