"""Failures of the runtime: what a device raises, where `edgec.graph.errors` does not exist.

The codes are those of `edgec.graph.errors.CODES`, and `render` shows them alike, so that a program which catches both
kinds can treat them as one.
"""

from __future__ import annotations


class RuntimeFailure(Exception):
    """Something that the user can mend: a code, what is wrong, where, and what to do."""

    def __init__(self, code: str, message: str, *, where: str | None = None, hint: str | None = None):
        super().__init__(message)
        self.code, self.message, self.where, self.hint = code, message, where, hint

    def __str__(self) -> str:
        return self.render()

    def render(self) -> str:
        lines = [f"error[{self.code}]: {self.message}"]
        if self.where:
            lines.append(f"  --> {self.where}")
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)
