"""The text of kernels for devices: what TVM prints as OpenCL C or CUDA C, made to stand alone. Loads no tvm.

A CUDA kernel takes addresses. An OpenCL kernel takes, for each pointer, a memory object and an offset into it in bytes:
a whole arena is one object, and sub-objects would have to be aligned as each device likes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

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
_PRELUDES = {Arch.OPENCL: _OPENCL, Arch.CUDA: _CUDA}
_DEFINITIONS = {
    Arch.OPENCL: r"^__kernel void {}\([^;{{]*\{{",
    Arch.CUDA: r'^extern "C" __global__ [^;{{]*\b{}\([^;{{]*\{{',
}
_OPENCL_SHARED = re.compile(r"^ *__local [^;]*;\n", re.MULTILINE)
_OPENCL_POINTER = re.compile(r"__global (\w+)\* restrict (\w+)")


def device_function(source: str, symbol: str, arch: Arch) -> str:
    """The function `symbol` of a generated file, for `device_source`. InternalError where it cannot be."""
    start = re.search(_DEFINITIONS[arch].format(re.escape(symbol)), source, re.MULTILINE)
    if start is None:
        raise InternalError(f"kernel `{symbol}`: the text does not define its function\n{source}")
    text = without_unread_locals(plain_literals(source[start.start() :].rstrip() + "\n", symbol))
    return _with_offsets(text) if arch is Arch.OPENCL else text


def _with_offsets(text: str) -> str:
    head, brace, body = text.partition("{")
    pointers = _OPENCL_POINTER.findall(head)
    head = _OPENCL_POINTER.sub(r"__global uchar* \2_base, ulong \2_offset", head)
    names = (f"  __global {kind}* restrict {p} = (__global {kind}*)({p}_base + {p}_offset);" for kind, p in pointers)
    shared = "".join(_OPENCL_SHARED.findall(body))  # only a function itself may declare it, no block inside
    return "\n".join([head + brace, *names, shared]) + _OPENCL_SHARED.sub("", body)


def device_source(functions: Mapping[str, bytes], arch: Arch) -> bytes:
    """One translation unit from the texts of all kernels, in the order of their names."""
    return "\n".join([_PRELUDES[arch], *(functions[name].decode() for name in sorted(functions))]).encode()
