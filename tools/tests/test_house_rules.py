"""The house rules that a machine can hold: who imports whom, what is packaged, how long a file may be."""

import ast
import subprocess
import sys
import tomllib
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgec.tools import api
from edgec.tools.testing.models import small_cnn_onnx

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("graph", "frontend", "compiler", "backends", "runtime", "tools")

# What a part may import of edgec beside itself, as prefixes; the table of README.md.
MAY_IMPORT = {
    "graph": (),
    "frontend": ("edgec.graph",),
    "compiler": ("edgec.graph", "edgec.backends.base", "edgec.runtime.format", "edgec.runtime.abi"),
    "backends": ("edgec.graph", "edgec.runtime.abi"),
    "runtime": (),
    "tools": ("edgec",),
}
# Installed packages a part may import. tvm has one door.
MAY_USE = {
    "graph": {"numpy", "ml_dtypes"},
    "frontend": {"numpy", "ml_dtypes", "onnx", "google", "torch"},  # google.protobuf comes with onnx
    "compiler": {"numpy", "ml_dtypes"},
    "backends": {"numpy", "platformdirs"},
    "runtime": {"numpy"},
}
TVM_DOOR = Path("backends/tvm/_tvm.py")
SOFT_LINES, HARD_LINES = 400, 450


def sources(part: str) -> list[Path]:
    """Python files of a part, without its tests, which may use everything."""
    return [path for path in sorted((ROOT / part).rglob("*.py")) if "tests" not in path.relative_to(ROOT).parts]


def imported_modules(path: Path) -> set[str]:
    """Full names of all modules a file may load, wherever the import stands, but not those for type checkers."""
    tree = ast.parse(path.read_text(), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            # `from edgec.runtime import abi` loads edgec.runtime.abi.
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if is_module(name) else node.module for name in inner}
    return names


def is_module(name: str) -> bool:
    top, _, rest = name.partition(".")
    path = ROOT.joinpath(*rest.split("."))
    return top == "edgec" and (path.with_suffix(".py").exists() or (path / "__init__.py").exists())


def violations(part: str, path: Path) -> list[str]:
    found = []
    for name in sorted(imported_modules(path)):
        top = name.partition(".")[0]
        if top == "edgec":
            allowed = (f"edgec.{part}", *MAY_IMPORT[part])
            if not any(name == prefix or name.startswith(f"{prefix}.") for prefix in allowed):
                found.append(f"{path.relative_to(ROOT)} imports {name}")
        elif top == "tvm" and path.relative_to(ROOT) != TVM_DOOR:
            found.append(f"{path.relative_to(ROOT)} imports {name} instead of {TVM_DOOR}")
        elif part != "tools" and top not in sys.stdlib_module_names | MAY_USE[part] | {"tvm"}:
            found.append(f"{path.relative_to(ROOT)} imports {name}")
    return found


@pytest.mark.parametrize("part", PARTS)
def test_imports_follow_the_table(part):
    assert sources(part)
    assert [line for path in sources(part) for line in violations(part, path)] == []


def test_the_import_check_sees_what_it_should(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    for name in ("graph/x.py", "runtime/abi.py", "compiler/passes/y.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    path = tmp_path / "graph/x.py"
    path.write_text("import numpy, torch\nfrom edgec.runtime import abi\ndef f():\n    import tvm.ir\n")
    assert violations("graph", path) == [
        "graph/x.py imports edgec.runtime.abi",
        "graph/x.py imports torch",
        "graph/x.py imports tvm.ir instead of backends/tvm/_tvm.py",
    ]
    path.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n")
    assert violations("graph", path) == []


def test_packages_are_the_folders_on_disk():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    on_disk = {"edgec"}
    for part in PARTS:
        for path in sources(part):
            folder = path.parent.relative_to(ROOT)
            if folder != Path("tools/facade"):
                on_disk.add("edgec." + ".".join(folder.parts))
                assert (path.parent / "__init__.py").exists(), f"{folder} has no __init__.py"
    assert sorted(listed) == sorted(on_disk)


def test_no_file_is_too_long():
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split("\n")
    lengths = {
        name: len((ROOT / name).read_text().splitlines())
        for name in files
        if name.endswith((".py", ".c", ".h", ".js", ".ts")) and (ROOT / name).exists()
    }
    assert len(lengths) > 20
    for name, length in lengths.items():
        if SOFT_LINES < length <= HARD_LINES:
            warnings.warn(f"{name} has {length} lines, perhaps two ideas", stacklevel=1)
    assert {name: length for name, length in lengths.items() if length > HARD_LINES} == {}


def run_python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_runtime_loads_neither_compiler_nor_its_libraries():
    loaded = run_python("import sys, edgec.runtime\nfrom edgec.runtime import load\nprint(*sys.modules)").split()
    assert "edgec.runtime" in loaded
    heavy = {"tvm", "onnx", "torch", "ml_dtypes", "rich", "onnxruntime"}
    ours = {"edgec.graph", "edgec.compiler", "edgec.frontend", "edgec.backends"}
    assert {name.partition(".")[0] for name in loaded} & heavy == set()
    assert {".".join(name.split(".")[:2]) for name in loaded} & ours == set()


def test_the_facade_loads_nothing_until_asked():
    loaded = run_python("import sys, edgec\nprint(*sys.modules)").split()
    assert [name for name in loaded if name.startswith("edgec.")] == []


def test_the_torch_frontend_loads_torch_when_first_used():
    loaded = run_python("import sys, edgec.frontend.torch\nimport edgec.tools.api\nprint(*sys.modules)").split()
    assert "edgec.frontend.torch" in loaded and "torch" not in loaded


def test_parts_are_known_by_their_full_names_only():
    """`import graph` would be a second copy of edgec.graph, whose classes are not those of the first."""
    for part in PARTS:
        module = sys.modules.get(part)
        path = getattr(module, "__file__", None) or ""
        assert not path.startswith(str(ROOT)), f"{part} was imported as a top-level module from {path}"


def test_the_readme_has_the_import_table():
    text = (ROOT / "README.md").read_text()
    for part in PARTS:
        assert f"| `{part}/` |" in text


@pytest.mark.long
def test_the_wheel_works_in_a_clean_environment(tmp_path):
    """With numpy and click alone an artifact runs, and a command that needs more says what to install."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("edgec-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("edgec/runtime/_edgec") for name in names), "the runtime's library is missing"
    assert not [name for name in names if "/tests/" in name or name.startswith(("graph", "tools"))]
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True)
    subprocess.run([python, "-c", "from edgec.runtime import load"], check=True, cwd=tmp_path)
    command = tmp_path / "venv/bin/edgec"
    assert "edgec, version" in subprocess.run([command, "--version"], check=True, capture_output=True, text=True).stdout
    api.build(api.Request(small_cnn_onnx(), api.parse_targets("x86"), batch=1), tmp_path / "cnn.edge")
    np.savez(tmp_path / "in.npz", x=np.ones((1, 1, 28, 28), np.float32))
    subprocess.run([command, "run", "cnn.edge", "--input", "in.npz", "-o", "out.npz"], check=True, cwd=tmp_path)
    assert np.load(tmp_path / "out.npz")["logits"].shape == (1, 10)
    refused = subprocess.run([command, "targets"], capture_output=True, text=True)
    assert refused.returncode == 1 and "pip install 'edgec[compile]'" in refused.stderr
