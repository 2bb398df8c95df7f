"""What a pass is, and the one loop that runs passes: verify after each, dump, stop after a phase, name the culprit.

Passes of the early phases work on a `Module`, later ones on what the optimiser builds from it; a `Level` says how such
a subject is verified and printed. Facts make the order of the list checkable: a pass states what must hold before it
and what holds after it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar

from edgec.compiler.adapt import ImageInput, NewHead
from edgec.compiler.train import Train
from edgec.graph.errors import EdgecError, InternalError, UserError

Subject = TypeVar("Subject")


class Phase(enum.Enum):
    """Phases in order; the value is the name that `--stop-after` takes."""

    SPECIALISE = "specialise"
    QUANTIZE = "quantize"
    DIFFERENTIATE = "differentiate"
    SPARSIFY = "sparsify"
    OPTIMISE = "optimise"
    PLAN = "plan"
    LOWER = "lower"
    PACK = "pack"

    @property
    def number(self) -> int:
        return list(Phase).index(self)


class Fact(enum.Enum):
    """What holds from the pass that ensures it until one that breaks it."""

    CONSTANTS_FOLDED = "no node has constant operands only, but for large fills"
    CANONICAL = "no node is an identity"
    IMAGES_NORMALISED = "inputs that shall take images are u8[N,H,W,C]"
    HEAD_REPLACED = "where a new head is asked for, it is the only reader of what the old one read"
    CLASSES_MASKED = "where a new head is asked for, its scores from the scalar `classes` on are far below all others"
    TRAINABLE_MARKED = "`Value.trainable` is set on exactly the parameters that the update scheme trains"
    ORDERED_CHANNELS = "where the largest channels are to be trained, they are the first"
    SLICED = "a weight of which some channels are trained is the concatenation of a trained and a frozen parameter"
    ADAPTED = "where the update scheme asks for adapters, they stand beside their weights"
    FROZEN_NORMS_FOLDED = "no batch_norm node is left but those that training takes the statistics of the batch for"
    NO_BATCH_NORM = "no batch_norm node is left"
    LOSS = "where training is asked for, there are `train` and `eval` programs with a scalar output `loss`"
    DROPOUT_ACTIVE = "where training wants dropout, each in `train` has its generator"
    GRADIENTS = "each trainable parameter of `train` that the loss depends on has its gradient among the outputs"
    UPDATES = "each such gradient is consumed by an update; the outputs of `train` are the loss alone"
    STATISTICS_TAKEN = "no batch_norm_train node is left"
    DISTRIBUTED = "no gradient is computed of a channel that is not trained"
    NO_DEAD = "every node and leaf contributes to a result; inputs always stay"
    POSITIONS_KEPT = "no max pool is searched for its maxima behind the guard"
    SAVED_SHRUNK = "nothing is kept for the backward part that cheap ops can compute again from what is kept"
    SAVED_COMPRESSED = "what may be kept in a lossy form is, where that was asked for"
    CONSTANTS_SHARED = "a constant's name stands for the same data in every program"
    COMMITTED = "the node that makes a new parameter value can run behind the guard and all readers of the old one"
    FUSED = "every node belongs to exactly one group"
    ORDERED = "groups stand in execution order, updates after the guard"
    STORAGE = "every value has a storage"
    PARTS_PLACED = "slices and concatenations that can do without a copy share the memory of what they are part of"
    PAIRED = "in-place pairs are chosen"
    LOWERED = "every group has its kernel calls"
    PLANNED = "every buffer has an offset, and the checker has accepted them"
    LISTED = "the launches of every program stand in a list, and where its guard is"


@dataclass(frozen=True)
class Options:
    """What the user asked of one compilation, as far as passes read it. `skip` names optional passes to leave out.

    `images` says by name which inputs take u8 images. `memory_budget` is that of `infer` where nothing is trained.
    `originals`: whether the artifact carries what the model's state has and no program reads.
    """

    train: Train | None = None
    new_head: NewHead | None = None
    images: Mapping[str, ImageInput] = field(default_factory=dict)
    memory_budget: int | None = None
    originals: Literal["keep", "drop"] = "keep"
    skip: frozenset[str] = frozenset()

    @property
    def budget(self) -> int | None:
        """Bytes that a memory budget allows, if there is one."""
        return self.memory_budget if self.train is None else self.train.memory_budget


@dataclass(frozen=True)
class Pass(Generic[Subject]):
    """One step: `run` changes the subject in place and says whether it changed anything.

    `requires` must hold before it; after it `ensures` holds, and what `breaks` lists need not hold any more. `name` is
    that of the file and of its test: verb_object. `optional` marks what only makes programs better, and so has a
    switch.
    """

    name: str
    phase: Phase
    run: Callable[[Subject, Options], bool]
    requires: frozenset[Fact] = frozenset()
    ensures: frozenset[Fact] = frozenset()
    breaks: frozenset[Fact] = frozenset()
    optional: bool = False


@dataclass(frozen=True)
class Level(Generic[Subject]):
    """A kind of subject: `verify` raises where it is broken, given the facts so far; `text` prints it for dumps."""

    verify: Callable[[Subject, frozenset[Fact]], None]
    text: Callable[[Subject], str]


@dataclass
class Trace:
    """One run through the whole pipeline, over all levels: the numbering of dumps, and where to stop.

    `dump` is the folder for `007_name.ir` files, `observe` is told the name of each pass before it runs. `done` and
    `facts` are the passes so far and what they have ensured.
    """

    dump: Path | None = None
    stop_after: Phase | None = None
    observe: Callable[[str], None] | None = None
    done: list[str] = field(default_factory=list)
    facts: frozenset[Fact] = frozenset()

    def wants(self, phase: Phase) -> bool:
        return self.stop_after is None or phase.number <= self.stop_after.number

    def write(self, name: str, text: Callable[[], str]) -> None:
        """Dump under the number of passes done so far; `000_name.ir` before the first."""
        if self.dump is None:
            return
        path = self.dump / f"{len(self.done):03d}_{name}.ir"
        try:
            self.dump.mkdir(parents=True, exist_ok=True)
            path.write_text(text())
        except OSError as error:
            raise UserError("E0505", f"cannot write the dump: {error.strerror}", where=str(path)) from error


def check_order(passes: Sequence[Pass], given: frozenset[Fact] = frozenset()) -> frozenset[Fact]:
    """All facts that hold after `passes`; InternalError where one requires what none before it ensures."""
    facts, last = given, Phase.SPECIALISE
    for step in passes:
        if missing := step.requires - facts:
            raise InternalError(f"pass {step.name} requires {sorted(f.name for f in missing)}, which nothing ensures")
        if step.phase.number < last.number:
            raise InternalError(f"pass {step.name} of phase {step.phase.value} stands after phase {last.value}")
        facts, last = facts - step.breaks | step.ensures, step.phase
    return facts


def run_pipeline(
    passes: Sequence[Pass[Subject]], subject: Subject, options: Options, level: Level[Subject], trace: Trace
) -> bool:
    """Run `passes` on `subject`, in order; False when `trace.stop_after` ended the run before the end of the list.

    A UserError of a pass is the user's (no gradient, wrong specification); a type error (E0201) or a subject that does
    not verify is the pass's own fault, and becomes an InternalError that names it.
    """
    for step in passes:
        if not trace.wants(step.phase):
            return False
        if step.optional and step.name in options.skip:
            continue
        if trace.observe is not None:
            trace.observe(step.name)
        try:
            step.run(subject, options)
            trace.facts = trace.facts - step.breaks | step.ensures
        except UserError as error:
            if error.code != "E0201":
                raise
            raise InternalError(f"pass {step.name} built a node that does not type-check: {error}") from error
        try:
            level.verify(subject, trace.facts)
        except EdgecError as error:
            raise InternalError(f"pass {step.name} left a broken program: {error}") from error
        trace.done.append(step.name)
        trace.write(step.name, lambda: level.text(subject))
    return True
