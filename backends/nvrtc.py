"""CUDA C to a cubin, by NVIDIA's run-time compiler: a library of one package, which needs neither toolkit nor GPU."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgec.backends.cache import Cache, cache_folder
from edgec.graph.errors import InternalError, UserError

# 12.6 is what Jetson's current system has a driver for; a cubin runs on drivers as new as its compiler.
REQUIREMENT = "nvidia-cuda-nvrtc-cu12>=12.6,<12.7"
_LIBRARY = "libnvrtc.so.12"

Job = Callable[[], bytes]


def installed() -> bool:
    return _path() is not None


def cubin(source: bytes, arch: str, run: Callable[[Job], bytes]) -> bytes:
    """The machine code of a translation unit for `arch` (`sm_87`), from the cache or by `run`, which calls a job in
    another process: E0402 if the compiler is missing, InternalError with its words if it refuses the source.
    """
    path = _path()
    if path is None:
        raise UserError("E0402", "NVRTC is needed to compile for CUDA", hint=f"pip install '{REQUIREMENT}'")
    cache = Cache(cache_folder() / "kernels")
    release = str(path.stat().st_size)
    key = hashlib.sha256(b"|".join((source, arch.encode(), release.encode()))).hexdigest()
    code = cache.get(key)
    if code is None:
        code = run(partial(_compile, str(path), source, arch))
        cache.put(key, code)
        cache.evict()
    return code


def _path() -> Path | None:
    try:
        package = importlib.util.find_spec("nvidia.cuda_nvrtc")
    except ModuleNotFoundError:
        return None
    for folder in package.submodule_search_locations or () if package else ():
        path = Path(folder) / "lib" / _LIBRARY
        if path.exists():
            return path
    return None


def _compile(library: str, source: bytes, arch: str) -> bytes:
    nvrtc = ctypes.CDLL(library)
    program, size = ctypes.c_void_p(), ctypes.c_size_t()

    def text(which: str) -> bytes:
        getattr(nvrtc, f"nvrtcGet{which}Size")(program, ctypes.byref(size))
        data = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{which}")(program, data)
        return data.raw

    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None) != 0:
        raise InternalError("NVRTC could not begin")
    options = [f"--gpu-architecture={arch}".encode(), b"--std=c++17", b"--disable-warnings"]
    if nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)) != 0:
        raise InternalError(f"NVRTC refuses kernels for {arch}:\n{text('ProgramLog').decode(errors='replace')[:4000]}")
    code = text("CUBIN")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return code
