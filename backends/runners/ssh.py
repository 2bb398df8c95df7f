"""A machine behind ssh. Keys and known hosts are the user's business: nothing is ever asked for."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from edgec.backends.toolchain import Tool, execute, require
from edgec.graph.errors import UserError

SSH = Tool(("ssh",), ("openssh-client",))
_TRANSFER_TIMEOUT = 600.0
# No leading dash: it would be read as an option of ssh.
_ADDRESS = re.compile(r"ssh://(?P<host>(?:[\w.][\w.-]*@)?[\w.][\w.-]*|\[[0-9a-fA-F:]+\])(?::(?P<port>\d{1,5}))?/?")


@dataclass(frozen=True)
class SshShell:
    host: str  # user@host
    port: str | None = None

    @staticmethod
    def at(address: str) -> SshShell:
        """From `ssh://[user@]host[:port]`. UserError E0608."""
        match = _ADDRESS.fullmatch(address)
        if not match:
            raise UserError(
                "E0608", f"`{address}` is no address of a device", hint="ssh://user@host or ssh://host:2222"
            )
        return SshShell(match["host"], match["port"])

    @property
    def description(self) -> str:
        return f"ssh://{self.host}"

    def make_folder(self) -> str:
        return self.execute(["mktemp", "-d", "/tmp/edgec-XXXXXXXX"], timeout=60).strip()

    def send(self, path: Path, remote: str) -> None:
        self._ssh(f"cat > {shlex.quote(remote)}", timeout=_TRANSFER_TIMEOUT, stdin=path.read_bytes())

    def fetch(self, remote: str, path: Path) -> None:
        path.write_bytes(self._ssh(f"cat {shlex.quote(remote)}", timeout=_TRANSFER_TIMEOUT))

    def execute(self, words: list[str], *, timeout: float) -> str:
        return self._ssh(shlex.join(words), timeout=timeout).decode(errors="replace")

    def _ssh(self, command: str, *, timeout: float, stdin: bytes | None = None) -> bytes:
        """`command` is for the shell that ssh starts on the other side; words in it are quoted by the caller."""
        options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=15", *(["-p", self.port] if self.port else [])]
        program = require(SSH, "reach a device by ssh")
        return execute([program, *options, "--", self.host, command], timeout=timeout, stdin=stdin)
