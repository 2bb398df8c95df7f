"""Static libraries as images for Cortex-M boards under qemu, and the same sources on this machine.

Under `-icount shift=0` qemu lets one nanosecond pass with every instruction: SysTick then counts instructions, the same
in every run. It says nothing about time on a real core.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np

from edgec.backends.base import Target
from edgec.backends.targets import c_flags, find_target, host_arch
from edgec.backends.toolchain import Tool, execute, require, toolchain
from edgec.tools.static_library import RUNTIME, STACK_BYTES, StaticLibrary

SOURCES = Path(__file__).parent / "image"
_TIMEOUT = 300.0
_HOST_FLAGS = ("-std=gnu11", "-O2", "-ffp-contract=off", "-pthread")
_STACK_SECTION = 2 * STACK_BYTES  # room to see that the promise is kept


@dataclass(frozen=True)
class Board:
    """A board of qemu's: memories as (origin, bytes), instructions per SysTick (nanoseconds of its clock)."""

    machine: str
    target: str
    flash: tuple[int, int]
    ram: tuple[int, int]
    instructions_per_tick: float


# Of the boards' megabytes the images take what larger members of each family have.
BOARDS = {
    board.target: board
    for board in (
        Board("mps2-an386", "cortex-m4", (0x00000000, 1 << 20), (0x20000000, 1 << 20), 40.0),
        Board("mps2-an500", "cortex-m7", (0x00000000, 1 << 20), (0x20000000, 1 << 20), 40.0),
        Board("mps3-an547", "cortex-m55", (0x10000000, 512 << 10), (0x31000000, 1 << 20), 31.25),
    )
}


@dataclass(frozen=True)
class Sizes:
    """Sections of an image in bytes: `.text` with all constants, `.data`, and `.bss` without the stack."""

    text: int
    data: int
    bss: int


@dataclass(frozen=True)
class Run:
    """One run of a program in an image: results by name as f32, flat; instructions, 0 on this machine."""

    program: str
    instructions: int
    results: dict[str, np.ndarray]


@dataclass(frozen=True)
class TrainingRun:
    """What the image wrote. `checksum` is the CRC-32 of parameters and states after training, in their storage.

    memory_bytes: of the library's static block; used_bytes: what an open model and session took of it.
    """

    runs: tuple[Run, ...]
    checksum: int
    memory_bytes: int
    used_bytes: int
    stack_bytes: int
    sizes: Sizes | None = None

    @property
    def losses(self) -> np.ndarray:
        """f32[steps]."""
        return np.concatenate([run.results["loss"] for run in self.runs if run.program == "train"] or [np.empty(0)])

    @property
    def step_instructions(self) -> int:
        """Of a training step, the median; 0 on this machine."""
        return round(np.median([run.instructions for run in self.runs if run.program == "train"] or [0]))

    @property
    def infer_instructions(self) -> int:
        return self.predictions[0].instructions

    @property
    def predictions(self) -> tuple[Run, ...]:
        """Inference on the first batch, before and after training."""
        return tuple(run for run in self.runs if run.program == "infer")


def missing_tools() -> list[str]:
    """What has to be installed to build and run images of Cortex-M boards."""
    tools = toolchain(find_target("cortex-m7").arch)
    return [tool.names[0] for tool in (tools.compiler, tools.emulator) if tool is not None and tool.path() is None]


def run_training_image(library: StaticLibrary, board: Board, feeds: Mapping[str, np.ndarray]) -> TrainingRun:
    """Build an image of `library` and run it in qemu: inference, a training step for every row of `feeds`, inference.

    feeds: inputs and scalars by name, with the steps as the leading axis. UserError E0402 without compiler or qemu.
    """
    target = find_target(board.target)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = build_image(library, board, folder, _training_sources(library, feeds, folder))
        return _parse(emulate(image, board), board.instructions_per_tick, image_sizes(image, target))


def run_training_here(library: StaticLibrary, feeds: Mapping[str, np.ndarray]) -> TrainingRun:
    """The same sources as a program of this machine: results are equal to the bit where the kernels are C."""
    compiler = require(toolchain(host_arch()).compiler, "build a program for this machine")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = [*_training_sources(library, feeds, folder), _source("board_host")]
        execute([compiler, *_HOST_FLAGS, *_includes(library), *sources, "-o", folder / "program"], timeout=_TIMEOUT)
        return _parse(execute([folder / "program"], timeout=_TIMEOUT).decode(), 0.0, None)


def build_image(library: StaticLibrary, board: Board, folder: Path, sources: Sequence[Path], *link: str) -> Path:
    """An ELF image for `board` in `folder`: start-up, and `sources` with the library's among them."""
    target = find_target(board.target)
    compiler = require(toolchain(target.arch).compiler, f"build an image for {board.target}")
    script, image = folder / "image.ld", folder / "image.elf"
    script.write_text(
        Template((SOURCES / "image.ld").read_text()).substitute(
            flash_origin=board.flash[0],
            flash_bytes=board.flash[1],
            ram_origin=board.ram[0],
            ram_bytes=board.ram[1],
            stack_bytes=_STACK_SECTION,
        )
    )
    flags = (*c_flags(target), "-Wall", "-Wextra", "-Werror", *_includes(library))
    link = ("--specs=nano.specs", *link, "-nostartfiles", "-Wl,--gc-sections", "-T", script)
    execute([compiler, *flags, *sources, _source("board_arm"), *link, "-o", image], timeout=_TIMEOUT)
    return image


def emulate(image: Path, board: Board) -> str:
    """What an image writes. ToolFailure if it fails or takes too long."""
    emulator = toolchain(find_target(board.target).arch).emulator
    assert emulator is not None  # every Cortex-M is foreign
    words = ["-chardev", "stdio,id=words", "-semihosting-config", "enable=on,target=native,chardev=words"]
    quiet = ["-display", "none", "-monitor", "none", "-serial", "none"]
    command = [require(emulator, f"run an image for {board.target}"), "-M", board.machine, "-icount", "shift=0"]
    return execute([*command, *quiet, *words, "-kernel", image], timeout=_TIMEOUT).decode()


def image_sizes(image: Path, target: Target) -> Sizes:
    """Of the sections that the linker script names."""
    compiler = require(toolchain(target.arch).compiler, "look at an image")
    tool = require(Tool((compiler.name.replace("gcc", "size"),), toolchain(target.arch).compiler.packages), "measure")
    rows = (line.split() for line in execute([tool, "-A", image], timeout=_TIMEOUT).decode().splitlines())
    sections = {row[0]: int(row[1]) for row in rows if len(row) == 3 and row[1].isdigit()}
    return Sizes(sections[".text"], sections.get(".data", 0), sections[".bss"])


def _training_sources(library: StaticLibrary, feeds: Mapping[str, np.ndarray], folder: Path) -> list[Path]:
    # The data's file includes the library's memory, to see how much of it is in use.
    own = [path for path in library.sources if path.name != f"{library.name}.c"]
    return [*own, _write_data(library, feeds, folder), _source("training")]


def _includes(library: StaticLibrary) -> list[str]:
    return [f"-I{library.folder}", f"-I{library.folder / RUNTIME}", f"-I{SOURCES}"]


def _source(name: str) -> Path:
    return SOURCES / f"{name}.c"


def _write_data(library: StaticLibrary, feeds: Mapping[str, np.ndarray], folder: Path) -> Path:
    """`image.h` filled in: the rows of `feeds` as constants."""
    (steps,) = {len(array) for array in feeds.values()}
    arrays, rows = [], []
    for number, (name, array) in enumerate(feeds.items()):
        data = np.ascontiguousarray(array).tobytes()
        words = np.frombuffer(data + bytes(-len(data) % 8), "<u8").tolist()
        arrays.append(f"static const uint64_t feed{number}[] = {{{','.join(map('0x{:x}u'.format, words))}}};\n")
        rows.append(f'    {{"{name}", feed{number}, {len(data) // steps}}},\n')
    text = (
        f'#include "image.h"\n#include "{library.name}.c"\n{"".join(arrays)}'
        f"const image_feed image_feeds[] = {{\n{''.join(rows)}}};\n"
        f"const uint32_t image_feed_count = {len(feeds)}, image_step_count = {steps};\n"
        f"const size_t image_memory_bytes = {library.name.upper()}_MEMORY_BYTES;\n"
        "size_t image_memory_used(void) { return used; }\n"
        "edgec_status image_open(edgec_model **model, edgec_session **session) {\n"
        f"    return {library.name}_open(model, session);\n}}\n"
    )
    path = folder / "image_data.c"
    path.write_text(text)
    return path


def _parse(text: str, instructions_per_tick: float, sizes: Sizes | None) -> TrainingRun:
    runs: list[Run] = []
    figures: dict[str, int] = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"run (\w+) ([0-9a-f]{16})", line):
            runs.append(Run(match[1], round(int(match[2], 16) * instructions_per_tick), {}))
        elif match := re.fullmatch(r"(memory|used|checksum|stack) ([0-9a-f]{16})", line):
            figures[match[1]] = int(match[2], 16)
        else:
            name, *words = line.split(" ")
            runs[-1].results[name] = np.array([int(word, 16) for word in words], np.uint32).view(np.float32)
    return TrainingRun(tuple(runs), figures["checksum"], figures["memory"], figures["used"], figures["stack"], sizes)
