"""Greedy non-maximum suppression: the best boxes of each class that do not overlap one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Op, Tolerance, type_error
from edgec.graph.ops.checks import operands, require_float, require_same_dtype
from edgec.graph.types import DType, TensorType


@dataclass(frozen=True)
class NonMaxSuppression(Op):
    """boxes[N,B,4], scores[N,C,B], iou[], lowest[] -> i64[N,C,limit]: for each class the numbers of the boxes that are
    kept, best first, then -1.

    A box is two opposite corners, in any order. Of the boxes with a score above `lowest`, taken by falling score (of
    equal ones the first), one is kept unless its intersection over union with one that was kept exceeds `iou`. What
    has no area overlaps nothing; a score that is NaN is above nothing. The semantics of ONNX's operator.
    """

    name: ClassVar[str] = "non_max_suppression"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT
    no_gradient: ClassVar[str | None] = "it decides which boxes are kept"

    limit: int

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        boxes, scores, iou, lowest = operands(self, inputs, 4)
        require_float(self, *inputs)
        require_same_dtype(self, *inputs)
        if boxes.rank != 3 or scores.rank != 3 or boxes.shape[2] != 4:
            raise type_error(self, "boxes are [N,B,4] and scores [N,C,B]", *inputs)
        if (boxes.shape[0], boxes.shape[1]) != (scores.shape[0], scores.shape[2]):
            raise type_error(self, "boxes and scores are of different numbers", *inputs)
        if iou.shape or lowest.shape:
            raise type_error(self, "the two thresholds are scalars", *inputs)
        if not 1 <= self.limit <= boxes.shape[1]:
            raise type_error(self, f"limit={self.limit} of {boxes.shape[1]} boxes", *inputs)
        return (TensorType(DType.I64, (*scores.shape[:2], self.limit)),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        boxes, scores, iou, lowest = inputs
        kept = np.full((*scores.shape[:2], self.limit), -1, np.int64)
        for image, label in np.ndindex(*scores.shape[:2]):
            found = _kept(boxes[image], scores[image, label], iou, lowest, self.limit)
            kept[image, label, : len(found)] = found
        return (kept,)


def _kept(boxes: np.ndarray, scores: np.ndarray, iou: np.ndarray, lowest: np.ndarray, limit: int) -> list[int]:
    candidates = np.flatnonzero(scores > lowest)
    found: list[int] = []
    for box in candidates[np.argsort(-scores[candidates], kind="stable")]:
        if len(found) == limit:
            break
        if not any(_overlap(boxes[box], boxes[other]) > iou for other in found):
            found.append(int(box))
    return found


def _overlap(a: np.ndarray, b: np.ndarray) -> np.floating | float:
    """Intersection over union of two boxes; less than any threshold where one has no area, or they do not meet."""
    (low_a, high_a), (low_b, high_b) = ((np.minimum(x[:2], x[2:]), np.maximum(x[:2], x[2:])) for x in (a, b))
    shared = np.prod(np.maximum(np.minimum(high_a, high_b) - np.maximum(low_a, low_b), 0))
    areas = np.prod(high_a - low_a), np.prod(high_b - low_b)
    return shared / (sum(areas) - shared) if shared > 0 and min(areas) > 0 else -np.inf
