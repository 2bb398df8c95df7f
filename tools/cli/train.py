"""`edgec train`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from edgec.runtime import load
from edgec.runtime.fit import Evaluation, Fit, Progress, fit
from edgec.runtime.schedule import Constant, Cosine, Schedule, WarmUp
from edgec.tools.cli.arrays import read_arrays
from edgec.tools.cli.console import echo, show_json
from edgec.tools.cli.options import ARTIFACT, JSON, THREADS

_SHOWN_EVERY = 0.02  # of all steps: how often the line of progress changes


@click.command("train")
@ARTIFACT
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Arrays by input name, and labels (.npz).")
@click.option("--eval-data", type=click.Path(path_type=Path), help="The same, to evaluate on after every epoch.")
@click.option("--epochs", required=True, type=click.IntRange(min=1))
@click.option("--lr", required=True, type=click.FloatRange(min=0), help="The learning rate.")
@click.option("--schedule", type=click.Choice(["constant", "cosine"]), default="constant", show_default=True)
@click.option("--warm-up", type=click.IntRange(min=0), default=0, help="Steps with a rising rate first.")
@click.option("--seed", default=0, show_default=True, help="Of the order of samples.")
@click.option("--checkpoint", type=click.Path(dir_okay=False, path_type=Path), help="Save here after every epoch.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint, if there is one.")
@THREADS
@JSON
def command(
    artifact: Path,
    data: Path,
    eval_data: Path | None,
    epochs: int,
    lr: float,
    schedule: str,
    warm_up: int,
    seed: int,
    checkpoint: Path | None,
    resume: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Train ARTIFACT, which was compiled with --train, on data.

    Example: edgec train model.edge --data train.npz --epochs 3 --lr 0.01 --schedule cosine --checkpoint tuned.edgeckpt
    """
    if resume and checkpoint is None:
        raise click.UsageError("--resume goes on from a checkpoint: add --checkpoint")
    arrays, eval_arrays = read_arrays(data), read_arrays(eval_data) if eval_data else None
    with load(artifact, threads) as model:
        done = fit(
            model,
            arrays,
            epochs=epochs,
            schedule=_schedule(schedule, lr, warm_up),
            eval_data=eval_arrays,
            seed=seed,
            checkpoint=checkpoint,
            resume=resume,
            on_progress=_show_progress if sys.stderr.isatty() else None,
            on_evaluation=_show_evaluation,
        )
    if as_json:
        show_json(_record(done))
    elif done.losses:
        echo(f"{len(done.losses)} steps; loss {done.losses[0]:.4f} at the first, {done.losses[-1]:.4f} at the last")
    else:
        echo("nothing to do: the checkpoint is at the last step already")


def _schedule(name: str, lr: float, warm_up: int) -> Schedule:
    chosen = {"constant": Constant, "cosine": Cosine}[name](lr)
    return WarmUp(warm_up, chosen) if warm_up else chosen


def _show_progress(progress: Progress) -> None:
    last = progress.step == progress.steps
    if last or progress.step % max(1, round(progress.steps * _SHOWN_EVERY)) == 0:
        line = f"epoch {progress.epoch + 1}, step {progress.step}/{progress.steps}, loss {progress.loss:.4f}"
        click.echo(f"\r\033[K{line}, {progress.seconds_left:.0f} s left", err=True, nl=last)


def _show_evaluation(epoch: int, evaluation: Evaluation) -> None:
    figures = f"loss {evaluation.loss:.4f}, accuracy {evaluation.accuracy:.2%} of {evaluation.samples}"
    echo(f"after epoch {epoch + 1}: {figures}", err=True)


def _record(done: Fit) -> dict:
    return {
        "first_step": done.first_step,
        "losses": list(done.losses),
        "evaluations": [dataclasses.asdict(evaluation) for evaluation in done.evaluations],
    }
