"""What a search has found out, kept while it runs: a search that was ended goes on from there.

One line of JSON for each result, by name. A journal belongs to one model, data set and training specification, whose
hash is its file's name; the budget is not among them, so that a search for another budget measures nothing again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgec.graph.errors import UserError


class Journal:
    """Results by name. UserError E0505 where the file cannot be written, E0507 where it cannot be read."""

    def __init__(self, path: Path):
        self._path = path
        self._known: dict[str, Any] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise UserError("E0507", f"cannot read the journal: {error.strerror}", where=str(path)) from error
        self._torn = bool(text) and not text.endswith(
            b"\n"
        )  # a write that was cut off; what follows needs its own line
        for line in text.splitlines():
            try:
                record = json.loads(line)
                self._known[record["name"]] = record["result"]
            except (ValueError, KeyError, TypeError):
                continue  # torn or damaged: it is found out again

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def recall(self, name: str, find_out: Callable[[], Any]) -> Any:
        """The result called `name`, found out and kept unless it is known. It is what JSON can hold."""
        if name not in self._known:
            result = find_out()
            self._append(json.dumps({"name": name, "result": result}))
            self._known[name] = result
        return self._known[name]

    def _append(self, line: str) -> None:
        try:
            with self._path.open("ab") as file:
                file.write((("\n" if self._torn else "") + line + "\n").encode())
                file.flush()
                os.fsync(file.fileno())
            self._torn = False
        except OSError as error:
            self._torn = True
            hint = "make room, or let EDGEC_CACHE name a folder that has some"
            raise UserError(
                "E0505", f"cannot write the journal: {error.strerror}", where=str(self._path), hint=hint
            ) from error
