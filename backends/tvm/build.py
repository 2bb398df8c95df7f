"""Kernel specs to one code image: through the cache, compile processes and the linker.

Loads no tvm in this process: a warm cache links in milliseconds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from edgec.backends import elf, targets
from edgec.backends.base import CodeImage, KernelSpec, Progress, Target
from edgec.backends.cache import Cache, cache_folder
from edgec.backends.link import link
from edgec.backends.nvrtc import cubin
from edgec.backends.toolchain import TVM_REQUIREMENT
from edgec.backends.tvm.c_source import PRELUDE
from edgec.backends.tvm.gpu.matrix_products import matrix_product
from edgec.backends.tvm.gpu.source import device_source
from edgec.backends.tvm.isolate import JobFailure, run_isolated
from edgec.graph.errors import InternalError, UserError
from edgec.runtime import abi
from edgec.runtime.abi import Arch

# What the function of every object is called, so that equal kernels are equal objects. LLVM turns loops that copy or
# fill into calls of memcpy and memset, except within a function of that name; TVM gives no other way to tell it.
FUNCTION = "memcpy"
EMITTER = "edgec.backends.tvm.emitters"  # module with `emit(spec, target, symbol) -> PrimFunc`
KERNEL_TIMEOUT = 300.0  # seconds for one kernel; the slowest known takes half a second
IMAGE_TIMEOUT = 1800.0  # for all kernels of a CUDA target


def build(
    specs: Sequence[KernelSpec], target: Target, *, progress: Progress | None = None, emitter: str = EMITTER
) -> CodeImage:
    """Compile every distinct spec and link the code. Equal specs and target give equal bytes.

    UserError E0402 if the linker or tvm is missing, E0404 with the kernel's name if one cannot be compiled.
    """
    unique = tuple(dict.fromkeys(specs))
    names = {spec: symbol_name(spec, target) for spec in unique}
    if len(set(names.values())) != len(unique):
        raise InternalError("two kernels of one image have the same name")
    compiled = _compile(unique, names, target, progress, emitter)
    code = {names[spec]: compiled[spec] for spec in unique}
    if target.c_source:
        order = sorted(code)
        entries = {spec: order.index(names[spec]) for spec in unique}
        return CodeImage("c", c_image(code), entries, names)
    if target.arch.is_device:
        return _device_image(device_source(code, target.arch), target, names)
    image, offsets = _linked(code, target.arch)
    return CodeImage("elf", image, {spec: offsets[names[spec]] for spec in unique}, names)


def _linked(code: dict[str, bytes], arch: Arch) -> tuple[bytes, dict[str, int]]:
    """The image of objects by kernel name, and where each kernel begins in it. Equal objects stand there once, by the
    first of their names: kernels that differ in what is no code, such as a number of images that tasks count.
    """
    kept: dict[bytes, str] = {}
    for name in sorted(code):
        kept.setdefault(code[name], name)
    image = link({name: elf.rename_symbol(made, FUNCTION, name) for made, name in kept.items()}, arch)
    offsets = elf.entry_offsets(image, kept.values())
    return elf.without_symbols(image), {name: offsets[kept[made]] for name, made in code.items()}


def _device_image(source: bytes, target: Target, names: dict[KernelSpec, str]) -> CodeImage:
    entries = dict.fromkeys(names, 0)
    if target.arch is not Arch.CUDA:
        return CodeImage("opencl", source, entries, names)
    products = {spec: product for spec in names if (product := matrix_product(spec)) is not None}
    return CodeImage("cubin", cubin(source, target.cpu, partial(_run_alone, target)), entries, names, products)


def _run_alone(target: Target, job: Callable[[], bytes]) -> bytes:
    """In a process of its own. E0404 with the compiler's words."""
    made: list[bytes] = []
    try:
        run_isolated([job], prepare=int, processes=1, timeout=IMAGE_TIMEOUT, finished=lambda _, code: made.append(code))
    except JobFailure as failure:
        hint = f"this is a bug of edgec; please report it with this text\n{failure.log}"
        raise UserError("E0404", f"the compiler of {target.name} {failure.reason}", hint=hint) from None
    return made[0]


def symbol_name(spec: KernelSpec, target: Target) -> str:
    """`edgec_<stem>__<8 hex digits of what determines the code, generator aside>`."""
    return f"edgec_{spec.stem}__{hashlib.sha256(f'{spec!r}|{_machine(target)!r}'.encode()).hexdigest()[:8]}"


def _machine(target: Target) -> Target:
    """The target as code generation sees it: without what people call it."""
    return dataclasses.replace(target, name="", description="")


def c_image(functions: dict[str, bytes]) -> bytes:
    """The text of all kernels, in the order of their names: static, for the table of whoever links them to follow."""
    return "\n".join([PRELUDE, *(functions[name].decode() for name in sorted(functions))]).encode()


def generator_version() -> str:
    """Hash of tvm's release and of the sources that turn a spec into code: this package, and what it leans on."""
    digest = hashlib.sha256(TVM_REQUIREMENT.encode())
    folder = Path(__file__).parent
    for path in (*sorted(folder.rglob("*.py")), *(Path(module.__file__) for module in (targets, elf, abi))):
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _compile(
    specs: Sequence[KernelSpec],
    names: dict[KernelSpec, str],
    target: Target,
    progress: Progress | None,
    emitter: str,
) -> dict[KernelSpec, bytes]:
    cache = Cache(cache_folder() / "kernels")
    version = generator_version()
    keys = {
        spec: hashlib.sha256(f"{spec!r}|{_machine(target)!r}|{emitter}|{version}".encode()).hexdigest()
        for spec in specs
    }
    compiled = {spec: payload for spec in specs if (payload := cache.get(keys[spec])) is not None}
    misses = [spec for spec in specs if spec not in compiled]

    def report() -> None:
        if progress is not None:
            progress(len(compiled), len(specs))

    def finished(number: int, payload: bytes) -> None:
        compiled[misses[number]] = payload
        cache.put(keys[misses[number]], payload)
        report()

    report()
    if misses:
        if importlib.util.find_spec("tvm") is None:
            raise UserError("E0402", "apache-tvm is needed to compile kernels", hint=f"pip install {TVM_REQUIREMENT}")
        try:
            run_isolated(
                [partial(_compile_one, spec, target, names[spec], emitter) for spec in misses],
                prepare=partial(_load_generator, emitter),
                processes=len(os.sched_getaffinity(0)),
                timeout=KERNEL_TIMEOUT,
                finished=finished,
            )
        except JobFailure as failure:
            raise _report(failure, misses, names) from None
        cache.evict()
    return compiled


def _report(failure: JobFailure, specs: Sequence[KernelSpec], names: dict[KernelSpec, str]) -> Exception:
    if failure.job is None:
        return InternalError(f"{failure.reason}\n{failure.log}")
    spec = specs[failure.job]
    return UserError(
        "E0404",
        f"the code generator {failure.reason} on kernel `{names[spec]}`",
        where=repr(spec),
        hint=f"this is a bug of edgec; please report it with this text\n{failure.log}",
    )


def _load_generator(emitter: str) -> None:
    # tvm imports torch where it finds it, which takes twice as long as tvm itself and serves nobody here.
    sys.modules.setdefault("torch", None)
    importlib.import_module("edgec.backends.tvm.codegen")
    importlib.import_module(emitter)


def _compile_one(spec: KernelSpec, target: Target, symbol: str, emitter: str) -> bytes:
    from edgec.backends.tvm.codegen import compile_kernel  # noqa: PLC0415  only compile processes load tvm

    return compile_kernel(spec, target, symbol, emitter)
