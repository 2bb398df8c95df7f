"""What the compiler knows of a backend: groups of nodes go in, kernel calls and machine code come out.

The compiler partitions a program into `Group`s, asks the backend for storages, in-place pairs and a `Lowering` of each
group, plans memory over the answers, and has the backend build all `KernelSpec`s into one code image. Backends never
see the compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edgec.graph.ir import Node, Value
from edgec.graph.types import DType
from edgec.runtime.abi import Access, Arch, Feature, Product, Storage

_GRAPH_AHEAD = 16  # of a CUDA graph, whose branches run side by side


@dataclass(frozen=True)
class Target:
    """One machine to compile for. `lanes` is the number of f32 in a vector register, `registers` how many there are."""

    name: str
    arch: Arch
    triple: str
    cpu: str
    attributes: tuple[str, ...] = ()  # LLVM -mattr, with sign
    features: Feature = Feature(0)
    lanes: int = 1
    registers: int = 16
    c_source: bool = False  # unscheduled C from every kernel instead of machine code
    capability: int = 0  # of CUDA devices: 10 * major + minor
    host: Arch = Arch.AARCH64  # of the processor that a device belongs to
    tf32: bool = False  # products of f32 may round their operands to 10 bits of mantissa
    description: str = ""

    @property
    def ahead(self) -> int:
        """How many groups may begin before one is done: memory is handed on only so much later, since what waits for it
        would wait for all of them. 0 where calls come one after another anyway.
        """
        return _GRAPH_AHEAD if self.arch is Arch.CUDA else 0


@dataclass(eq=False)
class Group:
    """Nodes that become one kernel, in execution order: an anchor, the elementwise nodes that follow it, and perhaps a
    tail, which reduces a value that they make.

    `inputs` are read from memory and `outputs` written to it; values between nodes of the group that nobody else reads
    never exist in memory. A group of elementwise nodes alone has the first of them as its anchor. The one other kind is
    that of `Backend.attends`.
    """

    nodes: tuple[Node, ...]

    @property
    def anchor(self) -> Node:
        return self.nodes[0]

    @property
    def epilogue(self) -> tuple[Node, ...]:
        return self.nodes[1:] if self.tail is None else self.nodes[1:-1]

    @property
    def tail(self) -> Node | None:
        last = self.nodes[-1]
        return None if last.op.elementwise or last is self.anchor or self.is_attention else last

    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()

    @property
    def is_attention(self) -> bool:
        return not all(node.op.elementwise for node in self.nodes[1:-1])


@dataclass(frozen=True)
class Argument:
    """One pointer of a kernel: what lies behind it and what the kernel does with it."""

    dtype: DType
    elements: int
    access: Access

    @property
    def bytes(self) -> int:
        return self.dtype.bytes * self.elements


class KernelSpec(Protocol):
    """A complete, printable description of one kernel; equal specs are one kernel.

    Implementations are frozen dataclasses whose `repr` determines the code: with the target and the generator's version
    it is the key of the kernel cache.
    """

    @property
    def stem(self) -> str:
        """`f32_conv2d_hard_swish`: what a profile shows, without target and hash."""

    @property
    def arguments(self) -> tuple[Argument, ...]: ...


class DeviceKernelSpec(KernelSpec, Protocol):
    """A kernel for a device (`Arch.is_device`)."""

    @property
    def threads(self) -> int:
        """Work items of a group, which is a task."""

    def narrowed(self, most: int) -> DeviceKernelSpec:
        """If its items wait for one another the same tasks by groups of at most `most` items (64 and more), for devices
        whose groups are no larger. Else itself: there, fewer items do one part of a task after another.
        """


@dataclass(frozen=True)
class Workspace:
    """Scratch memory of a group, alive only while its calls run. Compared by identity of `index` within a group."""

    index: int
    bytes: int


@dataclass(frozen=True)
class KernelCall:
    """One launch: `operands[i]` is bound to `spec.arguments[i]`; tasks 0..tasks-1 run in any order, on any thread."""

    spec: KernelSpec
    operands: tuple[Value | Workspace, ...]
    tasks: int
    macs: int = 0
    label: str = ""  # the source nodes, for the profile


@dataclass(frozen=True)
class Lowering:
    """The calls that compute one group, in order."""

    calls: tuple[KernelCall, ...]
    workspaces: tuple[Workspace, ...] = ()


@dataclass(frozen=True)
class Part:
    """One of several calls that become one. Its tasks come behind those of the parts before it; `arguments[i]` is which
    of the whole kernel's arguments its own argument i is.
    """

    spec: KernelSpec
    tasks: int
    arguments: tuple[int, ...]


@dataclass(frozen=True)
class CodeImage:
    """Linked machine code: an ELF file without imports, relocations and writable data, mapped as it is.

    `entries` gives each spec's function as an offset into `data`. For C-source targets `data` is the C source and
    `entries` are indices into its table of functions. Devices find kernels by name, and `entries` are 0.
    """

    kind: str  # "elf" | "c" | "cubin" | "opencl"
    data: bytes
    entries: Mapping[KernelSpec, int]
    names: Mapping[KernelSpec, str]  # symbol: edgec_<stem>__<hash8>
    products: Mapping[KernelSpec, Product] = field(default_factory=dict)  # of CUDA: what a library could do as well


Progress = Callable[[int, int], None]  # done, total

# (anchor, follower) -> whether `follower`, an elementwise node that reads an output of `anchor`'s group, can join the
# epilogue.
CanFuse = Callable[[Node, Node], bool]


class Backend(Protocol):
    """Code generation for one target."""

    target: Target

    def unsupported(self, node: Node) -> str | None:
        """Why this node cannot be lowered, or None. Must not load the code generator: `edgec check` calls it."""

    def fusion(self) -> CanFuse:
        """The rule for one graph, which may remember what it found: ask for another one when the graph has changed."""

    def attends(self, group: Group) -> bool:
        """Whether a group that is all of an attention, or all of its gradient (`graph.attention`), is best computed as
        one, without the matrix of scores.
        """

    def takes_tail(self, group: Group) -> bool:
        """Whether the kernel of a group should also make its tail's sums, of what it has just stored: nobody then reads
        the whole tensor again for them.
        """

    def choose_storage(self, programs: Sequence[Sequence[Group]]) -> dict[str, Storage]:
        """Storage of every param, state and constant leaf by name (row-major where absent), one for all programs."""

    def activation_storage(self, values: Iterable[Value]) -> dict[Value, Storage]:
        """Storage of computed values. Inputs and outputs of a program are always row-major."""

    def in_place(self, group: Group) -> Sequence[tuple[Value, Value]]:
        """Pairs (output, input) of equal size where the output may overwrite the input if both lie alike and nobody
        reads it later.
        """

    def lower(self, group: Group, storage: Mapping[Value, Storage], alias: Mapping[Value, Value]) -> Lowering:
        """Kernel calls for a group. `alias[output]` is the input whose memory it shares: one pointer serves both."""

    def guarded(self, spec: KernelSpec, words: int) -> KernelSpec | None:
        """The same kernel, which does nothing unless `words` more arguments, an f32 each, are finite. None where there
        is no such kernel, or where programs had better stop at a guard.
        """

    def merge_key(self, spec: KernelSpec, tasks: int) -> Hashable:
        """Calls with the same key may become one call, whatever they read and write; None: not this one."""

    def merged(self, parts: Sequence[Part], arguments: Sequence[Argument]) -> KernelSpec | None:
        """The kernel that does all parts side by side. None where they are too much for one."""

    def build(self, specs: Sequence[KernelSpec], *, progress: Progress | None = None) -> CodeImage:
        """Compile in worker processes, through the kernel cache, and link. UserError E0402, E0404."""


@dataclass(frozen=True)
class TargetStatus:
    """One line of `edgec targets`: what of a target's tools is installed, and the command that installs the rest."""

    target: Target
    missing: tuple[str, ...] = ()
    install: str = ""
    runs_on: str = ""
    notes: tuple[str, ...] = field(default=())
