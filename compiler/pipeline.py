"""The one literal list of passes, in the order in which they run."""

from __future__ import annotations

from edgec.compiler.passbase import Fact, Level, Options, Pass, Phase, Trace, run_pipeline
from edgec.compiler.passes.append_loss import append_loss
from edgec.compiler.passes.append_updates import append_updates
from edgec.compiler.passes.canonicalise import canonicalise
from edgec.compiler.passes.derive_gradients import derive_gradients
from edgec.compiler.passes.eliminate_dead import eliminate_dead
from edgec.compiler.passes.fold_batch_norm import fold_batch_norm
from edgec.compiler.passes.fold_constants import fold_constants
from edgec.compiler.passes.mark_trainable import mark_trainable
from edgec.graph import verify
from edgec.graph.ir import Module
from edgec.graph.text import print_module

MODULE_PASSES: tuple[Pass[Module], ...] = (
    Pass("fold_constants", Phase.SPECIALISE, fold_constants, ensures=frozenset({Fact.CONSTANTS_FOLDED})),
    Pass("canonicalise", Phase.SPECIALISE, canonicalise, ensures=frozenset({Fact.CANONICAL})),
    Pass("mark_trainable", Phase.SPECIALISE, mark_trainable, ensures=frozenset({Fact.TRAINABLE_MARKED})),
    Pass(
        "fold_batch_norm",
        Phase.SPECIALISE,
        fold_batch_norm,
        requires=frozenset({Fact.TRAINABLE_MARKED}),
        ensures=frozenset({Fact.NO_BATCH_NORM}),
    ),
    Pass(
        "append_loss",
        Phase.DIFFERENTIATE,
        append_loss,
        requires=frozenset({Fact.NO_BATCH_NORM}),
        ensures=frozenset({Fact.LOSS}),
    ),
    Pass(
        "derive_gradients",
        Phase.DIFFERENTIATE,
        derive_gradients,
        requires=frozenset({Fact.LOSS, Fact.TRAINABLE_MARKED}),
        ensures=frozenset({Fact.GRADIENTS}),
        breaks=frozenset({Fact.CANONICAL, Fact.CONSTANTS_FOLDED, Fact.NO_DEAD}),
    ),
    Pass(
        "append_updates",
        Phase.DIFFERENTIATE,
        append_updates,
        requires=frozenset({Fact.GRADIENTS}),
        ensures=frozenset({Fact.UPDATES}),
    ),
    # Again, for the nodes that differentiation wrote.
    Pass("fold_constants", Phase.SPARSIFY, fold_constants, ensures=frozenset({Fact.CONSTANTS_FOLDED})),
    Pass("canonicalise", Phase.SPARSIFY, canonicalise, ensures=frozenset({Fact.CANONICAL})),
    Pass("eliminate_dead", Phase.SPARSIFY, eliminate_dead, ensures=frozenset({Fact.NO_DEAD})),
)


def verify_module(module: Module, facts: frozenset[Fact]) -> None:
    """The verifier, told how far the module has come."""
    phase = verify.Phase.IMPORTED
    if Fact.NO_BATCH_NORM in facts:
        phase = verify.Phase.SPECIALISED
    if Fact.LOSS in facts:
        phase = verify.Phase.DIFFERENTIATED
    verify.verify_module(module, phase)


MODULE_LEVEL: Level[Module] = Level(verify=verify_module, text=print_module)


def transform_module(module: Module, options: Options, trace: Trace | None = None) -> bool:
    """Take an imported module through specialise, differentiate and sparsify, in place.

    Adds `train` and `eval` where `options.train` asks for them. False where `trace` stopped the run before the end.
    """
    trace = trace or Trace()
    trace.write("import", lambda: print_module(module))
    return run_pipeline(MODULE_PASSES, module, options, MODULE_LEVEL, trace)
