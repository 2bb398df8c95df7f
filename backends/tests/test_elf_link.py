import subprocess

import pytest

from edgec.backends import elf, toolchain
from edgec.backends.link import link
from edgec.backends.toolchain import Tool, Toolchain
from edgec.graph.errors import InternalError, UserError
from edgec.runtime.abi import Arch

_ARCHES = (Arch.X86_64, Arch.AARCH64)


def compile_c(source: str, arch: Arch, folder) -> bytes:
    """A relocatable object from C, by the compiler for `arch`."""
    (folder / "k.c").write_text(source)
    compiler = toolchain.toolchain(arch).compiler.path()
    flags = ["-O1", "-fPIC", "-ffreestanding", "-fno-asynchronous-unwind-tables", "-c"]
    subprocess.run([compiler, *flags, "-o", "k.o", "k.c"], cwd=folder, check=True)
    return (folder / "k.o").read_bytes()


def kernel(name: str) -> str:
    return f"void {name}(float *x, int lo, int hi) {{ for (int i = lo; i < hi; i++) x[i] = x[i] * 1.7f + 0.3f; }}"


@pytest.mark.parametrize("arch", _ARCHES)
def test_objects_link_in_order_of_names_and_entries_are_functions(arch, tmp_path):
    objects = {name: compile_c(kernel(name), arch, tmp_path) for name in ("b", "a")}
    for name, code in objects.items():
        elf.check_object(code, arch, name)
    image = link(objects, arch)
    offsets = elf.entry_offsets(image, objects)
    assert offsets["a"] < offsets["b"] < len(image)
    assert offsets["a"] % 64 == offsets["b"] % 64 == 0
    assert image == link(dict(reversed(objects.items())), arch)
    assert not [s.name for s in elf.parse(image).sections if s.name.startswith(".debug")]


@pytest.mark.parametrize("arch", _ARCHES)
def test_an_image_without_symbols_has_the_same_segment_and_loaded_sections(arch, tmp_path):
    image = link({name: compile_c(kernel(name), arch, tmp_path) for name in "ab"}, arch)
    cut = elf.without_symbols(image)
    elf.check_image(cut, arch)
    before, after = elf.parse(image), elf.parse(cut)
    (segment,) = after.segments
    assert after.segments == before.segments and cut[64 : segment.file_size] == image[64 : segment.file_size]
    loaded = [[section for section in file.sections if section.is_loaded] for file in (before, after)]
    assert loaded[0] == loaded[1] and ".text" in {section.name for section in loaded[1]}
    assert not after.symbols and b"\0a\0" not in cut[segment.file_size :] and len(cut) < len(image)


_HALF = """
__attribute__((weak, section(".text.tvm.fp16.conv"))) float __extendhfsf2(int h) { return h * 2.0f; }
float NAME(int h) { return __extendhfsf2(h); }
"""


@pytest.mark.parametrize("arch", _ARCHES)
def test_of_a_weak_helper_one_copy_stays(arch, tmp_path):
    objects = {name: compile_c(_HALF.replace("NAME", name), arch, tmp_path) for name in "ab"}
    one, two = link({"a": objects["a"]}, arch), link(objects, arch)
    assert [s.name for s in elf.parse(two).symbols].count("__extendhfsf2") == 1
    helper = next(s.size for s in elf.parse(two).symbols if s.name == "__extendhfsf2")
    grown = [next(s.size for s in elf.parse(image).sections if s.name == ".text") for image in (one, two)]
    assert 0 < grown[1] - grown[0] <= 64 + helper % 64


_POINTERS = 'static const char *const t[2] = {"a", "b"};'


@pytest.mark.parametrize("arch", _ARCHES)
@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("float expf(float); float bad(float x) { return expf(x); }", "needs symbols from outside: expf"),
        ("static int n = 3; int bad(void) { return n++; }", "writable memory: .data"),
        ("static int n; int bad(void) { return n++; }", "writable memory: .bss"),
        (f"{_POINTERS} const char *bad(int i) {{ return t[i]; }}", "writable memory: .data.rel.ro"),
        ("int other(void) { return 1; }", "does not define its function"),
    ],
)
def test_an_object_that_breaks_a_rule_is_refused_by_name(arch, source, problem, tmp_path):
    code = compile_c(source, arch, tmp_path)
    with pytest.raises(InternalError, match="`bad`") as caught:
        elf.check_object(code, arch, "bad")
    assert problem in str(caught.value)


@pytest.mark.parametrize("arch", _ARCHES)
def test_an_image_with_relocations_or_writable_memory_is_refused(arch, tmp_path):
    for source, problem in [
        (f"{_POINTERS} const char *k(int i) {{ return t[i]; }}", "writable|relocations"),
        ("static int n = 3; int k(void) { return n++; }", "writable"),
    ]:
        with pytest.raises(InternalError, match=problem):
            link({"k": compile_c(source, arch, tmp_path)}, arch)


def test_the_linker_refuses_undefined_symbols_and_two_kernels_of_one_name(tmp_path):
    undefined = compile_c("float expf(float); float k(float x) { return expf(x); }", Arch.X86_64, tmp_path)
    with pytest.raises(InternalError, match="expf"):
        link({"k": undefined}, Arch.X86_64)
    twice = compile_c(kernel("k"), Arch.X86_64, tmp_path)
    with pytest.raises(InternalError, match="multiple definition"):
        link({"k": twice, "l": twice}, Arch.X86_64)


def test_an_object_for_another_machine_is_refused(tmp_path):
    with pytest.raises(InternalError, match="not an object for its target"):
        elf.check_object(compile_c(kernel("k"), Arch.AARCH64, tmp_path), Arch.X86_64, "k")


def test_a_missing_entry_is_named(tmp_path):
    image = link({"k": compile_c(kernel("k"), Arch.X86_64, tmp_path)}, Arch.X86_64)
    with pytest.raises(InternalError, match="lacks `other`"):
        elf.entry_offsets(image, ["k", "other"])


def test_damaged_files_are_refused_not_misread(tmp_path):
    image = link({"k": compile_c(kernel("k"), Arch.X86_64, tmp_path)}, Arch.X86_64)
    with pytest.raises(InternalError, match="not a 64-bit"):
        elf.parse(b"MZ" + image)
    for length in range(16, len(image), 7):
        with pytest.raises(InternalError):
            elf.check_image(image[:length], Arch.X86_64)


# Offsets of fields in the first program header, which follows the 64-byte ELF header.
@pytest.mark.parametrize(
    ("at", "value", "problem"),
    [
        (64 + 4, 7, "read and execute only"),
        (64 + 16, 0x1000, "first byte"),
        (64 + 40, 0x7FFF, "beyond the file"),
        (56, 0, "more than one segment"),
        (16, 2, "position independent"),
    ],
)
def test_each_rule_of_the_image_is_checked(at, value, problem, tmp_path):
    image = bytearray(link({"k": compile_c(kernel("k"), Arch.X86_64, tmp_path)}, Arch.X86_64))
    image[at : at + 2] = value.to_bytes(2, "little")
    with pytest.raises(InternalError, match=problem):
        elf.check_image(bytes(image), Arch.X86_64)


def test_a_missing_linker_is_the_users_to_install(monkeypatch):
    absent = Toolchain(Tool(("no-such-ld",), ("binutils-x",)), Tool(("cc",), ("gcc",)))
    monkeypatch.setattr("edgec.backends.link.toolchain", lambda arch: absent)
    with pytest.raises(UserError) as caught:
        link({}, Arch.X86_64)
    assert caught.value.code == "E0402" and caught.value.hint == "apt-get install binutils-x"
