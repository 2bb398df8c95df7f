"""`--emit static`: a compiled model as a folder of C sources that an application adds to its own.

The artifact's tables and weights become a constant array, which the runtime's reader validates and uses in place; the
kernels become C, or assembly where a target has machine code; all memory is one static block of known size. The
runtime's sources lie beside them, so that the folder needs nothing but a C compiler.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template

import numpy as np

from edgec import __version__
from edgec.backends.base import CodeImage, Target
from edgec.backends.runner_binary import csrc_folder
from edgec.backends.targets import c_flags
from edgec.backends.toolchain import toolchain
from edgec.compiler.compile import CompileResult
from edgec.graph.errors import UserError
from edgec.runtime.abi import BUFFER_ALIGNMENT, Arch
from edgec.runtime.dtypes import numpy_dtype
from edgec.runtime.format import Artifact, Binding, Variant
from edgec.runtime.layout import artifact_bytes
from edgec.tools import static_templates as templates

RUNTIME = "edgec"  # subfolder of the runtime's sources
STACK_BYTES = 4096  # what opening and running need at most on a Cortex-M; the tests measure it
_PROGRAM = "edgec_run.c"
_GPU_ONLY = ("cublaslt.c", "cublaslt.h", "cuda.c", "device.c", "opencl.c", "program_cache.c", "program_cache.h")
_FILES_ONLY = ("checkpoint.c", "checkpoint.h", "tensorfile.c", "tensorfile.h")


@dataclass(frozen=True)
class StaticLibrary:
    """What was written. All in bytes of the target.

    artifact_bytes: constants, for flash; code comes on top. memory_bytes: the static block with parameters, states and
    arena, for RAM. stack_bytes: what the caller's stack must have left.
    """

    folder: Path
    name: str
    sources: tuple[Path, ...]  # the model's own and the runtime's, without the example
    artifact_bytes: int
    memory_bytes: int
    stack_bytes: int = STACK_BYTES

    def to_json(self) -> dict:
        return {
            "folder": str(self.folder),
            "name": self.name,
            "artifact_bytes": self.artifact_bytes,
            "memory_bytes": self.memory_bytes,
            "stack_bytes": self.stack_bytes,
        }


def write_static(result: CompileResult, folder: Path, name: str) -> StaticLibrary:
    """Write the sources of a model compiled for one target. `name` begins files and symbols.

    UserError E0505 where the folder cannot be written. Files of an earlier call are replaced.
    """
    name = identifier(name)
    (schedules,), (image,) = result.schedules, result.images
    target, artifact = schedules.backend.target, _without_code(result.artifact, image)
    variant, data = artifact.variants[0], artifact_bytes(artifact)
    model = {
        f"{name}.c": _fill(templates.MEMORY, name),
        f"{name}_artifact.c": _artifact(name, data),
        **_kernels(name, variant, image),
    }
    runtime = _runtime(target)
    sources = tuple(folder / path for path in (*model, *runtime) if not path.endswith(".h"))
    library = StaticLibrary(folder, name, sources, len(data), memory_bytes(variant, _pointer_bytes(target)))
    files = {
        f"{name}.h": _header(name, target, artifact, len(data)),
        **model,
        **runtime,
        "example.c": _fill(templates.EXAMPLE, name),
        "README.md": _readme(library, target, " ".join(model)),
    }
    try:
        (folder / RUNTIME).mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError("E0505", f"cannot write `{folder}`: {error.strerror}") from error
    return library


def identifier(name: str) -> str:
    """A name that C accepts and that hides none of the runtime's."""
    word = _word(name)
    return f"model_{word}" if not word or word[0].isdigit() or word in ("edgec", "example") else word


def _word(name: str) -> str:
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def memory_bytes(variant: Variant, pointer: int) -> int:
    """What the runtime allocates for a model and one session of one thread: edgec_memory.h in Python."""

    def lines(count: int) -> int:
        return -(-count // BUFFER_ALIGNMENT) * BUFFER_ALIGNMENT

    model = 64 * pointer + lines(variant.param_bytes) + lines(variant.state_bytes) + lines(len(variant.programs))
    return model + lines(16 * pointer) + lines(len(variant.buffers) * pointer) + lines(_arena_bytes(variant))


def _arena_bytes(variant: Variant) -> int:
    return max((program.arena_bytes for program in variant.programs), default=0)


def _pointer_bytes(target: Target) -> int:
    return 4 if target.arch in (Arch.ARM, Arch.RISCV32) else 8


def _without_code(artifact: Artifact, image: CodeImage) -> Artifact:
    """The same program with kernels by number in the order of their names, and nothing that only tools read."""
    (variant,) = artifact.variants
    order = sorted(kernel.name for kernel in variant.kernels)
    kernels = tuple(replace(kernel, entry=order.index(kernel.name)) for kernel in variant.kernels)
    # C runs wherever it is compiled for.
    arch = Arch.PORTABLE if image.kind == "c" else variant.arch
    return replace(
        artifact, variants=(replace(variant, arch=arch, kernels=kernels, code=b""),), manifest={}, originals=()
    )


def _fill(template: str, name: str, **fields: object) -> str:
    return Template(template).substitute(name=name, NAME=name.upper(), **fields)


def _header(name: str, target: Target, artifact: Artifact, size: int) -> str:
    variant = artifact.variants[0]
    return _fill(
        templates.HEADER,
        name,
        version=__version__,
        target=target.name,
        artifact=size,
        weights=sum(tensor.data.nbytes for tensor in artifact.tensors),
        param=variant.param_bytes,
        state=variant.state_bytes,
        arena=_arena_bytes(variant),
        buffers=len(variant.buffers),
        programs=len(variant.programs),
        stack=STACK_BYTES,
        kernels=len(variant.kernels),
        signature="".join(_signature(name.upper(), variant)),
    )


def _signature(prefix: str, variant: Variant) -> Iterable[str]:
    """Numbers of programs and bindings, and the bytes of each binding."""
    names = _Names()
    for number, program in enumerate(variant.programs):
        word = names.unique(f"{prefix}_{_word(program.name).upper()}")
        yield f"\n#define {word} {number}u /* {_comment(program.name)} */\n"
        for index, binding in enumerate(program.bindings):
            yield from _binding(names.unique(f"{word}_{_word(binding.name).upper()}"), index, binding)


def _binding(word: str, index: int, binding: Binding) -> Iterable[str]:
    shape = ",".join(map(str, binding.shape))
    size = int(np.prod(binding.shape, dtype=np.int64)) * numpy_dtype(binding.dtype).itemsize
    what = f"{binding.slot.name.lower()} {_comment(binding.name)}: {binding.dtype}[{shape}]"
    yield f"#define {word} {index}u /* {what} */\n#define {word}_BYTES {size}u\n"


def _comment(text: str) -> str:
    return text.replace("*/", "* /").replace("/*", "/ *").replace("\n", " ")


class _Names:
    """Different words for names that C cannot tell apart."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def unique(self, word: str) -> str:
        candidate, count = word, 1
        while candidate in self._taken or f"{candidate}_BYTES" in self._taken:
            count += 1
            candidate = f"{word}_{count}"
        self._taken |= {candidate, f"{candidate}_BYTES"}
        return candidate


def _artifact(name: str, data: bytes) -> str:
    return _fill(templates.ARTIFACT, name, words=_words(data, "0x{:016x}u,", 6))


def _words(data: bytes, form: str, columns: int) -> str:
    """64-bit words, little-endian, the last filled with zeros."""
    words = np.frombuffer(data + bytes(-len(data) % 8), "<u8").tolist()
    rows = (words[i : i + columns] for i in range(0, len(words), columns))
    return "\n".join(" ".join(map(form.format, row)) for row in rows)


def _kernels(name: str, variant: Variant, image: CodeImage) -> dict[str, str]:
    """The kernels and the table that the runtime calls them by."""
    order = sorted({kernel.name for kernel in variant.kernels})
    if image.kind == "c":
        rows = "".join(f'    {{"{kernel}", (void (*)(void)){kernel}}},\n' for kernel in order)
        return {f"{name}_kernels.c": image.data.decode() + _fill(templates.TABLE, name, declarations="", rows=rows)}
    symbols = {kernel: f"{name}_{kernel}" for kernel in order}
    rows = "".join(f'    {{"{kernel}", {symbols[kernel]}}},\n' for kernel in order)
    declarations = "".join(f"void {symbol}(void);\n" for symbol in symbols.values())
    entries = {symbols[image.names[spec]]: entry for spec, entry in image.entries.items()}
    return {
        f"{name}_kernels.c": _fill(templates.TABLE, name, declarations=declarations, rows=rows),
        f"{name}_code.S": _assembly(name, image.data, entries),
    }


def _assembly(name: str, data: bytes, entries: dict[str, int]) -> str:
    """A code image as data between labels: it is position-independent and has no relocations, so any page will do."""
    places = sorted(entries.items(), key=lambda entry: entry[1])
    ends = [offset for _, offset in places[1:]] + [len(data)]
    parts = [_quads(data[: places[0][1]])]
    for (symbol, start), end in zip(places, ends, strict=True):
        parts.append(f".globl {symbol}\n.hidden {symbol}\n.type {symbol}, %function\n{symbol}:\n")
        parts.append(_quads(data[start:end]))
    return _fill(templates.ASSEMBLY, name, code="".join(parts))


def _quads(data: bytes) -> str:
    whole = len(data) // 8 * 8
    lines = [f"    .quad {word}\n" for word in np.frombuffer(data[:whole], "<u8").tolist()]
    return "".join(lines) + "".join(f"    .byte {byte}\n" for byte in data[whole:])


def _runtime(target: Target) -> dict[str, str]:
    """The runtime's sources for a machine with an operating system, or for one without."""
    bare = target.c_source
    unwanted = {_PROGRAM, *_GPU_ONLY, "platform_posix.c" if bare else "platform_bare.c", *(_FILES_ONLY if bare else ())}
    files = {
        f"{RUNTIME}/{path.name}": path.read_text()
        for path in sorted(csrc_folder().glob("*.[ch]"))
        if path.name not in unwanted
    }
    config, flags = f"{RUNTIME}/edgec_config.h", templates.BARE_METAL if bare else templates.NO_DEVICES
    files[config] = files[config].replace(templates.CONFIG_GUARD, templates.CONFIG_GUARD + flags)
    return files


def _readme(library: StaticLibrary, target: Target, sources: str) -> str:
    return _fill(
        templates.README,
        library.name,
        target=target.name,
        build=" ".join((toolchain(target.arch).compiler.names[0], *c_flags(target))),
        sources=f"{sources} {RUNTIME}/*.c",
        artifact=library.artifact_bytes,
        memory=library.memory_bytes,
        stack=library.stack_bytes,
    )
