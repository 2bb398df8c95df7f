"""Loss and accuracy of a model over a whole data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgec.runtime.binding import Model
from edgec.runtime.dataset import Arrays, check_data
from edgec.runtime.signature import Signature, TensorInfo

_WEIGHT = "loss.weight"  # an output of `eval` where the rows of a batch do not count alike


@dataclass(frozen=True)
class Evaluation:
    """Over a whole data set: mean loss, and the share of labels at which the largest score of an output stands.

    `accuracy` is None where the loss is not one of class indices.
    """

    loss: float
    accuracy: float | None
    samples: int

    def better_than(self, other: Evaluation) -> bool:
        """By accuracy where there is one, else by loss."""
        if self.accuracy is None or other.accuracy is None:
            return self.loss < other.loss
        return (self.accuracy, -self.loss) > (other.accuracy, -other.loss)


def evaluate(
    model: Model, data: Arrays, *, output: str | None = None, scalars: Mapping[str, float] | None = None
) -> Evaluation:
    """The `eval` program over `data` (its inputs, labels among them). `output` holds the scores; by default the first.

    The last batch is short. A program that cannot leave rows out gets samples of the batch before again: they count
    once towards the accuracy, and the batch's mean loss stands for its new samples. Every batch's loss counts by its
    samples, or by their weight where those have some: the loss is that of one batch of all.
    """
    signature = model.signature("eval")
    sizes = check_data(signature, data)
    labels = _labels(signature)
    output = output or next((info.name for info in signature.outputs), None)
    loss_sum, weight_sum, right, counted_labels = 0.0, 0.0, 0, 0
    for start in range(0, sizes.samples, sizes.batch):
        first = start if sizes.masked else min(start, sizes.samples - sizes.batch)
        feeds = {name: array[first : first + sizes.batch] for name, array in data.items()}
        loss, outputs = model.eval_step(feeds, **(scalars or {}))
        fresh = slice(start - first, None)
        counted = min(sizes.batch, sizes.samples - start)
        weight = float(outputs[_WEIGHT]) if _WEIGHT in outputs else counted
        loss_sum, weight_sum = loss_sum + (loss * weight if weight else 0.0), weight_sum + weight
        if labels is not None and output is not None:
            hits, seen = _hits(outputs[output][fresh], np.asarray(feeds[labels.name])[fresh], labels)
            right, counted_labels = right + hits, counted_labels + seen
    accuracy = right / counted_labels if counted_labels else None
    return Evaluation(loss_sum / weight_sum if weight_sum else float("nan"), accuracy, sizes.samples)


def _labels(signature: Signature) -> TensorInfo | None:
    """The input that holds class indices: the one whose values are bounded."""
    bounded = [info for info in signature.inputs if info.bounds is not None]
    return bounded[0] if len(bounded) == 1 else None


def _hits(scores: np.ndarray, labels: np.ndarray, info: TensorInfo) -> tuple[int, int]:
    """(right ones, labels that count). Classes stand where the scores have one axis more than the labels."""
    if labels.ndim == 1:
        predicted = scores.reshape(len(labels), -1).argmax(axis=1)
    else:
        axis = 1 if scores.shape[:1] + scores.shape[2:] == labels.shape else -1
        predicted = scores.argmax(axis=axis)
    if predicted.shape != labels.shape:
        return 0, 0
    valid = np.ones(labels.shape, bool) if info.ignored is None else labels != info.ignored
    return int(((predicted == labels) & valid).sum()), int(valid.sum())
