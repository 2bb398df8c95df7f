"""edgec on a device: `load` an artifact, run it, train it. Needs numpy and nothing else."""

from edgec.runtime.binding import CallProfile, Checkpoint, Model, Session, Signature, TensorInfo, load
from edgec.runtime.errors import RuntimeFailure

__all__ = [
    "CallProfile",
    "Checkpoint",
    "Model",
    "RuntimeFailure",
    "Session",
    "Signature",
    "TensorInfo",
    "load",
]
