import sys

import pytest

from edgec.backends import toolchain
from edgec.backends.targets import find_target
from edgec.backends.toolchain import Tool, all_statuses, execute, require, target_status
from edgec.graph.errors import InternalError, UserError


def test_status_names_what_is_missing_and_the_command(monkeypatch):
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: None)
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    status = target_status(find_target("rpi4"))
    assert status.missing == ("aarch64-linux-gnu-ld", "apache-tvm")
    assert status.install.startswith("apt-get install binutils-aarch64-linux-gnu && pip install apache-tvm==")
    assert status.runs_on == "a device only" and "qemu-user-static" in status.notes[0]
    # C sources are written without a C compiler; it is needed to try them.
    status = target_status(find_target("cortex-m7"))
    assert status.missing == ("apache-tvm",) and "gcc-arm-none-eabi" in status.notes[0]


def test_status_of_a_complete_installation(monkeypatch):
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(toolchain.nvrtc, "installed", lambda: True)
    monkeypatch.setattr(toolchain, "_loads", lambda library: True)
    for status in all_statuses():
        assert status.missing == () and status.install == "" and status.notes == ()
    assert target_status(find_target("x86")).runs_on == "this machine"
    assert target_status(find_target("rpi4")).runs_on == "qemu-aarch64-static"


def test_status_of_targets_for_gpus(monkeypatch):
    monkeypatch.setattr(toolchain.nvrtc, "installed", lambda: False)
    monkeypatch.setattr(toolchain, "_loads", lambda library: False)
    status = target_status(find_target("jetson"))
    assert status.missing == ("NVRTC",) and "nvidia-cuda-nvrtc-cu12" in status.install
    assert status.runs_on == "a device only" and "driver" in status.notes[0]
    assert "pocl-opencl-icd" in target_status(find_target("mobile-gpu")).notes[0]


def test_a_tool_is_found_under_any_of_its_names(monkeypatch):
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: "/opt/b" if name == "b" else None)
    assert require(Tool(("a", "b"), ("p",)), "test").name == "b"
    with pytest.raises(UserError) as caught:
        require(Tool(("a", "c"), ("p", "q")), "test")
    assert caught.value.code == "E0402" and caught.value.hint == "apt-get install p q"


def test_execute_passes_words_unchanged_and_reports_failures(tmp_path):
    program = [sys.executable, "-c"]
    assert execute([*program, "import sys; print(sys.argv[1])", "$HOME; *"], timeout=30) == b"$HOME; *\n"
    assert execute([*program, "import sys; print(sys.stdin.read())"], timeout=30, stdin=b"x") == b"x\n"
    with pytest.raises(InternalError, match="status 3:\nbad luck"):
        execute([*program, "import sys; print('bad luck', file=sys.stderr); sys.exit(3)"], timeout=30)
    with pytest.raises(InternalError, match="within 0.2 s"):
        execute([*program, "import time; time.sleep(60)"], timeout=0.2)
