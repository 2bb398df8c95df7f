import json
import subprocess
import sys

import click
import pytest

from edgec.backends import toolchain
from edgec.graph.errors import InternalError, UserError
from edgec.tools.cli import console, main
from edgec.tools.cli.main import COMMANDS


@pytest.fixture
def edgec(capsys):
    """Runs the command line in this process: exit status, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(list(words))
        return caught.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def failing(monkeypatch):
    """Makes `edgec targets` raise."""

    def arrange(error: BaseException) -> None:
        @click.command()
        def command() -> None:
            raise error

        monkeypatch.setattr("edgec.tools.cli.targets.command", command)

    return arrange


def test_every_command_has_help_with_an_example(edgec):
    for name in COMMANDS:
        status, out, _ = edgec(name, "--help")
        assert status == 0 and f"Example: edgec {name}" in out


def test_wrong_usage_is_2(edgec):
    assert edgec("no-such-command")[0] == 2
    assert edgec("targets", "--no-such-option")[0] == 2
    status, out, err = edgec("targets", "extra")
    assert status == 2 and out == "" and "edgec targets" in err


def test_version(edgec):
    assert edgec("--version") == (0, "edgec, version 0.1.0\n", "")


def test_a_users_error_is_1_with_code_and_hint_on_stderr(edgec, failing):
    failing(UserError("E0401", "unknown target `x`", where="here", hint="try y"))
    assert edgec("targets") == (1, "", "error[E0401]: unknown target `x`\n  --> here\nhint: try y\n")


@pytest.mark.parametrize("error", [InternalError("impossible"), ZeroDivisionError("impossible")])
def test_a_bug_is_70_with_a_report(edgec, failing, error):
    failing(error)
    status, out, err = edgec("targets")
    assert status == 70 and out == ""
    assert "internal error" in err and "command: edgec targets" in err and "impossible" in err and "Traceback" in err


def test_an_interrupt_is_130(edgec, failing):
    failing(KeyboardInterrupt())
    assert edgec("targets")[0] == 130


def test_a_missing_package_of_the_compiler_is_the_users_to_install(edgec, failing):
    failing(ModuleNotFoundError("No module named 'onnx'", name="onnx"))
    status, _, err = edgec("targets")
    assert status == 1 and "error[E0402]" in err and "pip install 'edgec[compile]'" in err
    failing(ModuleNotFoundError("No module named 'edgec.typo'", name="edgec.typo"))
    assert edgec("targets")[0] == 70


def test_colour_is_for_terminals_without_no_color(monkeypatch):
    class Terminal:
        def __init__(self):
            self.text = ""

        def isatty(self):
            return True

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    shown = {}
    for no_color in ("", "1"):
        monkeypatch.setenv("NO_COLOR", no_color)
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        console.show_error(UserError("E0401", "unknown"))
        shown[no_color] = "\x1b[" in terminal.text
    assert shown == {"": True, "1": False}


def test_targets_lists_names_and_install_commands(edgec, monkeypatch):
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: None)
    status, out, _ = edgec("targets", "--json")
    targets = {target["name"]: target for target in json.loads(out)["targets"]}
    assert status == 0 and {"x86", "x86-64-v3", "rpi4", "rpi5", "pixel", "cortex-m7"} <= set(targets)
    assert targets["rpi5"]["features"] == ["dotprod", "fp16"] and targets["rpi5"]["arch"] == "aarch64"
    assert not targets["rpi5"]["ready"] and "apt-get install binutils-aarch64-linux-gnu" in targets["rpi5"]["install"]
    _, table, _ = edgec("targets")
    assert "missing aarch64-linux-gnu-ld: apt-get install binutils-aarch64-linux-gnu" in table
    assert "to run it here: apt-get install gcc-arm-none-eabi" in table


def test_doctor_is_healthy_here_and_not_without_a_linker(edgec, monkeypatch):
    status, out, _ = edgec("doctor", "--json")
    assert status == 0 and json.loads(out)["healthy"]
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: None)
    status, out, _ = edgec("doctor")
    assert status == 1 and "apt-get install binutils" in out


def test_a_reader_that_leaves_early_is_no_error():
    command = f"{sys.executable} -c 'from edgec.tools.cli import main; main()' targets --json"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command} | true"], capture_output=True, text=True)
    assert done.stderr == ""


def test_light_commands_load_nothing_heavy():
    program = (
        "import sys\nfrom edgec.tools.cli import main\n"
        "try: main(['targets'])\n"
        "except SystemExit: pass\n"
        "heavy = {'tvm', 'onnx', 'torch', 'onnxruntime', 'rich'} & {name.partition('.')[0] for name in sys.modules}\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_bytes_read_well():
    texts = {0: "0 B", 1023: "1023 B", 1536: "1.5 KB", 3 << 20: "3.0 MB", 5 << 40: "5120.0 GB"}
    assert {count: console.format_bytes(count) for count in texts} == texts
