"""The one literal list of passes, in the order in which they run: first on modules, then on each target's schedules."""

from __future__ import annotations

from edgec.compiler.passbase import Fact, Level, Options, Pass, Phase, Trace, run_pipeline
from edgec.compiler.passes.activate_dropout import activate_dropout
from edgec.compiler.passes.append_adapters import append_adapters
from edgec.compiler.passes.append_loss import append_loss
from edgec.compiler.passes.append_updates import append_updates
from edgec.compiler.passes.canonicalise import canonicalise
from edgec.compiler.passes.choose_storage import choose_storage
from edgec.compiler.passes.commit_updates import commit_updates
from edgec.compiler.passes.compress_saved import compress_saved
from edgec.compiler.passes.derive_gradients import derive_gradients
from edgec.compiler.passes.distribute_slices import distribute_slices
from edgec.compiler.passes.eliminate_dead import eliminate_dead
from edgec.compiler.passes.expand_batch_norm import expand_batch_norm
from edgec.compiler.passes.fold_batch_norm import fold_batch_norm
from edgec.compiler.passes.fold_constants import fold_constants
from edgec.compiler.passes.fuse_attention import fuse_attention
from edgec.compiler.passes.fuse_epilogue import fuse_epilogue
from edgec.compiler.passes.fuse_tails import fuse_tails
from edgec.compiler.passes.keep_positions import keep_positions
from edgec.compiler.passes.list_launches import list_launches
from edgec.compiler.passes.lower_groups import lower_groups
from edgec.compiler.passes.mark_trainable import mark_trainable
from edgec.compiler.passes.mask_classes import mask_classes
from edgec.compiler.passes.merge_launches import merge_launches
from edgec.compiler.passes.narrow_doubles import narrow_doubles
from edgec.compiler.passes.normalise_input import normalise_input
from edgec.compiler.passes.order_channels import order_channels
from edgec.compiler.passes.order_operators import order_operators
from edgec.compiler.passes.pair_in_place import pair_in_place
from edgec.compiler.passes.place_parts import place_parts
from edgec.compiler.passes.plan_memory import plan_memory
from edgec.compiler.passes.recompute_activations import recompute_activations
from edgec.compiler.passes.recompute_attention import recompute_attention
from edgec.compiler.passes.replace_head import replace_head
from edgec.compiler.passes.share_constants import share_constants
from edgec.compiler.passes.shrink_saved import shrink_saved
from edgec.compiler.passes.slice_parameters import slice_parameters
from edgec.compiler.passes.tile_chains import tile_chains
from edgec.compiler.passes.train_batch_norm import train_batch_norm
from edgec.compiler.schedule import TargetSchedules, print_schedule, verify_schedule
from edgec.graph import verify
from edgec.graph.ir import Module
from edgec.graph.text import print_module

MODULE_PASSES: tuple[Pass[Module], ...] = (
    Pass("fold_constants", Phase.SPECIALISE, fold_constants, ensures=frozenset({Fact.CONSTANTS_FOLDED})),
    Pass(
        "narrow_doubles",
        Phase.SPECIALISE,
        narrow_doubles,
        requires=frozenset({Fact.CONSTANTS_FOLDED}),
        optional=True,
    ),
    Pass("canonicalise", Phase.SPECIALISE, canonicalise, ensures=frozenset({Fact.CANONICAL})),
    Pass(
        "normalise_input",
        Phase.SPECIALISE,
        normalise_input,
        requires=frozenset({Fact.CANONICAL}),
        ensures=frozenset({Fact.IMAGES_NORMALISED}),
    ),
    Pass(
        "replace_head",
        Phase.SPECIALISE,
        replace_head,
        requires=frozenset({Fact.CANONICAL}),
        ensures=frozenset({Fact.HEAD_REPLACED}),
    ),
    Pass(
        "mask_classes",
        Phase.SPECIALISE,
        mask_classes,
        requires=frozenset({Fact.HEAD_REPLACED}),
        ensures=frozenset({Fact.CLASSES_MASKED}),
    ),
    Pass("mark_trainable", Phase.SPECIALISE, mark_trainable, ensures=frozenset({Fact.TRAINABLE_MARKED})),
    Pass(
        "order_channels",
        Phase.SPECIALISE,
        order_channels,
        requires=frozenset({Fact.TRAINABLE_MARKED}),
        ensures=frozenset({Fact.ORDERED_CHANNELS}),
    ),
    Pass(
        "slice_parameters",
        Phase.SPECIALISE,
        slice_parameters,
        requires=frozenset({Fact.TRAINABLE_MARKED, Fact.ORDERED_CHANNELS}),
        ensures=frozenset({Fact.SLICED}),
    ),
    Pass(
        "append_adapters",
        Phase.SPECIALISE,
        append_adapters,
        requires=frozenset({Fact.TRAINABLE_MARKED}),
        ensures=frozenset({Fact.ADAPTED}),
    ),
    Pass(
        "fold_batch_norm",
        Phase.SPECIALISE,
        fold_batch_norm,
        requires=frozenset({Fact.TRAINABLE_MARKED}),
        ensures=frozenset({Fact.FROZEN_NORMS_FOLDED}),
    ),
    Pass(
        "append_loss",
        Phase.DIFFERENTIATE,
        append_loss,
        requires=frozenset({Fact.FROZEN_NORMS_FOLDED}),
        ensures=frozenset({Fact.LOSS}),
    ),
    Pass(
        "train_batch_norm",
        Phase.DIFFERENTIATE,
        train_batch_norm,
        requires=frozenset({Fact.FROZEN_NORMS_FOLDED, Fact.LOSS}),
        ensures=frozenset({Fact.NO_BATCH_NORM}),
    ),
    Pass(
        "activate_dropout",
        Phase.DIFFERENTIATE,
        activate_dropout,
        requires=frozenset({Fact.LOSS}),
        ensures=frozenset({Fact.DROPOUT_ACTIVE}),
    ),
    Pass(
        "derive_gradients",
        Phase.DIFFERENTIATE,
        derive_gradients,
        requires=frozenset({Fact.LOSS, Fact.TRAINABLE_MARKED, Fact.NO_BATCH_NORM, Fact.DROPOUT_ACTIVE}),
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
    Pass(
        "expand_batch_norm",
        Phase.DIFFERENTIATE,
        expand_batch_norm,
        requires=frozenset({Fact.GRADIENTS}),
        ensures=frozenset({Fact.STATISTICS_TAKEN}),
        breaks=frozenset({Fact.CANONICAL, Fact.CONSTANTS_FOLDED}),
    ),
    Pass(
        "distribute_slices",
        Phase.SPARSIFY,
        distribute_slices,
        requires=frozenset({Fact.SLICED, Fact.UPDATES}),
        ensures=frozenset({Fact.DISTRIBUTED}),
    ),
    # Again, for the nodes that differentiation wrote.
    Pass("fold_constants", Phase.SPARSIFY, fold_constants, ensures=frozenset({Fact.CONSTANTS_FOLDED})),
    Pass("canonicalise", Phase.SPARSIFY, canonicalise, ensures=frozenset({Fact.CANONICAL})),
    Pass("eliminate_dead", Phase.SPARSIFY, eliminate_dead, ensures=frozenset({Fact.NO_DEAD})),
    Pass(
        "keep_positions",
        Phase.SPARSIFY,
        keep_positions,
        requires=frozenset({Fact.GRADIENTS, Fact.CANONICAL}),
        ensures=frozenset({Fact.POSITIONS_KEPT}),
        optional=True,
    ),
    Pass(
        "shrink_saved",
        Phase.SPARSIFY,
        shrink_saved,
        requires=frozenset({Fact.UPDATES, Fact.NO_DEAD}),
        ensures=frozenset({Fact.SAVED_SHRUNK}),
        optional=True,
    ),
    Pass(
        "compress_saved",
        Phase.SPARSIFY,
        compress_saved,
        requires=frozenset({Fact.UPDATES, Fact.NO_DEAD}),
        ensures=frozenset({Fact.SAVED_COMPRESSED}),
        optional=True,
    ),
    Pass("share_constants", Phase.SPARSIFY, share_constants, ensures=frozenset({Fact.CONSTANTS_SHARED})),
)

SCHEDULE_PASSES: tuple[Pass[TargetSchedules], ...] = (
    Pass("recompute_attention", Phase.OPTIMISE, recompute_attention, optional=True),
    Pass("recompute_activations", Phase.OPTIMISE, recompute_activations, optional=True),
    Pass("tile_chains", Phase.OPTIMISE, tile_chains, optional=True),
    Pass("commit_updates", Phase.OPTIMISE, commit_updates, ensures=frozenset({Fact.COMMITTED})),
    Pass("fuse_attention", Phase.OPTIMISE, fuse_attention, requires=frozenset({Fact.COMMITTED}), optional=True),
    Pass(
        "fuse_epilogue",
        Phase.OPTIMISE,
        fuse_epilogue,
        requires=frozenset({Fact.COMMITTED}),
        ensures=frozenset({Fact.FUSED}),
        optional=True,
    ),
    Pass("fuse_tails", Phase.OPTIMISE, fuse_tails, requires=frozenset({Fact.FUSED}), optional=True),
    Pass(
        "choose_storage",
        Phase.OPTIMISE,
        choose_storage,
        requires=frozenset({Fact.FUSED}),
        ensures=frozenset({Fact.STORAGE}),
    ),
    Pass(
        "place_parts",
        Phase.OPTIMISE,
        place_parts,
        requires=frozenset({Fact.STORAGE}),
        ensures=frozenset({Fact.PARTS_PLACED}),
        optional=True,
    ),
    Pass(
        "order_operators",
        Phase.OPTIMISE,
        order_operators,
        requires=frozenset({Fact.STORAGE}),
        ensures=frozenset({Fact.ORDERED}),
        optional=True,
    ),
    Pass(
        "pair_in_place",
        Phase.OPTIMISE,
        pair_in_place,
        requires=frozenset({Fact.STORAGE, Fact.ORDERED}),
        ensures=frozenset({Fact.PAIRED}),
        optional=True,
    ),
    Pass(
        "lower_groups",
        Phase.OPTIMISE,
        lower_groups,
        requires=frozenset({Fact.PAIRED}),
        ensures=frozenset({Fact.LOWERED}),
    ),
    Pass("plan_memory", Phase.PLAN, plan_memory, requires=frozenset({Fact.LOWERED}), ensures=frozenset({Fact.PLANNED})),
    Pass(
        "list_launches", Phase.PLAN, list_launches, requires=frozenset({Fact.PLANNED}), ensures=frozenset({Fact.LISTED})
    ),
    Pass("merge_launches", Phase.PLAN, merge_launches, requires=frozenset({Fact.LISTED}), optional=True),
)


def verify_module(module: Module, facts: frozenset[Fact]) -> None:
    """The verifier, told how far the module has come."""
    phase = verify.Phase.IMPORTED
    if Fact.NO_BATCH_NORM in facts:
        phase = verify.Phase.OPTIMISED if Fact.STATISTICS_TAKEN in facts else verify.Phase.DIFFERENTIATED
    verify.verify_module(module, phase)


def verify_schedules(subject: TargetSchedules, facts: frozenset[Fact]) -> None:
    for schedule in subject.programs.values():
        verify_schedule(schedule)


def print_schedules(subject: TargetSchedules) -> str:
    return "\n".join(print_schedule(schedule) for schedule in subject.programs.values())


MODULE_LEVEL: Level[Module] = Level(verify=verify_module, text=print_module)
SCHEDULE_LEVEL: Level[TargetSchedules] = Level(verify=verify_schedules, text=print_schedules)


def transform_module(module: Module, options: Options, trace: Trace | None = None) -> bool:
    """Take an imported module through specialise, differentiate and sparsify, in place.

    Adds `train` and `eval` where `options.train` asks for them. False where `trace` stopped the run before the end.
    """
    trace = trace or Trace()
    trace.write("import", lambda: print_module(module))
    return run_pipeline(MODULE_PASSES, module, options, MODULE_LEVEL, trace)
