"""An Android device behind adb, in the folder that its shell user may execute from."""

from __future__ import annotations

import secrets
import shlex
from dataclasses import dataclass
from pathlib import Path

from edgec.backends.toolchain import Tool, execute, require

ADB = Tool(("adb",), ("adb",))
_TRANSFER_TIMEOUT = 600.0


@dataclass(frozen=True)
class AdbShell:
    serial: str | None = None  # of `adb devices`; None: the only one

    @property
    def description(self) -> str:
        return f"adb:{self.serial}" if self.serial else "adb"

    def make_folder(self) -> str:
        folder = f"/data/local/tmp/edgec-{secrets.token_hex(8)}"
        self.execute(["mkdir", folder], timeout=60)
        return folder

    def send(self, path: Path, remote: str) -> None:
        self._adb("push", str(path), remote, timeout=_TRANSFER_TIMEOUT)

    def fetch(self, remote: str, path: Path) -> None:
        self._adb("pull", remote, str(path), timeout=_TRANSFER_TIMEOUT)

    def execute(self, words: list[str], *, timeout: float) -> str:
        # adb hands its words to the device's shell joined by spaces.
        return self._adb("shell", shlex.join(words), timeout=timeout).decode(errors="replace")

    def _adb(self, *words: str, timeout: float) -> bytes:
        chosen = ["-s", self.serial] if self.serial else []
        return execute([require(ADB, "reach an Android device"), *chosen, *words], timeout=timeout)
