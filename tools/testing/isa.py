"""Which instruction set extensions a code image uses, by an assembler that knows just some of them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

# Target: prefix of the binutils, and the -march that allows exactly what the target declares.
ASSEMBLERS = {
    "x86-64-v3": ("", "-march=generic64+avx2+fma"),
    "x86-64-v4": ("", "-march=generic64+avx2+fma+avx512f+avx512bw+avx512dq+avx512vl"),
    "rpi4": ("aarch64-linux-gnu-", "-march=armv8-a"),
    "rpi5": ("aarch64-linux-gnu-", "-march=armv8.2-a+dotprod+fp16"),
}
# Branches, address computations and padding: baseline instructions whose operands the assembler cannot take back.
_POSITIONAL = re.compile(r"j|call|nop|cs\s|data16|b\s|b\.|bl\s|cbn?z|tbn?z|adr|\.\.\.|ud2|udf|int3")
_VECTOR = re.compile(r"%[xyz]mm|\bv\d+\.4s|\bq\d+")


def refused_instructions(image: bytes, target: str, march: str, folder: Path) -> list[str]:
    """The instructions of an image that the assembler for `target`, limited to `march`, does not know.

    folder: for files on the way.
    """
    prefix = ASSEMBLERS[target][0]
    (folder / "image").write_bytes(image)
    listing = subprocess.run(
        [f"{prefix}objdump", "-d", "--no-show-raw-insn", "-j", ".text", "image"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    lines = [line.partition(":\t")[2].partition(" <")[0].strip() for line in listing.splitlines() if ":\t" in line]
    code = [re.split(r"\s+//|\s+# ", line)[0] for line in lines if not _POSITIONAL.match(line)]
    assert any(_VECTOR.search(line) for line in code), "no vector instruction was seen"
    (folder / "image.s").write_text("\n".join(code) + "\n")
    command = [f"{prefix}as", march, "-o", "image.o", "image.s"]
    errors = subprocess.run(command, cwd=folder, capture_output=True, text=True).stderr
    refused = {int(match[1]) for match in re.finditer(r"^image\.s:(\d+): Error", errors, re.MULTILINE)}
    return sorted({code[number - 1] for number in refused})
