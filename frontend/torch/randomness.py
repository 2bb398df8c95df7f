"""What a module draws at random in training, and an exported program has no trace of.

A module is exported in eval mode, where `torch.export` keeps dropouts of elements and nothing else of the kind: dropout
of channels, within attention or between layers of a recurrent net, and the dropping of whole branches are gone. A
forward in each mode shows which layers have such.
"""

from __future__ import annotations

import contextlib
import inspect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from edgec.frontend.torch.export import example_arguments, mode
from edgec.frontend.torch.program import quiet

_DROPOUT = inspect.signature(F.dropout)
_ATTENTION = inspect.signature(
    lambda query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False: None
)


def lost_randomness(module: torch.nn.Module, example_inputs: Sequence[object] | Mapping[str, object]) -> list[str]:
    """Layers that draw in training what their export does not, each with its class; none where forward fails."""
    args, kwargs = example_arguments(example_inputs, type(module).__name__)
    with torch.random.fork_rng(devices=[]), torch.no_grad(), quiet():
        kept, drawn = (_drawn(module, args, kwargs, training) for training in (False, True))
    layers = dict(module.named_modules())
    return [f"`{path or 'forward'}` ({type(layers[path]).__name__})" for path in drawn if drawn[path] > kept[path]]


def _drawn(module: torch.nn.Module, args: tuple, kwargs: dict, training: bool) -> Counter[str]:
    """How often each layer draws, or would outside eval mode: statistics of norms are left as they are."""
    state = {name: buffer.clone() for name, buffer in module.named_buffers()}
    watch = _Watch()
    # Whatever forward raises in training mode, such as a norm over one element, says nothing of an export in eval mode.
    with contextlib.suppress(Exception), mode(module, training), watch.paths(module), watch, _Draws(watch):
        torch.func.functional_call(module, state, args, kwargs)
    return watch.found


class _Watch(TorchFunctionMode):
    """Counts calls of dropout and attention; `inside` one of them, operators that draw are not counted again."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.inside = 0
        self._path = [""]

    def draw(self) -> None:
        self.found[self._path[-1]] += 1

    @contextlib.contextmanager
    def paths(self, module: torch.nn.Module) -> Iterator[None]:
        """Keeps track of the layer that is running."""

        def leave(*_: object) -> None:
            self._path.pop()

        handles = [part.register_forward_hook(leave) for part in module.modules()]
        for name, part in module.named_modules():
            handles.append(part.register_forward_pre_hook(lambda *_, name=name: self._path.append(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in (F.dropout, F.scaled_dot_product_attention):
            return func(*args, **kwargs)
        signature, rate = (_DROPOUT, "p") if func is F.dropout else (_ATTENTION, "dropout_p")
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        # A dropout counts in eval mode too: there it is exported, with its rate.
        if bound.arguments[rate] > 0:
            self.draw()
        self.inside += 1
        try:
            return func(*args, **kwargs)
        finally:
            self.inside -= 1


class _Draws(TorchDispatchMode):
    """Counts operators that draw."""

    def __init__(self, watch: _Watch):
        super().__init__()
        self._watch = watch

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # Kernels of attention may draw, and say so whether they do or not.
        may_draw = torch.Tag.nondeterministic_seeded in func.tags and "attention" not in func.name()
        if may_draw and not self._watch.inside:
            self._watch.draw()
        return func(*args, **(kwargs or {}))
