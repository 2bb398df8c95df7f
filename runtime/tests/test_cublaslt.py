"""cuBLASLt beside the kernels, on a driver and a library that are none (stub_cuda.c, stub_cublaslt.c).

Where it is faster it does the products, in every opening the same ones; in all other cases the kernels do, silently.
"""

import dataclasses
import json

import numpy as np
import pytest
from sample_artifact import LEFT, PRODUCTS, RIGHT, feeds, guarded_variant, product_variant, sample
from stub_runner import MACHINES, runner_on
from tampering import Tampered

from edgec.runtime import load
from edgec.runtime.abi import Arch
from edgec.runtime.check import check_artifact
from edgec.runtime.errors import RuntimeFailure
from edgec.runtime.layout import artifact_bytes, read_artifact, write_artifact
from edgec.runtime.tables import Section

USE = ("--libraries", "cublaslt")
FASTER = {"STUB_CAPABILITY": "87", "STUB_PRODUCT": "100"}
SLOWER = {"STUB_CAPABILITY": "87", "STUB_LIBRARY": "100"}
GOOD = artifact_bytes(sample(product_variant(87)))
LOOKS = "looks for algorithms"


@pytest.fixture(scope="module", params=["here"])
def run(request, tmp_path_factory):
    return runner_on(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def library(run):
    return run.with_library("stub_cublaslt.c", "libcublasLt.so.13")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    path = tmp_path_factory.mktemp("artifact") / "sample.edge"
    path.write_bytes(GOOD)
    return path


@pytest.fixture(scope="module")
def factors():
    random = np.random.default_rng(0)
    return {"left": random.standard_normal(LEFT), "right": random.standard_normal(RIGHT)}


@pytest.fixture
def products(run, artifact, factors, tmp_path):
    """Runs all products and holds them to numpy: the names that a profile has for them, and what the stubs said."""

    def multiply(*options, cache=tmp_path / "cache", artifact=artifact, **environment):
        arrays = {name: array.astype(np.float32) for name, array in factors.items()}
        done, out = run(artifact, "products", arrays, *options, EDGEC_CACHE=str(cache), **environment)
        assert done.returncode == 0, done.stderr
        profile = tmp_path / "profile.json"
        run(artifact, "products", arrays, *options, "--profile", profile, EDGEC_CACHE=str(cache), **environment)
        for name, (turned_left, turned_right) in PRODUCTS.items():
            left = factors["left"].reshape(2, 6, 4).swapaxes(1, 2) if turned_left else factors["left"]
            right = factors["right"].reshape(2, 5, 6).swapaxes(1, 2) if turned_right else factors["right"]
            np.testing.assert_allclose(out[name], [*(left @ right), np.zeros((4, 5))], rtol=1e-5, atol=1e-5)
        return [call["kernel"] for call in json.loads(profile.read_text())["calls"]], done.stderr

    return multiply


@pytest.mark.parametrize("run", MACHINES, indirect=True)
def test_the_faster_library_is_used_and_remembered(products, library):
    assert products(*USE, libraries=library, **FASTER)[0] == ["cublasLt"] * 4
    # Whatever is the faster now.
    names, said = products(*USE, libraries=library, **SLOWER)
    assert names == ["cublasLt"] * 4 and LOOKS not in said


def test_the_slower_library_is_not_used_and_that_is_remembered(products, library):
    assert products(*USE, libraries=library, **SLOWER)[0] == list(PRODUCTS)
    names, said = products(*USE, libraries=library, **FASTER)
    assert names == list(PRODUCTS) and LOOKS not in said


def test_what_is_faster_only_alone_is_not_used(products, library):
    assert products(*USE, libraries=library, STUB_AMID="400", **FASTER)[0] == list(PRODUCTS)


def test_products_of_the_library_are_parts_of_the_one_graph(products, library):
    _, said = products(*USE, libraries=library, **FASTER)
    _, said = products(*USE, libraries=library, **FASTER)
    assert said.count("graph of") == 1 and "graph of 4" in said and said.count("launch") == 1


def test_only_where_it_is_asked_for(products, library, tmp_path):
    names, said = products(libraries=library, **FASTER)
    assert names == list(PRODUCTS) and LOOKS not in said
    assert not (tmp_path / "cache").exists()


def test_not_installed(products, tmp_path):
    assert products(*USE, **FASTER)[0] == list(PRODUCTS)
    assert not (tmp_path / "cache").exists()


def test_an_older_library_is_found(run, products):
    older = run.with_library("stub_cublaslt.c", "libcublasLt.so.11")
    assert products(*USE, libraries=older, **FASTER)[0] == ["cublasLt"] * 4


def test_what_cannot_be_remembered_is_not_used(products, library):
    assert products(*USE, libraries=library, cache="/dev/null", **FASTER)[0] == list(PRODUCTS)


@pytest.mark.parametrize("changed", [{"STUB_VERSION": "130001"}, {"STUB_DRIVER": "2"}, {"artifact": None}], ids=str)
def test_a_choice_is_for_one_artifact_library_and_driver(products, library, changed, tmp_path):
    products(*USE, libraries=library, **FASTER)
    if "artifact" in changed:
        kernels = product_variant(87).kernels
        rounding = [
            dataclasses.replace(k, product=k.product and dataclasses.replace(k.product, tf32=True)) for k in kernels
        ]
        variant = dataclasses.replace(product_variant(87), kernels=tuple(rounding))
        write_artifact(tmp_path / "tf32.edge", sample(variant))
        changed = {"artifact": tmp_path / "tf32.edge"}
    names, said = products(*USE, libraries=library, **SLOWER, **changed)
    assert names == list(PRODUCTS) and LOOKS in said


@pytest.mark.parametrize("damage", [lambda data: data[:60], lambda data: data[:-8] + bytes(8), lambda data: b"", None])
def test_a_damaged_choice_is_measured_anew(products, library, damage, tmp_path):
    products(*USE, libraries=library, **FASTER)
    (file,) = (tmp_path / "cache/programs").iterdir()
    file.write_bytes(damage(file.read_bytes())) if damage else file.unlink()
    names, said = products(*USE, libraries=library, **FASTER)
    assert names == ["cublasLt"] * 4 and LOOKS in said


@pytest.mark.parametrize("function", ["create", "describe", "layout", "preference", "heuristic", "matmul"])
def test_a_library_that_fails(products, library, function):
    assert products(*USE, libraries=library, STUB_FAILS=function, **FASTER)[0] == list(PRODUCTS)


@pytest.mark.parametrize("function", ["create", "layout", "matmul"])
def test_a_library_that_fails_later(products, library, function):
    products(*USE, libraries=library, **FASTER)
    names, said = products(*USE, libraries=library, STUB_FAILS=function, **FASTER)
    assert names == list(PRODUCTS) and LOOKS not in said
    assert products(*USE, libraries=library, **FASTER)[0] == ["cublasLt"] * 4


def test_measuring_leaves_what_is_trained_as_it_is(run, library, artifact, tmp_path):
    """All programs are tried, those that train too."""
    arrays = feeds() | {"lr": np.float32(0.05)}
    done, expected = run(artifact, "train", arrays, "--save-checkpoint", tmp_path / "expected", STUB_CAPABILITY="87")
    assert done.returncode == 0, done.stderr
    options = (*USE, "--save-checkpoint", tmp_path / "got")
    done, out = run(artifact, "train", arrays, *options, libraries=library, EDGEC_CACHE=str(tmp_path / "c"), **FASTER)
    assert done.returncode == 0 and done.stderr.count("updates") > 1, done.stderr
    np.testing.assert_array_equal(out["losses"], expected["losses"])
    assert (tmp_path / "got").read_bytes() == (tmp_path / "expected").read_bytes()


def test_an_unknown_library(run, artifact):
    done, _ = run(artifact, "products", {}, "--libraries", "other")
    assert done.returncode == 2 and "usage" in done.stderr
    with pytest.raises(ValueError, match="no library `other`"):
        load(artifact, libraries=["other"])


# ---- The section. ----


def test_products_come_back():
    kernels = read_artifact(GOOD).variants[0].kernels
    assert kernels == product_variant(87).kernels
    assert sum(kernel.product is not None for kernel in kernels) == 4
    check_artifact(GOOD)


def refused(data):
    with pytest.raises(RuntimeFailure, match="PRODUCTS") as caught:
        check_artifact(data)
    assert caught.value.code == "E0502"


HUGE = 2**64 - 1
LIES = [
    ("kernel", 0),
    ("kernel", 10**6),
    ("batch", 0),
    ("batch", 4),
    ("batch", 2**31),
    ("rows", 0),
    ("rows", 5),
    ("rows", 2**32 - 1),
    ("columns", 6),
    ("depth", 0),
    ("depth", 7),
    ("depth", 2**31),
    ("leading", (5, 5)),
    ("leading", (2**31, 5)),
    ("leading", (7, 5)),
    ("strides", (25, 30)),
    ("strides", (24, HUGE)),
    ("factors", (0, 0)),
    ("factors", (0, 2)),
    ("factors", (3, 1)),
    ("factors", (255, 1)),
    ("transposed", (2, 0)),
    ("transposed", (1, 0)),
    ("result", 1),
    ("result", 3),
    ("tf32", 2),
]


@pytest.mark.parametrize(("field", "value"), LIES, ids=str)
def test_lies_are_refused(field, value):
    tampered = Tampered(GOOD)
    tampered.records(Section.PRODUCTS)[0][field] = value
    refused(tampered.bytes())


def test_kernels_ascend():
    tampered = Tampered(GOOD)
    rows = tampered.records(Section.PRODUCTS)
    rows["kernel"][1] = rows["kernel"][0]
    refused(tampered.bytes())


def test_a_product_reads_its_factors_and_only_writes_its_result():
    for argument, access in ((0, 3), (1, 2), (2, 3)):
        tampered = Tampered(GOOD)
        kernel = int(tampered.records(Section.PRODUCTS)["kernel"][0])
        first = int(tampered.records(Section.KERNELS)["first_argument"][kernel])
        tampered.records(Section.ARGUMENTS)["access"][first + argument] = access
        refused(tampered.bytes())


def test_only_cuda_has_products():
    plain = guarded_variant(87)
    kernel = next(kernel for kernel in product_variant(87).kernels if kernel.product)
    opencl = dataclasses.replace(plain, arch=Arch.OPENCL, capability=0, kernels=(*plain.kernels, kernel))
    refused(artifact_bytes(sample(opencl)))
