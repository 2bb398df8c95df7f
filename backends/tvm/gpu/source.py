"""The text of kernels for devices: what TVM prints as OpenCL C or CUDA C, made to stand alone. Loads no tvm.

A CUDA kernel takes addresses. An OpenCL kernel takes, for each pointer, a memory object and an offset into it in bytes:
a whole arena is one object, and sub-objects would have to be aligned as each device likes. How many items a group may
have depends on the device too, and on what its compiler makes of a kernel. One whose items do not wait for one another
runs in groups of any size; of the others there is a second text, for FEW_ITEMS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from edgec.backends.base import DeviceKernelSpec
from edgec.backends.tvm.c_source import plain_literals, without_unread_locals
from edgec.graph.errors import InternalError
from edgec.runtime.abi import Arch

_OPENCL = """\
typedef char int8_t;
typedef uchar uint8_t;
typedef short int16_t;
typedef ushort uint16_t;
typedef int int32_t;
typedef uint uint32_t;
typedef long int64_t;
typedef ulong uint64_t;
#define select(no, yes, condition) ((condition) ? (yes) : (no)) /* OpenCL's own is picky about types */
#define as_f32(bits) as_float((int)(bits))
#define as_i32(number) as_int((float)(number))
"""
_CUDA = """\
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef unsigned char uchar;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef unsigned short ushort;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef unsigned int uint;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define as_f32(bits) __int_as_float(bits)
#define as_i32(number) __float_as_int(number)
#undef INFINITY
#undef NAN
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fc00000)
#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ float round_tf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return __int_as_float(bits);
}
__device__ __forceinline__ void multiply_tf32(float *d, float a0, float a1, float a2, float a3, float b0, float b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(__float_as_int(a0)), "r"(__float_as_int(a1)), "r"(__float_as_int(a2)), "r"(__float_as_int(a3)),
        "r"(__float_as_int(b0)), "r"(__float_as_int(b1)));
}
#endif
"""
FEW_ITEMS = 64  # of a group, where the device or the kernel does not let it have more
_PRELUDES = {Arch.OPENCL: _OPENCL, Arch.CUDA: _CUDA}
_DEFINITIONS = {
    Arch.OPENCL: r"^__kernel void {}\([^;{{]*\{{",
    Arch.CUDA: r'^extern "C" __global__ [^;{{]*\b{}\([^;{{]*\{{',
}
_OPENCL_SHARED = re.compile(r"^ *__local [^;]*;\n", re.MULTILINE)
_OPENCL_POINTER = re.compile(r"__global (\w+)\* restrict (\w+)")
_ITEM = "get_local_id(0)"


def cuda_function(source: str, symbol: str) -> str:
    """The function `symbol` of a generated file, for `device_source`. InternalError where it cannot be."""
    return _function(source, symbol, Arch.CUDA)


def opencl_function(source: Callable[[DeviceKernelSpec], str], spec: DeviceKernelSpec, symbol: str) -> str:
    """The same, of the files that `source` makes of a spec and of narrower ones."""
    text = _function(source(spec), symbol, Arch.OPENCL)
    if not waits(text):
        return _opencl_form(text, spec.threads)
    narrow = spec.narrowed(FEW_ITEMS)
    if narrow == spec:
        return _opencl_form(text, spec.threads)
    few = _function(source(narrow), symbol, Arch.OPENCL)
    return f"#ifndef FEW_ITEMS\n{_opencl_form(text, spec.threads)}#else\n{_opencl_form(few, narrow.threads)}#endif\n"


def waits(text: str) -> bool:
    """Whether the items of a group in OpenCL C wait for one another."""
    return "barrier(" in text


def _function(source: str, symbol: str, arch: Arch) -> str:
    start = re.search(_DEFINITIONS[arch].format(re.escape(symbol)), source, re.MULTILINE)
    if start is None:
        raise InternalError(f"kernel `{symbol}`: the text does not define its function\n{source}")
    return without_unread_locals(plain_literals(source[start.start() :].rstrip() + "\n", symbol))


def _opencl_form(text: str, threads: int) -> str:
    """With offsets; for groups of just `threads` items, or of any number that share out what so many would do."""
    head, _, body = text.partition("{")
    pointers = _OPENCL_POINTER.findall(head)
    head = _OPENCL_POINTER.sub(r"__global uchar* \2_base, ulong \2_offset", head)
    names = [f"  __global {kind}* restrict {p} = (__global {kind}*)({p}_base + {p}_offset);" for kind, p in pointers]
    if waits(body):
        head = head.replace("__kernel ", f"__kernel __attribute__((reqd_work_group_size({threads}, 1, 1))) ")
        shared = "".join(_OPENCL_SHARED.findall(body))  # only a function itself may declare it, no block inside
        return "\n".join([head + "{", *names, shared]) + _OPENCL_SHARED.sub("", body)
    loop = f"  for (int item = (int){_ITEM}; item < {threads}; item += (int)get_local_size(0)) {{"
    return "\n".join([head + "{", *names, loop]) + body.replace(_ITEM, "item").rstrip() + "\n}\n"


def device_source(functions: Mapping[str, bytes], arch: Arch) -> bytes:
    """One translation unit from the texts of all kernels, in the order of their names."""
    return "\n".join([_PRELUDES[arch], *(functions[name].decode() for name in sorted(functions))]).encode()
