"""The state of a torch model, as `load_state_dict` takes it: all of it, whatever of it the program reads."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch.export import ExportedProgram

from edgec.frontend.torch.call import Known
from edgec.frontend.torch.context import to_numpy
from edgec.graph.ir import SourceTensor

_STATISTIC, _COUNTER = "running_mean", "num_batches_tracked"  # torch's names of a norm's buffers


def source_state(exported: ExportedProgram, stored: Iterable[Known]) -> dict[str, SourceTensor]:
    """Every tensor of state_dict by its name; `stored` are those that the program knows, tied ones once."""
    leaves = {tensor_key(known.tensor): known.name for known in stored}
    read = set(leaves.values())
    state = {}
    for name, tensor in exported.state_dict.items():
        if not isinstance(tensor, torch.Tensor) or tensor.is_sparse or tensor.is_quantized or tensor.is_meta:
            continue
        path, dot, last = name.rpartition(".")
        counts = last == _COUNTER and f"{path}{dot}{_STATISTIC}" in read
        state[name] = SourceTensor(_array(tensor), leaves.get(tensor_key(tensor), name), counts)
    return state


def tensor_key(tensor: torch.Tensor) -> object:
    """Equal for tensors that are the same elements of the same memory."""
    return (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()) if tensor.numel() else id(tensor)


def _array(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype is torch.bfloat16:
        return to_numpy(tensor)
    return tensor.detach().resolve_conj().resolve_neg().contiguous().numpy()
