"""README.md tells the truth: its commands exist, and its quick start works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgec.tools.cli.main import COMMANDS

README = Path(__file__).resolve().parents[2] / "README.md"


def quick_start() -> str:
    return re.search(r"```sh\n(make setup.*?)```", README.read_text(), re.DOTALL)[1]


def test_every_command_is_in_the_table():
    table = README.read_text().partition("## Commands")[2].partition("\n## ")[0]
    listed = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert listed == set(COMMANDS)


def test_the_quick_start_uses_commands_that_exist():
    used = re.findall(r"^edgec (\w+)", quick_start(), re.MULTILINE)
    assert len(used) >= 6 and set(used) <= set(COMMANDS)


@pytest.mark.long
def test_the_quick_start_works(tmp_path):
    """Word for word, but in this environment and with a few steps of training."""
    script = (
        quick_start()
        .replace("make setup\n. .venv/bin/activate\n", "")
        .replace("--epochs 2", "--epochs 2 --max-steps 4")
    )
    assert "make" not in script and "--max-steps" in script
    path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {"PATH": path, "HOME": str(tmp_path)}
    words = ["bash", "-eu", "-c", script]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "tuned.onnx").stat().st_size > 100_000 and "cortex-a72" in done.stderr
