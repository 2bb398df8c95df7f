"""The artifact (`.edge`) as Python sees it: the records, and reading and writing them.

The byte layout is in `runtime/README.md`, in C in `csrc/format.h`, for numpy in `tables.py`; `layout.py` reads and
writes it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np

from edgec.runtime.abi import Access, Arch, Feature, Product, Storage


class Region(enum.IntEnum):
    """Which memory a buffer lies in."""

    ARENA = 0  # of a session: inputs, outputs, activations, gradients, workspaces, scalars
    PARAM = 1  # of a model: parameters and constants that some program updates, or in a storage not the file's
    STATE = 2  # of a model: optimizer state, running statistics, counters
    WEIGHTS = 3  # the file's mapping, read only: frozen parameters and constants


class TensorKind(enum.IntEnum):
    PARAM = 0
    STATE = 1
    CONSTANT = 2


@dataclass(frozen=True)
class Tensor:
    """A logical weight: shared by all variants. `data` is the logical array; `storage` is how the file lays it out."""

    name: str
    kind: TensorKind
    data: np.ndarray
    storage: Storage


@dataclass(frozen=True)
class Placement:
    """Where a variant keeps tensor number `tensor`, and in which storage.

    In region WEIGHTS the storage equals the file's and `offset` is ignored; PARAM is for parameters and constants,
    STATE for states. In the order of `tensor`, each lies at the next multiple of 64 of its region. `trained` marks what
    some program updates: it goes into checkpoints (all of STATE does too).
    """

    tensor: int
    region: Region
    offset: int
    storage: Storage
    trained: bool = False


@dataclass(frozen=True)
class Buffer:
    """A range of memory that calls and bindings refer to by index.

    In WEIGHTS `offset` is relative to tensor number `tensor`; in ARENA it is a multiple of 64.
    """

    region: Region
    offset: int
    bytes: int
    tensor: int = -1


@dataclass(frozen=True)
class KernelArgument:
    bytes: int
    access: Access


@dataclass(frozen=True)
class Kernel:
    """A function of the code image: its entry and what each pointer must hold.

    `entry` is an offset into the image, or an index into the application's table where kernels are linked in. `name` is
    its symbol, which must then be the table's, and by which devices find it. `threads` are the work items of a group on
    a device, where a task is a group. `product`: what a library could do instead, on CUDA devices.
    """

    name: str
    entry: int
    arguments: tuple[KernelArgument, ...]
    threads: int = 0
    product: Product | None = None


class Opcode(enum.IntEnum):
    KERNEL = 0
    GUARD = 1  # stop here with `loss is not finite` unless the f32 in the buffer is finite
    ZERO = 2  # fill the buffer with zero bytes
    GUARD_GRADIENTS = 3  # the same as GUARD for the norm of the gradients


@dataclass(frozen=True)
class Call:
    """One step of a program. `operands` are buffer indices (one except for KERNEL); `label` names the source nodes.

    `kernel` is -1 except for KERNEL. Nothing may write PARAM or STATE before a guard of the same program, but for
    kernels of a device that read what the guard does, where the guard ends the program.
    """

    opcode: Opcode
    kernel: int
    operands: tuple[int, ...]
    tasks: int
    macs: int = 0
    label: str = ""


class Slot(enum.IntEnum):
    """The role of a tensor in a program's signature."""

    INPUT = 0
    OUTPUT = 1
    SCALAR = 2
    LOSS = 3  # an output that is the scalar loss


@dataclass(frozen=True)
class Binding:
    """A named tensor of a program's signature, row-major, in the arena.

    `low`..`high`, both included, bounds an integer input (labels) or scalar; high < low: no check. `ignored` is one
    more number that is accepted: no label here. `below` names an integer scalar that every other element of a bounded
    input must be less than. `count` names an integer output of one element: how many slices of this output along
    `count_axis`, from the first on, hold results. SCALAR and LOSS have one element, and LOSS is f32.
    """

    name: str
    slot: Slot
    dtype: str  # name of a graph DType: "f32", "i64", ...
    shape: tuple[int, ...]
    buffer: int
    low: int = 0
    high: int = -1
    ignored: int | None = None
    below: str | None = None
    count: str | None = None
    count_axis: int = 0


@dataclass(frozen=True)
class Program:
    name: str
    arena_bytes: int
    calls: tuple[Call, ...]
    bindings: tuple[Binding, ...]


@dataclass(frozen=True)
class Variant:
    """One target: its requirements, placements of all tensors, buffers, kernels, programs and code.

    `code` is an ELF image for X86_64 and AARCH64 (the rules are in README.md), a cubin for CUDA, OpenCL C for OPENCL,
    empty if the kernels will be linked into the application, and C source for the other architectures.
    """

    target: str
    arch: Arch
    features: Feature
    placements: tuple[Placement, ...]
    buffers: tuple[Buffer, ...]
    kernels: tuple[Kernel, ...]
    programs: tuple[Program, ...]
    code: bytes
    param_bytes: int  # size of region PARAM: the end of its last placement, rounded up to 64
    state_bytes: int  # of region STATE
    capability: int = 0  # CUDA: 10 * major + minor of the devices that the code is for


@dataclass(frozen=True)
class Original:
    """A tensor of the source model that programs know under another name, in another form, or not at all.

    data: its value; None where it is that of `tensor`, whatever training makes of that.
    tensor, scale, axis: where its elements are close to those of a frozen tensor of as many, each divided by what the
    vector `scale` (f32) has for its position along `axis`: the file then holds the difference in bits.
    counter: the name of a state, one integer, that counts on from `data`.
    """

    name: str
    data: np.ndarray | None
    tensor: str = ""
    scale: np.ndarray | None = None
    axis: int = 0
    counter: str = ""


@dataclass(frozen=True)
class Artifact:
    """Everything a `.edge` file holds.

    `fingerprint` (16 bytes) identifies graph, scheme and optimizer, not the target. `originals` complete the tensors to
    the state of the source model.
    """

    fingerprint: bytes
    tensors: tuple[Tensor, ...]
    variants: tuple[Variant, ...]
    manifest: dict = field(default_factory=dict)
    originals: tuple[Original, ...] = ()
