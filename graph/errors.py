"""The closed list of error codes, and the two kinds of failure: the user's and ours.

Every code stands here once with its summary; `UserError` refuses any other. The text form is

    error[E0103]: node `Conv_3` uses op `Foo`, which edgec cannot import
      --> model.onnx: node `Conv_3`
    hint: ...
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

MAX_LINE = 1000  # characters of a line of an error
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

# Hundreds digit: 1 import, 2 graph and shapes, 3 training, 4 target and toolchain, 5 artifact and files, 6 run time.
CODES = {
    "E0101": "the model is of no kind that can be read",
    "E0102": "the file is truncated or damaged",
    "E0103": "the model uses operators that cannot be imported",
    "E0104": "an input has a dynamic shape and no value was given for it",
    "E0105": "a shape or value was given for an input that does not exist, or contradicts the model",
    "E0106": "the model file cannot be read",
    "E0107": "the model is too large for one protobuf",
    "E0108": "the torch module cannot be exported",
    "E0109": "the example inputs do not fit the torch module",
    "E0110": "the tensors of the torch model are not on the CPU",
    "E0111": "the model cannot be adapted as asked: a new head, images as inputs",
    "E0201": "the graph does not type-check",
    "E0202": "the text form cannot be parsed",
    "E0301": "an operator on the way to the loss has no gradient",
    "E0302": "the training specification is wrong",
    "E0303": "the update scheme names nothing that can be trained",
    "E0401": "unknown target",
    "E0402": "a tool that the target needs is not installed",
    "E0403": "an operator has no lowering for the target",
    "E0404": "a kernel failed to compile",
    "E0405": "the target needs more memory than the budget",
    "E0406": "kernels of the target cannot be timed on this machine",
    "E0501": "the file is not an edgec artifact",
    "E0502": "the artifact is damaged",
    "E0503": "the artifact has a newer format than this runtime",
    "E0504": "the artifact was built for another machine",
    "E0505": "the file cannot be written",
    "E0506": "the checkpoint does not fit the artifact",
    "E0507": "the file cannot be read",
    "E0508": "the tuning database is damaged or of other kernels",
    "E0601": "unknown tensor name",
    "E0602": "a tensor has the wrong dtype",
    "E0603": "a tensor has the wrong shape",
    "E0604": "a label is out of range",
    "E0605": "the loss is not finite",
    "E0606": "the artifact has no such program",
    "E0607": "the data set does not fit the program",
    "E0608": "the device run failed",
    "E0609": "the system refused memory or threads",
    "E0610": "the tensor is frozen in this artifact",
    "E0611": "an output is not finite",
    "E0612": "the outputs differ from the reference",
    "E0613": "the gradients are not finite",
}


class EdgecError(Exception):
    """Base of both kinds, so that a caller can catch everything of ours."""


class UserError(EdgecError):
    """The user's input is at fault: a code, what is wrong, where, and what to do. Exit status 1.

    `nodes` is the list that the message has as lines, for programs: what is known of each, by name.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        nodes: Sequence[Mapping[str, str | int]] = (),
    ):
        if code not in CODES:
            raise InternalError(f"error code {code} is not in the list")
        super().__init__(message)
        self.code, self.message, self.where, self.hint, self.nodes = code, message, where, hint, tuple(nodes)

    def __str__(self) -> str:
        return self.render()

    def render(self) -> str:
        lines = [f"error[{self.code}]: {self.message}"]
        if self.where:
            lines.append(f"  --> {self.where}")
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(map(_shown, "\n".join(lines).split("\n")))


def _shown(line: str) -> str:
    """A line as a terminal may have it: names out of a file may hold anything, and be of any length."""
    line = _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", line)
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}... ({len(line) - MAX_LINE} more characters)"


class InternalError(EdgecError):
    """A bug of ours: never shown as the user's mistake. Exit status 70."""
