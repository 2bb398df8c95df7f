"""Every op case."""

from cases import compute, elementwise, indexing, loss, movement, normalisation, numbers, random, updates

OP_CASES = (
    *elementwise.CASES,
    *updates.CASES,
    *compute.CASES,
    *movement.CASES,
    *loss.CASES,
    *indexing.CASES,
    *normalisation.CASES,
    *numbers.CASES,
    *random.CASES,
)
