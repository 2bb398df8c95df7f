"""Arm code as data: functions, basic blocks and inner loops of a disassembly, and what a block consists of."""

from __future__ import annotations

import re
import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from edgec.backends.toolchain import execute

OBJDUMP = "aarch64-linux-gnu-objdump"

_FUNCTION = re.compile(r"^[0-9a-f]+ <(\S+)>:$")
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t(\S+)\s*(.*)$")
_BRANCH = re.compile(r"b|b\..+|cbn?z|tbn?z")
_ENDS = re.compile(r"ret|br|bl|blr|udf")
_TARGET = re.compile(r"\b(?:0x)?([0-9a-f]+)$")
_VECTOR = re.compile(r"v\d+\.(\d+)[sd]\b")
_VECTOR_REGISTER = re.compile(r"\bq\d+")


@dataclass(frozen=True)
class Instruction:
    """`operands` as objdump writes them, without its comments."""

    address: int
    mnemonic: str
    operands: str

    def __str__(self) -> str:
        return f"{self.mnemonic}\t{self.operands}"

    @property
    def target(self) -> int | None:
        """Where a branch within a function goes, else None."""
        if not _BRANCH.fullmatch(self.mnemonic):
            return None
        return int(_TARGET.search(self.operands)[1], 16)

    @property
    def ends_block(self) -> bool:
        return self.target is not None or bool(_ENDS.fullmatch(self.mnemonic))

    @property
    def multiply_adds(self) -> int:
        """Of f32 or f64: lanes of `fmla` and `fmls`, one of the scalar forms."""
        if self.mnemonic in ("fmla", "fmls"):
            return int(_VECTOR.match(self.operands)[1])
        return int(self.mnemonic in ("fmadd", "fmsub", "fnmadd", "fnmsub"))

    @property
    def reads_memory(self) -> bool:
        return self.mnemonic.startswith("ld")

    @property
    def touches_memory(self) -> bool:
        return self.mnemonic.startswith(("ld", "st"))

    @property
    def spills(self) -> bool:
        """A vector register to the stack or back: what a loop that fits the registers does not do."""
        return self.touches_memory and "[sp" in self.operands and bool(_VECTOR_REGISTER.match(self.operands))


@dataclass(frozen=True)
class Block:
    """Instructions that run one after another: entered at the first, left behind the last."""

    instructions: tuple[Instruction, ...]

    @property
    def start(self) -> int:
        return self.instructions[0].address

    @property
    def end(self) -> int:
        """Address behind the last instruction."""
        return self.instructions[-1].address + 4

    @cached_property
    def mix(self) -> Mix:
        return Mix.of(self.instructions)


@dataclass(frozen=True)
class Mix:
    """Counts of instructions; `macs` of lanes that are multiplied and added."""

    instructions: int = 0
    multiply_adds: int = 0
    macs: int = 0
    loads: int = 0
    stores: int = 0
    spills: int = 0

    @staticmethod
    def of(instructions: Iterable[Instruction]) -> Mix:
        every = list(instructions)
        return Mix(
            len(every),
            sum(i.multiply_adds > 0 for i in every),
            sum(i.multiply_adds for i in every),
            sum(i.reads_memory for i in every),
            sum(i.touches_memory and not i.reads_memory for i in every),
            sum(i.spills for i in every),
        )

    def times(self, count: int) -> Mix:
        return Mix(*(count * value for value in vars(self).values()))

    def __add__(self, other: Mix) -> Mix:
        return Mix(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class Function:
    name: str
    instructions: tuple[Instruction, ...]

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """In the order of their addresses."""
        known = {i.address: n for n, i in enumerate(self.instructions)}
        starts = {0, len(self.instructions)}
        for number, instruction in enumerate(self.instructions):
            if instruction.ends_block:
                starts.add(number + 1)
            if instruction.target in known:
                starts.add(known[instruction.target])
        return tuple(Block(self.instructions[a:b]) for a, b in pairwise(sorted(starts)))

    @cached_property
    def inner_loops(self) -> tuple[tuple[Block, ...], ...]:
        """The blocks of each range from the target of a backward branch to it that has no other such range inside."""
        ranges = sorted(
            {(i.target, i.address) for i in self.instructions if i.target is not None and i.target <= i.address}
        )
        inner = [r for r in ranges if not any(o != r and r[0] <= o[0] and o[1] <= r[1] for o in ranges)]
        return tuple(tuple(b for b in self.blocks if first <= b.start <= last) for first, last in inner)

    @property
    def product_loops(self) -> tuple[tuple[Block, ...], ...]:
        """Inner loops with vector multiply-adds."""
        return tuple(loop for loop in self.inner_loops if sum((b.mix for b in loop), Mix()).macs > 1)


def parse(listing: str) -> list[Function]:
    """Functions of what `objdump -d --no-show-raw-insn` prints."""
    return list(_functions(listing.splitlines()))


def _functions(lines: Sequence[str]) -> Iterator[Function]:
    name, found = "", []
    for line in lines:
        if match := _FUNCTION.match(line):
            if found:
                yield Function(name, tuple(found))
            name, found = match[1], []
        elif match := _INSTRUCTION.match(line):
            operands = re.split(r"\s*//|\s*<", match[3])[0].strip()
            found.append(Instruction(int(match[1], 16), match[2], operands))
    if found:
        yield Function(name, tuple(found))


def disassemble(image: bytes, entries: Mapping[str, int]) -> list[Function]:
    """Functions of a code image without symbols, by name and the offset at which each begins. A helper that follows one
    is taken for its end. Of names for one offset the first counts.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        path.write_bytes(image)
        listing = execute([OBJDUMP, "-d", "-j", ".text", "--no-show-raw-insn", path], timeout=120).decode()
    (text,) = parse(listing)
    begins = {entry: name for name, entry in sorted(entries.items(), reverse=True)}
    functions = []
    for entry, end in pairwise((*sorted(begins), len(image))):
        first, last = (bisect_left(text.instructions, at, key=lambda i: i.address) for at in (entry, end))
        functions.append(Function(begins[entry], text.instructions[first:last]))
    return functions
