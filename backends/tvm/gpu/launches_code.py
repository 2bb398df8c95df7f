"""Code of kernels around others."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.tvm._tvm import Expr, T, tirx
from edgec.backends.tvm.builder import DeviceKernel, Pointer, bind, serial, when
from edgec.backends.tvm.gpu.launches import GuardedSpec, MergedSpec

_EXPONENT = 0x7F800000  # all of its bits: an infinity or no number


def guarded(kernel: DeviceKernel, spec: GuardedSpec) -> DeviceKernel:
    """All items of all groups find the same words, so that barriers stay legal."""

    def body(*parameters: Pointer | Expr) -> None:
        *pointers, group, item = parameters
        own, words = pointers[: -spec.words], pointers[-spec.words :]
        finite = [(tirx.reinterpret("int32", word.load(0)) & T.int32(_EXPONENT)) != _EXPONENT for word in words]
        condition = finite[0]
        for other in finite[1:]:
            condition = tirx.And(condition, other)
        with when(condition):
            kernel.body(*own, group, item)

    return DeviceKernel(spec.arguments, kernel.groups, kernel.threads, body)


def merged(kernels: Sequence[DeviceKernel], spec: MergedSpec) -> DeviceKernel:
    """A group goes by the part that its number falls into: all its items the same way."""

    def body(*parameters: Pointer | Expr) -> None:
        *pointers, group, item = parameters
        first = 0
        for part, kernel in zip(spec.parts, kernels, strict=True):
            with when(tirx.And(group >= first, group < first + part.tasks)):
                with serial(0, kernel.threads // spec.threads) as turn:
                    own = bind(item + turn * spec.threads) if kernel.threads > spec.threads else item
                    kernel.body(*(pointers[i] for i in part.arguments), bind(group - first), own)
            first += part.tasks

    return DeviceKernel(spec.arguments, spec.groups, spec.threads, body)
