import pytest
from toys import ToySpec, build_toys

from edgec.backends import targets
from edgec.backends.targets import AVX2, AVX512, all_targets, features_in, find_target, native_x86, tvm_target
from edgec.graph.errors import UserError
from edgec.runtime.abi import Feature
from edgec.tools.testing.isa import ASSEMBLERS, refused_instructions

_AVX2_FLAGS = "fpu sse2 avx avx2 fma bmi2"
_AVX512_FLAGS = _AVX2_FLAGS + " avx512f avx512dq avx512bw avx512vl avx512_vnni"


def test_features_are_those_of_every_core():
    assert features_in(f"processor : 0\nflags\t\t: {_AVX2_FLAGS}\n") == AVX2
    assert features_in(f"flags : {_AVX512_FLAGS}\nflags : {_AVX2_FLAGS}\n") == AVX2
    assert features_in("Features\t: fp asimd asimdhp asimddp\n") == Feature.FP16 | Feature.DOTPROD
    assert features_in("") == Feature(0)


def test_x86_takes_avx512_only_where_all_of_it_is_there():
    full = native_x86(features_in(f"flags : {_AVX512_FLAGS}"))
    assert (full.lanes, full.registers) == (16, 32) and full.features == AVX512 | Feature.AVX512VNNI
    partial = native_x86(AVX512 & ~Feature.AVX512BW)
    assert (partial.lanes, partial.registers) == (8, 16) and partial.features == AVX2


def test_every_target_is_found_by_its_name():
    for target in all_targets():
        assert find_target(target.name) == target
    assert find_target("arm-cpu:cortex-a55").features == Feature.DOTPROD | Feature.FP16
    assert find_target("rpi4").features == Feature(0) and find_target("rpi5").cpu == "cortex-a76"


def test_c_source_targets_are_scalar():
    for name in ("cortex-m4", "cortex-m7", "cortex-m55", "riscv32"):
        target = find_target(name)
        assert target.c_source and target.lanes == 1 and tvm_target(target) == {"kind": "c"}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("rpi", "`rpi4`"),
        ("cortexm7", "`cortex-m7`"),
        ("arm-cpu:cortexa72", "`arm-cpu:cortex-a72`"),
        ("zx81", "known: x86, x86-64-v3"),
    ],
)
def test_an_unknown_target_suggests_near_names(name, near):
    with pytest.raises(UserError) as caught:
        find_target(name)
    assert caught.value.code == "E0401" and near in caught.value.hint


def test_an_unknown_host_is_a_users_error(monkeypatch):
    monkeypatch.setattr(targets.platform, "machine", lambda: "s390x")
    with pytest.raises(UserError, match="s390x"):
        targets.host_arch()


# -- code for a target uses nothing beyond what the target declares --


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path))


@pytest.mark.parametrize("name", ASSEMBLERS)
def test_code_uses_only_what_its_target_declares(name, tmp_path, own_cache):
    image = build_toys([ToySpec()], name).data
    assert refused_instructions(image, name, ASSEMBLERS[name][1], tmp_path) == []


def test_the_assembler_check_sees_a_wrong_instruction(tmp_path, own_cache):
    image = build_toys([ToySpec()], "x86-64-v4").data
    refused = refused_instructions(image, "x86-64-v4", ASSEMBLERS["x86-64-v3"][1], tmp_path)
    assert refused and all("zmm" in instruction for instruction in refused)


def test_gpus():
    assert find_target("jetson") == find_target("jetson-orin")
    assert (find_target("jetson").cpu, find_target("jetson").capability) == ("sm_87", 87)
    assert (find_target("cuda:sm_90").name, find_target("cuda:sm_90").capability) == ("cuda:sm_90", 90)
    for name in ("cuda", "cuda:sm_12"):
        with pytest.raises(UserError) as caught:
            find_target(name)
        assert caught.value.code == "E0401" and "cuda:sm_87" in caught.value.hint
