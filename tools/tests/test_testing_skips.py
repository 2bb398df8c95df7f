import os
import subprocess
import sys

import pytest

_CASES = """
import pytest
def test_passes(): pass
def test_package(): pytest.skip("no such package")
def test_board(): pytest.skip("hardware: no board")
@pytest.mark.skipif(True, reason="not today")
def test_marked(): pass
@pytest.mark.xfail
def test_known(): assert False
"""


@pytest.mark.parametrize(
    ("ci", "summary"),
    [("true", "1 failed, 1 passed, 1 skipped, 1 xfailed, 1 error"), ("", "1 passed, 3 skipped, 1 xfailed")],
)
def test_under_ci_only_missing_hardware_skips(ci, summary, tmp_path):
    (tmp_path / "test_cases.py").write_text(_CASES)
    assert summary in run_pytest(tmp_path, ci)


def test_under_ci_a_module_that_skips_itself_fails(tmp_path):
    (tmp_path / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    assert "1 error" in run_pytest(tmp_path, "true")
    assert "1 skipped" in run_pytest(tmp_path, "")


def test_gpu_suites_are_collected_only_with_a_gpu(tmp_path):
    (tmp_path / "test_gpu_x.py").write_text("def test_x(): pass\n")
    expected = "1 passed" if os.path.exists("/dev/nvidiactl") else "no tests ran"
    assert expected in run_pytest(tmp_path, "true")


def run_pytest(folder, ci: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "edgec.tools.testing.skips", "-p", "no:cacheprovider", "-q", "."]
    return subprocess.run(command, cwd=folder, env={**os.environ, "CI": ci}, capture_output=True, text=True).stdout
