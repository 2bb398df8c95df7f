"""A small artifact made by hand, with kernels in C: what the tests of the runtime open, run, train and damage.

`infer`: y = x @ w * scale + shift. `train` and `eval` add the loss mean((y[i, label] - 1)^2); `train` updates w by SGD
and counts steps. w is trained and stored in panels, scale is frozen and read from the file, shift is repacked at load,
steps is a state.
"""

from __future__ import annotations

import dataclasses
import functools
import platform
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from edgec.runtime.abi import Access, Arch, Factor, Feature, Product, Storage
from edgec.runtime.format import (
    Artifact,
    Binding,
    Buffer,
    Call,
    Kernel,
    KernelArgument,
    Opcode,
    Original,
    Placement,
    Program,
    Region,
    Slot,
    Tensor,
    TensorKind,
    Variant,
)

HERE = Path(__file__).parent
HOST = {"x86_64": Arch.X86_64, "aarch64": Arch.AARCH64}[platform.machine()]
ROWS, INNER, COLUMNS = 64, 8, 6
COMPILERS = {Arch.X86_64: "gcc", Arch.AARCH64: "aarch64-linux-gnu-gcc"}
READ, WRITE, BOTH = Access.READ, Access.WRITE, Access.READ_WRITE
PANELS = Storage((INNER, COLUMNS), (0, 1), block=4)
TRANSPOSED = Storage((3, 2), (1, 0))

# Bytes and access of every pointer.
_X, _W, _Y, _PARTIAL, _LABELS = ROWS * INNER * 4, INNER * COLUMNS * 4, ROWS * COLUMNS * 4, ROWS * 4, ROWS * 8
KERNELS = {
    "sample_dense": ((_X, READ), (_W, READ), (24, READ), (24, READ), (_Y, WRITE)),
    "sample_errors": ((_Y, READ), (_LABELS, READ), (_PARTIAL, WRITE)),
    "sample_mean": ((_PARTIAL, READ), (4, WRITE)),
    "sample_update": ((_X, READ), (_Y, READ), (_LABELS, READ), (24, READ), (4, READ), (_W, BOTH)),
    "sample_count": ((4, BOTH),),
    "sample_wide": (*((8, READ) for _ in range(23)), (8, WRITE)),
}


@functools.cache
def image(arch: Arch) -> tuple[bytes, dict[str, int]]:
    """A code image of the sample kernels, and the entry of each."""
    compiler = COMPILERS[arch]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        flags = ["-O2", "-ffp-contract=off", "-fPIC", "-fno-tree-loop-distribute-patterns", "-shared", "-nostdlib"]
        link = [f"-Wl,-T,{HERE / 'image.ld'}", "-Wl,--build-id=none,--no-undefined,-z,norelro,-z,noexecstack"]
        subprocess.run([compiler, *flags, *link, HERE / "sample_kernels.c", "-o", path], check=True)
        table = subprocess.run(["nm", path], check=True, capture_output=True, text=True).stdout
        symbols = {name: int(value, 16) for value, kind, name in map(str.split, table.splitlines()) if kind == "T"}
        return path.read_bytes(), symbols


def tensors(seed: int = 0) -> tuple[Tensor, ...]:
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    return (
        Tensor("w", TensorKind.PARAM, draw(INNER, COLUMNS), PANELS),
        Tensor("scale", TensorKind.CONSTANT, draw(COLUMNS) + 2, Storage.row_major((COLUMNS,))),
        Tensor("shift", TensorKind.PARAM, draw(3, 2), Storage.row_major((3, 2))),
        Tensor("steps", TensorKind.STATE, np.array(7, np.int32), Storage.row_major(())),
        Tensor("frozen", TensorKind.PARAM, draw(2, 3, 4), Storage((2, 3, 4), (2, 0, 1))),
    )


def placements() -> tuple[Placement, ...]:
    weights = tensors()
    return (
        Placement(0, Region.PARAM, 0, PANELS, trained=True),
        Placement(1, Region.WEIGHTS, 0, weights[1].storage),
        Placement(2, Region.PARAM, 192, TRANSPOSED),
        Placement(3, Region.STATE, 0, weights[3].storage, trained=True),
        Placement(4, Region.WEIGHTS, 0, weights[4].storage),
    )


def device_placements() -> tuple[Placement, ...]:
    """A device has copies of everything."""
    w, scale, shift, steps, frozen = placements()
    return (
        w,
        Placement(1, Region.PARAM, 192, scale.storage),
        Placement(2, Region.PARAM, 256, shift.storage),
        steps,
        Placement(4, Region.PARAM, 320, frozen.storage),
    )


# Buffers by name; arena offsets leave room for all of them, and a program names those that it uses.
BUFFERS = {
    "x": Buffer(Region.ARENA, 0, _X),
    "y": Buffer(Region.ARENA, 2048, _Y),
    "partial": Buffer(Region.ARENA, 4096, _PARTIAL),
    "loss": Buffer(Region.ARENA, 4352, 4),
    "lr": Buffer(Region.ARENA, 4416, 4),
    "labels": Buffer(Region.ARENA, 4480, _LABELS),
    "w": Buffer(Region.PARAM, 0, _W),
    "shift": Buffer(Region.PARAM, 192, 24),
    "steps": Buffer(Region.STATE, 0, 4),
    "scale": Buffer(Region.WEIGHTS, 0, 24, tensor=1),
    "half_wide": Buffer(Region.WEIGHTS, 16, 8, tensor=1),
    "wide": Buffer(Region.ARENA, 5120, 8),
}
DEVICE_BUFFERS = BUFFERS | {
    "shift": Buffer(Region.PARAM, 256, 24),
    "scale": Buffer(Region.PARAM, 192, 24),
    "half_wide": Buffer(Region.PARAM, 208, 8),
}
ARENA = 5184


def call(kernel: str, operands: str, tasks: int, macs: int = 0) -> Call:
    numbers = tuple(list(BUFFERS).index(name) for name in operands.split())
    return Call(Opcode.KERNEL, list(KERNELS).index(kernel), numbers, tasks, macs, label=f"nodes of {kernel}")


def other(opcode: Opcode, operand: str) -> Call:
    return Call(opcode, -1, (list(BUFFERS).index(operand),), 0, label=opcode.name.lower())


def binding(name: str, slot: Slot, dtype: str, shape: tuple[int, ...], low: int = 0, high: int = -1) -> Binding:
    return Binding(name, slot, dtype, shape, list(BUFFERS).index(name), low, high)


DENSE = call("sample_dense", "x w scale shift y", ROWS, ROWS * INNER * COLUMNS)
LOSS = (DENSE, call("sample_errors", "y labels partial", ROWS), call("sample_mean", "partial loss", 1))
X = binding("x", Slot.INPUT, "f32", (ROWS, INNER))
Y = binding("y", Slot.OUTPUT, "f32", (ROWS, COLUMNS))
LABELS = binding("labels", Slot.INPUT, "i64", (ROWS,), 0, COLUMNS - 1)
LOSS_SLOT = binding("loss", Slot.LOSS, "f32", ())
UPDATE = (
    other(Opcode.GUARD, "loss"),
    call("sample_update", "x y labels scale lr w", INNER),
    call("sample_count", "steps", 1),
)


def programs() -> tuple[Program, ...]:
    return (
        Program("infer", 4096, (DENSE,), (X, Y)),
        Program("train", ARENA, LOSS + UPDATE, (X, LABELS, binding("lr", Slot.SCALAR, "f32", ()), LOSS_SLOT)),
        Program("eval", ARENA, LOSS, (X, LABELS, LOSS_SLOT, Y)),
        Program(
            "wide",
            ARENA,
            (other(Opcode.ZERO, "wide"), call("sample_wide", " ".join(["half_wide"] * 23 + ["wide"]), 2)),
            (binding("wide", Slot.OUTPUT, "f32", (2,)),),
        ),
    )


def kernels(entries: dict[str, int]) -> tuple[Kernel, ...]:
    return tuple(
        Kernel(name, entries[name], tuple(KernelArgument(size, access) for size, access in arguments))
        for name, arguments in KERNELS.items()
    )


def variant(arch: Arch, features: int = 0, target: str | None = None) -> Variant:
    """Machine code for x86-64 and aarch64; nothing but indices for the others."""
    if arch in COMPILERS:
        code, entries = image(arch)
    else:
        code, entries = b"", {name: index for index, name in enumerate(KERNELS)}
    return Variant(
        target=target or arch.name.lower(),
        arch=arch,
        features=Feature(features),
        placements=placements(),
        buffers=tuple(BUFFERS.values()),
        kernels=kernels(entries),
        programs=programs(),
        code=code,
        param_bytes=256,
        state_bytes=64,
    )


def originals() -> tuple[Original, ...]:
    """One of each form: another name, predicted, carried, and counted by a state."""
    weight = next(tensor.data for tensor in tensors() if tensor.name == "frozen")
    scale = np.linspace(0.5, 2, weight.shape[0], dtype=np.float32)
    predicted = (weight / scale.reshape(-1, *(1,) * (weight.ndim - 1))).astype(np.float32)
    return (
        Original("tied", None, "w"),
        Original("unfolded", predicted, "frozen", scale, 0),
        Original("positions", np.arange(7)[None]),
        Original("batches", np.array(5), counter="steps"),
    )


def device_variant(capability: int) -> Variant:
    """For CUDA: its image is nothing but a name, its kernels those of stub_cuda.c."""
    return dataclasses.replace(
        variant(Arch.CUDA),
        target=f"sm_{capability}",
        capability=capability,
        placements=device_placements(),
        buffers=tuple(DEVICE_BUFFERS.values()),
        kernels=tuple(dataclasses.replace(kernel, threads=32) for kernel in kernels(dict.fromkeys(KERNELS, 0))),
        code=f"sm_{capability} image".encode(),
        param_bytes=448,
    )


def guarded_variant(capability: int) -> Variant:
    """The same as a compiler makes it: what updates looks at the loss itself, and the guard stands at the end."""
    plain = device_variant(capability)
    loss, index = KernelArgument(4, Access.READ), list(BUFFERS).index("loss")
    kernels, calls = list(plain.kernels), list(LOSS)
    for call_ in UPDATE[1:]:
        kernel = plain.kernels[call_.kernel]
        name = kernel.name.replace("sample", "guarded")
        calls.append(dataclasses.replace(call_, kernel=len(kernels), operands=(*call_.operands, index)))
        kernels.append(dataclasses.replace(kernel, name=name, arguments=(*kernel.arguments, loss)))
    train = dataclasses.replace(plain.programs[1], calls=(*calls, UPDATE[0]))
    programs = (plain.programs[0], train, *plain.programs[2:])
    return dataclasses.replace(plain, kernels=tuple(kernels), programs=programs)


# Kernel by which factors are stored transposed.
PRODUCTS = {"product_nn": (False, False), "product_nt": (False, True), "product_tn": (True, False)}
PRODUCTS |= {"product_tt": (True, True)}
LEFT, RIGHT, RESULTS = (2, 4, 6), (2, 6, 5), (3, 4, 5)


def product_variant(capability: int) -> Variant:
    """The same with a program `products`, all of whose kernels a library could stand in for: of left[2, 4, 6] and
    right[2, 6, 5], transposed or not, and zeros behind.
    """
    plain = guarded_variant(capability)
    sizes, kernels, buffers = [192, 240, 240], list(plain.kernels), list(plain.buffers)
    first = len(buffers)
    buffers += [Buffer(Region.ARENA, 0, 192), Buffer(Region.ARENA, 192, 240)]
    bindings = [Binding("left", Slot.INPUT, "f32", LEFT, first), Binding("right", Slot.INPUT, "f32", RIGHT, first + 1)]
    calls = []
    for index, (name, (left, right)) in enumerate(PRODUCTS.items()):
        factors = Factor(0, 4 if left else 6, 24, left), Factor(1, 6 if right else 5, 30, right)
        arguments = tuple(KernelArgument(size, access) for size, access in zip(sizes, (READ, READ, WRITE), strict=True))
        calls.append(Call(Opcode.KERNEL, len(kernels), (first, first + 1, len(buffers)), 1, 240, label=name))
        kernels.append(Kernel(name, 0, arguments, 32, Product(2, 4, 5, 6, *factors, 2)))
        bindings.append(Binding(name, Slot.OUTPUT, "f32", RESULTS, len(buffers)))
        buffers.append(Buffer(Region.ARENA, 448 + 256 * index, 240))
    program = Program("products", 2048, tuple(calls), tuple(bindings))
    programs = (*plain.programs, program)
    return dataclasses.replace(plain, kernels=tuple(kernels), buffers=tuple(buffers), programs=programs)


def sample(*variants: Variant) -> Artifact:
    """The sample artifact; of x86-64 where no variants are given."""
    manifest = {"model": "sample", "é": [1, 2]}
    return Artifact(bytes(range(16)), tensors(), variants or (variant(Arch.X86_64),), manifest, originals())


def unstarted(artifact: Artifact) -> Artifact:
    """The same with a count of steps that begins as zero, which the file says without bytes."""
    steps = dataclasses.replace(artifact.tensors[3], data=np.zeros((), np.int32))
    return dataclasses.replace(artifact, tensors=(*artifact.tensors[:3], steps, *artifact.tensors[4:]))


def feeds(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((ROWS, INNER)).astype(np.float32)
    return {"x": x, "labels": random.integers(0, COLUMNS, ROWS)}


def reference(weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """y in float64."""
    return x.astype(np.float64) @ weights["w"] * weights["scale"] + weights["shift"].reshape(-1)
