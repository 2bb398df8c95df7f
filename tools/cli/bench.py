"""`edgec bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgec.tools.cli.console import echo, located, show_json, show_table
from edgec.tools.cli.options import ARTIFACT, JSON, THREADS


class PeersType(click.ParamType):
    """`onnxruntime,torch`."""

    name = "PEER[,PEER...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        from edgec.tools.bench.peers import PEERS  # noqa: PLC0415

        names = tuple(dict.fromkeys(word.strip() for word in value.split(",") if word.strip()))
        if not names or not set(names) <= PEERS.keys():
            self.fail(f"{value!r}: peers are {', '.join(PEERS)}", param, ctx)
        return names


@click.command("bench")
@ARTIFACT
@click.option("--program", type=click.Choice(["infer", "train"]), default="infer", show_default=True)
@click.option("--compare", "peers", type=PeersType(), default=None, help="Engines to run the model beside it.")
@click.option("--model", type=click.Path(path_type=Path), help="The model given to compile; default: beside ARTIFACT.")
@click.option("--rounds", type=click.IntRange(min=2), default=10, show_default=True, help="Turns of each contender.")
@THREADS
@JSON
def command(
    artifact: Path,
    program: str,
    peers: tuple[str, ...] | None,
    model: Path | None,
    rounds: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Time a run of ARTIFACT, in a process of its own, taking turns with other engines on as many cores.

    Of a peer with several configurations (torch: eager, channels last, compiled) the fastest counts. A ratio is our
    time by the peer's: below 1 the artifact is faster.

    Example: edgec bench model.edge --program train --threads 2 --compare torch
    """
    from edgec.tools.bench.peers import bench  # noqa: PLC0415  after the options were checked
    from edgec.tools.cli.export import find_source  # noqa: PLC0415  loads onnx
    from edgec.tools.profile import default_threads  # noqa: PLC0415

    with located(artifact):
        source = find_source(artifact, model) if peers else None
        result = bench(artifact, program, threads or default_threads(), peers or (), source, rounds)
    if as_json:
        show_json(result.to_json())
        return
    rows = [("edgec", f"{result.median_ms:.3f}", f"{result.spread_ms:.3f}", "")]
    rows += [
        (f"{name} {peer.mode}".rstrip(), f"{peer.median_ms:.3f}", f"{peer.spread_ms:.3f}", f"{peer.ratio:.2f}")
        for name, peer in result.peers.items()
    ]
    count = f"{result.threads} thread{'s' * (result.threads > 1)}"
    show_table((f"{program}, {count}", "median ms", "spread", "ours / theirs"), rows)
    for name, reason in result.left_out.items():
        echo(f"{name} was not measured: {reason}", err=True)
