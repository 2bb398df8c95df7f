import os
import subprocess
import sys

import pytest

from edgec.backends import runner_binary as binary_module
from edgec.backends.runners import choose, direct
from edgec.backends.runners.adb import AdbShell
from edgec.backends.runners.base import Invocation
from edgec.backends.runners.choose import choose_runner
from edgec.backends.runners.direct import DirectRunner, emulated_cpu
from edgec.backends.runners.remote import RemoteRunner
from edgec.backends.runners.ssh import SshShell
from edgec.backends.targets import find_target
from edgec.graph.errors import InternalError, UserError
from edgec.runtime.abi import Arch

# Stands in for `edgec-run`: says its words, and copies artifact and inputs to the outputs.
_FAKE_RUN = f"""#!{sys.executable}
import sys, pathlib
words = sys.argv[1:]
option = lambda name: pathlib.Path(words[words.index(name) + 1])
if option("--program").name == "broken":
    sys.exit("error[E0606]: the artifact has no such program")
if option("--program").name == "crash":
    sys.exit("Segmentation fault")
option("--outputs").write_bytes(pathlib.Path(words[0]).read_bytes() + option("--inputs").read_bytes())
if "--profile" in words:
    option("--profile").write_text("{{}}")
print(*words)
"""
# What the other end of ssh and adb do with a command: a shell runs it.
_FAKE_SSH = """#!/bin/sh
for last; do :; done
echo "$@" >> "$EDGEC_TEST_LOG"
exec sh -c "$last"
"""
_FAKE_ADB = """#!/bin/sh
echo "$@" >> "$EDGEC_TEST_LOG"
[ "$1" = -s ] && shift 2
verb=$1; shift
case $verb in
push|pull) exec cp "$1" "$2" ;;
shell) exec sh -c "$*" ;;
esac
"""


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def invocation(tmp_path):
    """Files whose names a careless shell would split or expand."""
    here = tmp_path / "with space $HOME"
    here.mkdir()
    (here / "m.edge").write_bytes(b"\x00artifact\n")
    (here / "in").write_bytes(b"inputs\xff")
    return Invocation(here / "m.edge", "infer", here / "in", here / "out", steps=3, profile=here / "p.json")


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Fake ssh and adb first on PATH; the words they were called with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script(folder / "ssh", _FAKE_SSH)
    script(folder / "adb", _FAKE_ADB)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("EDGEC_TEST_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def make_runner(kind, tmp_path, monkeypatch):
    fake = script(tmp_path / "fake-run", _FAKE_RUN)
    if kind == "local":
        return DirectRunner(fake)
    if kind == "ssh":
        return RemoteRunner(SshShell.at("ssh://me@board:2222"), fake)
    shell = AdbShell("SERIAL")
    # Android's folder does not exist here.
    monkeypatch.setattr(AdbShell, "make_folder", lambda self: SshShell.make_folder(self))
    return RemoteRunner(shell, fake)


@pytest.mark.parametrize("kind", ["local", "ssh", "adb"])
def test_files_go_there_and_come_back(kind, invocation, log, tmp_path, monkeypatch):
    said = make_runner(kind, tmp_path, monkeypatch).run(invocation, timeout=60)
    assert invocation.outputs.read_bytes() == b"\x00artifact\ninputs\xff"
    assert invocation.profile.read_text() == "{}"
    assert "--program infer" in said and "--steps 3 --threads 1" in said


@pytest.mark.parametrize("kind", ["local", "ssh", "adb"])
def test_a_failed_run_has_the_devices_code_or_its_words(kind, invocation, log, tmp_path, monkeypatch):
    runner = make_runner(kind, tmp_path, monkeypatch)
    broken = Invocation(invocation.artifact, "broken", invocation.inputs, invocation.outputs)
    with pytest.raises(UserError) as caught:
        runner.run(broken, timeout=60)
    assert (caught.value.code, caught.value.message) == ("E0606", "the artifact has no such program")
    assert caught.value.where == runner.description
    crash = Invocation(invocation.artifact, "crash", invocation.inputs, invocation.outputs)
    with pytest.raises(UserError) as caught:
        runner.run(crash, timeout=60)
    assert caught.value.code == "E0608" and "Segmentation fault" in caught.value.hint
    assert not broken.outputs.exists()


@pytest.mark.parametrize("kind", ["ssh", "adb"])
def test_nothing_stays_on_the_device(kind, invocation, log, tmp_path, monkeypatch):
    runner = make_runner(kind, tmp_path, monkeypatch)
    runner.run(invocation, timeout=60)
    with pytest.raises(UserError):
        runner.run(Invocation(invocation.artifact, "broken", invocation.inputs, invocation.outputs), timeout=60)
    folders = {word for line in log.read_text().splitlines() for word in line.split() if word.startswith("/tmp/edgec-")}
    assert len(folders) >= 2
    assert not [folder for folder in folders if os.path.exists(folder)]


def test_ssh_never_asks_and_uses_the_port(invocation, log, tmp_path, monkeypatch):
    make_runner("ssh", tmp_path, monkeypatch).run(invocation, timeout=60)
    assert all(
        line.startswith("-o BatchMode=yes -o ConnectTimeout=15 -p 2222 -- me@board ")
        for line in log.read_text().splitlines()
    )


def test_an_unreachable_device_is_e0608(invocation, log, tmp_path):
    script(tmp_path / "bin/ssh", "#!/bin/sh\necho 'no route to host' >&2\nexit 255\n")
    with pytest.raises(UserError, match="status 255 on ssh://board") as caught:
        RemoteRunner(SshShell.at("ssh://board"), tmp_path / "none").run(invocation, timeout=60)
    assert caught.value.hint == "no route to host"


@pytest.mark.parametrize("address", ["ssh://", "ssh://-oProxyCommand=x", "ssh://a b", "ssh://host:port", "ssh://a;b"])
def test_a_bad_address_is_refused_before_anything_runs(address, log):
    with pytest.raises(UserError) as caught:
        SshShell.at(address)
    assert caught.value.code == "E0608" and not log.exists()


def test_addresses():
    assert SshShell.at("ssh://board") == SshShell("board")
    assert SshShell.at("ssh://pi@10.0.0.7:22") == SshShell("pi@10.0.0.7", "22")
    assert SshShell.at("ssh://[fe80::1]:22") == SshShell("[fe80::1]", "22")


def test_devices_by_name(monkeypatch):
    monkeypatch.setattr(choose, "runner_binary", lambda arch: arch)
    target = find_target("rpi4")
    assert choose_runner("ssh://board", target) == RemoteRunner(SshShell("board"), Arch.AARCH64)
    monkeypatch.setattr(choose, "device_runner_binary", lambda arch: ("opens drivers", arch))
    board = choose_runner("ssh://board", find_target("jetson"))
    assert board == RemoteRunner(SshShell("board"), ("opens drivers", Arch.AARCH64))
    assert choose_runner("adb", target).shell == AdbShell(None)
    assert choose_runner("adb:123", target).shell == AdbShell("123")
    with pytest.raises(UserError, match="unknown device"):
        choose_runner("telnet://board", target)


# -- emulation --


def test_the_emulated_cpu_has_the_targets_features_and_is_the_nearest():
    new = ["cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n1", "max"]
    old = ["cortex-a53", "cortex-a57", "cortex-a72", "max"]
    assert emulated_cpu(find_target("rpi4"), new) == "cortex-a72"
    assert emulated_cpu(find_target("rpi5"), new) == "cortex-a76"
    assert emulated_cpu(find_target("rpi5"), old) == "max"
    assert emulated_cpu(find_target("arm-cpu"), new) == "cortex-a53"
    assert emulated_cpu(find_target("arm-cpu:cortex-a55"), new) == "cortex-a76"
    assert emulated_cpu(find_target("arm-cpu:cortex-a710"), new) == "max"


# Copies the inputs to the outputs after executing an instruction of Armv8.2, if this is built with it.
_C_RUN = """
#include <stdio.h>
#include <string.h>
int main(int argc, char **argv) {
    const char *in = 0, *out = 0;
    for (int i = 1; i + 1 < argc; i++) {
        if (!strcmp(argv[i], "--inputs")) in = argv[i + 1];
        if (!strcmp(argv[i], "--outputs")) out = argv[i + 1];
    }
#ifdef DOTPROD
    __asm__ volatile(".arch armv8.2-a+dotprod\\nudot v0.4s, v1.16b, v2.16b" ::: "v0");
#endif
    FILE *from = fopen(in, "rb"), *to = fopen(out, "wb");
    for (int c; (c = getc(from)) != EOF;) putc(c, to);
    return fclose(to);
}
"""


def arm_program(tmp_path, *flags):
    (tmp_path / "run.c").write_text(_C_RUN)
    command = ["aarch64-linux-gnu-gcc", "-O1", "-static", *flags, "-o", "run", "run.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    return tmp_path / "run"


def test_qemu_runs_the_binary_and_sees_an_instruction_the_target_lacks(invocation, tmp_path, monkeypatch):
    monkeypatch.setattr(direct, "runner_binary", lambda arch: arm_program(tmp_path))
    choose_runner("qemu", find_target("rpi4")).run(invocation_without_profile(invocation), timeout=60)
    assert invocation.outputs.read_bytes() == b"inputs\xff"
    monkeypatch.setattr(direct, "runner_binary", lambda arch: arm_program(tmp_path, "-DDOTPROD"))
    choose_runner("qemu", find_target("rpi5")).run(invocation_without_profile(invocation), timeout=60)
    runner = choose_runner("qemu", find_target("rpi4"))
    assert runner.description == "qemu-aarch64-static -cpu cortex-a72"
    with pytest.raises(UserError) as caught:
        runner.run(invocation_without_profile(invocation), timeout=60)
    assert caught.value.code == "E0608" and "-4" in caught.value.message  # SIGILL


def invocation_without_profile(full):
    return Invocation(full.artifact, full.program, full.inputs, full.outputs)


def test_qemu_is_for_aarch64():
    with pytest.raises(UserError) as caught:
        choose_runner("qemu", find_target("cortex-m7"))
    assert caught.value.code == "E0608"


# -- building edgec-run --


@pytest.fixture
def sources(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "csrc"
    folder.mkdir()
    (folder / "edgec_run.c").write_text('#include "n.h"\nint main(void) { return number(); }\n')
    (folder / "n.c").write_text('#include "n.h"\nint number(void) { return NUMBER; }\n')
    (folder / "n.h").write_text("#define NUMBER 7\nint number(void);\n")
    monkeypatch.setattr(binary_module, "csrc_folder", lambda: folder)
    return folder


def test_the_binary_is_static_and_built_once_per_source(sources):
    first = binary_module.runner_binary(Arch.X86_64)
    assert subprocess.run([first]).returncode == 7
    made = first.stat().st_mtime_ns
    assert binary_module.runner_binary(Arch.X86_64) == first and first.stat().st_mtime_ns == made
    (sources / "n.h").write_text("#define NUMBER 8\nint number(void);\n")
    second = binary_module.runner_binary(Arch.X86_64)
    assert second != first and subprocess.run([second]).returncode == 8


def test_the_binary_for_aarch64_runs_under_qemu(sources):
    binary = binary_module.runner_binary(Arch.AARCH64)
    assert subprocess.run(["qemu-aarch64-static", binary]).returncode == 7
    interpreter = subprocess.run(["readelf", "-lW", binary], capture_output=True, text=True).stdout
    assert "INTERP" not in interpreter


def test_broken_sources_are_our_bug_with_the_compilers_words(sources):
    (sources / "n.c").write_text("int number(void) { return nonsense; }\n")
    with pytest.raises(InternalError, match="nonsense"):
        binary_module.runner_binary(Arch.X86_64)
