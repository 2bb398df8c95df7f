"""The machines edgec compiles for, as data; and this machine, by its /proc/cpuinfo.

Code for a target uses exactly the instruction set extensions that `Target.features` declares beyond the architecture's
baseline (x86-64 with SSE2, Armv8.0-A with NEON): the runtime checks those and nothing else before it maps the code.
"""

from __future__ import annotations

import dataclasses
import difflib
import platform
from functools import cache
from pathlib import Path

from edgec.backends.base import Target
from edgec.graph.errors import UserError
from edgec.runtime.abi import Arch, Feature

AVX2 = Feature.AVX2 | Feature.FMA
AVX512 = AVX2 | Feature.AVX512F | Feature.AVX512BW | Feature.AVX512DQ | Feature.AVX512VL
ARMV8_2 = Feature.DOTPROD | Feature.FP16

# Feature: (LLVM attribute, word in /proc/cpuinfo).
_FEATURE_NAMES = {
    Feature.AVX2: ("avx2", "avx2"),
    Feature.FMA: ("fma", "fma"),
    Feature.AVX512F: ("avx512f", "avx512f"),
    Feature.AVX512BW: ("avx512bw", "avx512bw"),
    Feature.AVX512DQ: ("avx512dq", "avx512dq"),
    Feature.AVX512VL: ("avx512vl", "avx512vl"),
    Feature.AVX512VNNI: ("avx512vnni", "avx512_vnni"),
    Feature.DOTPROD: ("dotprod", "asimddp"),
    Feature.FP16: ("fullfp16", "asimdhp"),
    Feature.I8MM: ("i8mm", "i8mm"),
    Feature.SVE: ("sve", "sve"),
}

# Application processors by LLVM's -mcpu name, with what they have beyond Armv8.0-A. SVE is left unused: its vectors
# have no fixed length, and phones with it have cores that differ.
ARM_CPUS = {
    "generic": Feature(0),
    "cortex-a35": Feature(0),
    "cortex-a53": Feature(0),
    "cortex-a55": ARMV8_2,
    "cortex-a57": Feature(0),
    "cortex-a72": Feature(0),
    "cortex-a73": Feature(0),
    "cortex-a75": ARMV8_2,
    "cortex-a76": ARMV8_2,
    "cortex-a77": ARMV8_2,
    "cortex-a78": ARMV8_2,
    "cortex-a510": ARMV8_2 | Feature.I8MM,
    "cortex-a710": ARMV8_2 | Feature.I8MM,
    "cortex-x1": ARMV8_2,
    "cortex-x2": ARMV8_2 | Feature.I8MM,
    "neoverse-n1": ARMV8_2,
    "neoverse-n2": ARMV8_2 | Feature.I8MM,
    "neoverse-v1": ARMV8_2 | Feature.I8MM,
}


def _attributes(features: Feature) -> tuple[str, ...]:
    return tuple(f"+{llvm}" for feature, (llvm, _) in _FEATURE_NAMES.items() if feature in features)


def _x86(name: str, features: Feature, description: str) -> Target:
    """`-mcpu=x86-64` and the declared extensions: the named levels would bring more than the runtime checks."""
    wide = Feature.AVX512F in features
    return Target(
        name=name,
        arch=Arch.X86_64,
        triple="x86_64-linux-gnu",
        cpu="x86-64",
        attributes=_attributes(features),
        features=features,
        lanes=16 if wide else 8,
        registers=32 if wide else 16,
        description=description,
    )


def _arm(name: str, cpu: str, description: str) -> Target:
    """An Armv8-A core. The cryptography extension, which LLVM takes for granted, is missing on a Raspberry Pi 4."""
    features = ARM_CPUS[cpu]
    return Target(
        name=name,
        arch=Arch.AARCH64,
        triple="aarch64-linux-gnu",
        cpu=cpu,
        attributes=("+neon", *_attributes(features), "-aes", "-sha2", "-sve"),
        features=features,
        lanes=4,
        registers=32,
        description=description,
    )


def _c_source(name: str, arch: Arch, triple: str, description: str) -> Target:
    return Target(name=name, arch=arch, triple=triple, cpu=name, c_source=True, description=description)


def _device(name: str, arch: Arch, cpu: str, description: str, capability: int = 0) -> Target:
    return Target(name=name, arch=arch, triple="", cpu=cpu, capability=capability, description=description)


def _cuda(name: str, cpu: str, description: str) -> Target:
    return _device(name, Arch.CUDA, cpu, description, int(cpu.removeprefix("sm_")))


_ALIASES = {"jetson": "jetson-orin"}
# What NVRTC 12.6 compiles for and has tensor cores for TF32; each runs on later minor releases of its major one too.
_CUDA_CPUS = ("sm_80", "sm_86", "sm_87", "sm_89", "sm_90")


_PRESETS = (
    _x86("x86-64-v3", AVX2, "x86-64 with AVX2 and FMA"),
    _x86("x86-64-v4", AVX512, "x86-64 with AVX-512 F, BW, DQ and VL"),
    _arm("rpi4", "cortex-a72", "Raspberry Pi 4"),
    _arm("rpi5", "cortex-a76", "Raspberry Pi 5"),
    _arm("pixel", "cortex-a76", "Google Pixel 6 and later; its small cores have the same extensions"),
    _arm("arm-cpu", "generic", "any Armv8-A core; arm-cpu:CPU for a certain one"),
    _cuda("jetson-orin", "sm_87", "Jetson Orin"),
    _device("mobile-gpu", Arch.OPENCL, "opencl", "any device with OpenCL 1.2"),
    _c_source("cortex-m4", Arch.ARM, "thumbv7em-none-eabihf", "Armv7E-M, single-precision floating point"),
    _c_source("cortex-m7", Arch.ARM, "thumbv7em-none-eabihf", "Armv7E-M, dual issue"),
    _c_source("cortex-m55", Arch.ARM, "thumbv8.1m.main-none-eabihf", "Armv8.1-M"),
    _c_source("riscv32", Arch.RISCV32, "riscv32-unknown-elf", "RV32IMAFC"),
)


# Flags of GCC and clang for the C of a target.
_MACHINE_FLAGS = {
    "cortex-m4": ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
    "cortex-m7": ("-mcpu=cortex-m7", "-mthumb", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"),
    "cortex-m55": ("-mcpu=cortex-m55", "-mthumb", "-mfpu=auto", "-mfloat-abi=hard"),
    "riscv32": ("-march=rv32imafc", "-mabi=ilp32f", "--specs=picolibc.specs"),
}


def c_flags(target: Target) -> tuple[str, ...]:
    """For compiling kernels and runtime, by GCC or clang; the same bits on every machine."""
    dialect = "-std=c11" if target.c_source else "-std=gnu11"  # POSIX beside the standard library
    machine = _MACHINE_FLAGS.get(target.name, ("-pthread",))
    return (dialect, "-O2", "-ffp-contract=off", *machine, "-ffunction-sections", "-fdata-sections")


def host_arch() -> Arch:
    """The architecture this process runs on. UserError E0401 on a host that edgec does not know."""
    machine = platform.machine()
    arches = {"x86_64": Arch.X86_64, "amd64": Arch.X86_64, "aarch64": Arch.AARCH64, "arm64": Arch.AARCH64}
    if machine not in arches:
        raise UserError("E0401", f"this machine is {machine!r}; edgec runs on x86-64 and aarch64 hosts")
    return arches[machine]


def features_in(cpuinfo: str) -> Feature:
    """What of `Feature` the text of a /proc/cpuinfo shows on every core."""
    lists = [line.partition(":")[2].split() for line in cpuinfo.splitlines() if line.startswith(("flags", "Features"))]
    if not lists:
        return Feature(0)
    common = set(lists[0]).intersection(*lists)
    found = Feature(0)
    for feature, (_, word) in _FEATURE_NAMES.items():
        if word in common:
            found |= feature
    return found


@cache
def host_features() -> Feature:
    try:
        return features_in(Path("/proc/cpuinfo").read_text())
    except OSError:
        return Feature(0)


def native_x86(features: Feature) -> Target:
    """Target `x86` for a machine with `features`: AVX-512 with VNNI where all of it is there, else AVX2 and FMA."""
    if AVX512 in features:
        return _x86("x86", AVX512 | (features & Feature.AVX512VNNI), "this machine: AVX-512")
    return _x86("x86", AVX2, "this machine: AVX2 and FMA")


def all_targets() -> tuple[Target, ...]:
    """Every named target, `x86` for this machine first."""
    return (native_x86(host_features() if host_arch() is Arch.X86_64 else AVX2), *_PRESETS)


def find_target(name: str) -> Target:
    """A target by name: a preset, `arm-cpu:CPU` for any CPU of `ARM_CPUS`, `cuda:sm_NN` for GPUs. `+tf32` behind one
    for CUDA allows to round what products read. UserError E0401.
    """
    plain, plus, option = name.partition("+")
    if plus:
        target = find_target(plain)
        if option != "tf32" or target.arch is not Arch.CUDA:
            raise UserError("E0401", f"`{name}`: `{plain}` has no option `{option}`", hint="+tf32, of CUDA targets")
        return dataclasses.replace(
            target, name=f"{target.name}+tf32", tf32=True, description=f"{target.description}, products in TF32"
        )
    targets = {target.name: target for target in all_targets()}
    name = _ALIASES.get(name, name)
    if name in targets:
        return targets[name]
    family, colon, cpu = name.partition(":")
    if family == "arm-cpu" and colon:
        if cpu in ARM_CPUS:
            return _arm(name, cpu, f"Armv8-A: {cpu}")
        raise UserError("E0401", f"unknown Arm CPU `{cpu}`", hint=_hint(cpu, ARM_CPUS, "arm-cpu:"))
    if family == "cuda":
        if cpu in _CUDA_CPUS:
            return _cuda(name, cpu, f"GPUs of NVIDIA: {cpu}")
        known = ", ".join(f"cuda:{word}" for word in _CUDA_CPUS)
        raise UserError("E0401", f"`{name}` names no CUDA architecture", hint=f"known: {known}")
    raise UserError("E0401", f"unknown target `{name}`", hint=_hint(name, targets, ""))


def _hint(name: str, known: dict, prefix: str) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(f"`{prefix}{word}`" for word in near) + "?"
    return "known: " + ", ".join(f"{prefix}{word}" for word in known)


def tvm_target(target: Target) -> dict[str, object]:
    """The keys of TVM's target for this machine. Fast-math stays off. At level 3, TVM's default, LLVM unrolls whole
    loops of constant counts: kernels are as fast at level 2, and those of sums and transposes half as large.
    """
    if target.c_source:
        return {"kind": "c"}
    if target.arch is Arch.OPENCL:
        return {"kind": "opencl", "max_threads_per_block": 256, "thread_warp_size": 1}
    if target.arch is Arch.CUDA:
        return {"kind": "cuda", "arch": target.cpu, "max_threads_per_block": 1024, "thread_warp_size": 32}
    attributes = list(target.attributes)
    return {"kind": "llvm", "mtriple": target.triple, "mcpu": target.cpu, "mattr": attributes, "opt-level": 2}
