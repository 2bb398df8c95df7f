"""Every op case."""

from cases import compute, elementwise, loss, movement

OP_CASES = (*elementwise.CASES, *compute.CASES, *movement.CASES, *loss.CASES)
