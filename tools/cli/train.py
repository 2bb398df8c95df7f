"""`edgec train`."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import click

from edgec.runtime import load
from edgec.runtime.fit import Evaluation, Fit, fit
from edgec.runtime.schedule import Constant, Cosine, Schedule, Step, WarmUp
from edgec.tools.cli.arrays import read_arrays
from edgec.tools.cli.console import echo, located, show_json
from edgec.tools.cli.interrupt import polite_interrupts
from edgec.tools.cli.options import ARTIFACT, JSON, THREADS
from edgec.tools.cli.progress import format_seconds, training_display

_INTERRUPTED = 130


@click.command("train")
@ARTIFACT
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Arrays by input name, and labels (.npz).")
@click.option("--eval-data", type=click.Path(path_type=Path), help="The same, to evaluate on after every epoch.")
@click.option("--epochs", required=True, type=click.IntRange(min=1))
@click.option("--max-steps", type=click.IntRange(min=1), help="End after so many steps at the latest.")
@click.option("--lr", required=True, type=click.FloatRange(min=0), help="The learning rate.")
@click.option("--schedule", type=click.Choice(["constant", "cosine", "step"]), default="constant", show_default=True)
@click.option("--step-every", type=click.IntRange(min=1), help="Of --schedule step: steps from one rate to the next.")
@click.option("--step-factor", type=click.FloatRange(min=0), default=0.1, show_default=True, help="And how it changes.")
@click.option("--classes", type=click.IntRange(min=1), help="Live classes of a new head; all of them by default.")
@click.option("--warmup", type=click.IntRange(min=0), default=0, help="Steps with a rising rate first.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the order of samples.")
@click.option(
    "--checkpoint",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Save here after every epoch, and when interrupted.",
)
@click.option("--checkpoint-every", type=click.IntRange(min=1), help="Save after so many steps instead.")
@click.option(
    "--best-checkpoint",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Save here whatever evaluates best on --eval-data.",
)
@click.option("--resume", is_flag=True, help="Go on from the checkpoint, if there is one.")
@THREADS
@JSON
def command(
    artifact: Path,
    data: Path,
    eval_data: Path | None,
    epochs: int,
    max_steps: int | None,
    lr: float,
    schedule: str,
    step_every: int | None,
    step_factor: float,
    classes: int | None,
    warmup: int,
    seed: int,
    checkpoint: Path | None,
    checkpoint_every: int | None,
    best_checkpoint: Path | None,
    resume: bool,
    threads: int | None,
    as_json: bool,
) -> int:
    """Train ARTIFACT, which was compiled with --train, on data.

    Ctrl-C ends it after the step at hand, with the checkpoint saved; --resume then goes on as if nothing had happened.

    Example: edgec train model.edge --data train.npz --epochs 3 --lr 0.01 --schedule cosine --checkpoint tuned.edgeckpt
    """
    if checkpoint is None and (resume or checkpoint_every):
        name = "--resume goes on from" if resume else "--checkpoint-every is about"
        raise click.UsageError(f"{name} a checkpoint: add --checkpoint FILE")
    if best_checkpoint is not None and eval_data is None:
        raise click.UsageError("--best-checkpoint keeps what evaluates best: add --eval-data FILE")
    rates = _schedule(schedule, lr, step_every, step_factor, warmup)
    arrays, eval_arrays = read_arrays(data), read_arrays(eval_data) if eval_data else None
    started = time.monotonic()
    with (
        located(artifact),
        load(artifact, threads) as model,
        training_display() as display,
        polite_interrupts() as stop,
    ):
        done = fit(
            model,
            arrays,
            epochs=epochs,
            schedule=rates,
            eval_data=eval_arrays,
            scalars=None if classes is None else {"classes": classes},
            seed=seed,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every or 0,
            best_checkpoint=best_checkpoint,
            resume=resume,
            max_steps=max_steps,
            stop=stop,
            on_progress=display.on_progress,
            on_evaluation=lambda epoch, evaluation: display.say(_describe(epoch, evaluation)),
        )
    seconds = time.monotonic() - started
    if as_json:
        show_json(_record(done, seconds))
    else:
        _show(done, seconds)
    if done.stopped:
        kept = (
            f"`{checkpoint}` holds step {_end(done)}; --resume goes on" if checkpoint else "no --checkpoint: it is lost"
        )
        echo(f"interrupted: {kept}", err=True)
    return _INTERRUPTED if done.stopped else 0


def _schedule(name: str, lr: float, every: int | None, factor: float, warmup: int) -> Schedule:
    if (name == "step") != (every is not None):
        raise click.UsageError("--schedule step and --step-every N belong together")
    if name == "constant":
        chosen: Schedule = Constant(lr)
    elif name == "cosine":
        chosen = Cosine(lr)
    else:
        chosen = Step(lr, every, factor)
    return WarmUp(warmup, chosen) if warmup else chosen


def _describe(epoch: int, evaluation: Evaluation) -> str:
    accuracy = "" if evaluation.accuracy is None else f", accuracy {evaluation.accuracy:.2%}"
    figures = f"loss {evaluation.loss:.4f}{accuracy} of {evaluation.samples}"
    return f"after epoch {epoch + 1}: {figures}"


def _end(done: Fit) -> int:
    """The step after which the run ended."""
    return done.first_step + len(done.losses)


def _show(done: Fit, seconds: float) -> None:
    if not done.losses:
        echo("nothing to do: the checkpoint is at the last step already")
        return
    first, last = done.losses[0], done.losses[-1]
    echo(
        f"{len(done.losses)} steps in {format_seconds(seconds)}; loss {first:.4f} at the first, {last:.4f} at the last"
    )


def _record(done: Fit, seconds: float) -> dict:
    return {
        "first_step": done.first_step,
        "steps": _end(done),
        "seconds": seconds,
        "stopped": done.stopped,
        "losses": list(done.losses),
        "evaluations": [dataclasses.asdict(evaluation) for evaluation in done.evaluations],
        "best": None if done.best is None else dataclasses.asdict(done.best),
    }
