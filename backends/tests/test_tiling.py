"""Register tiles fit the register file of every processor that is compiled for, at every width of a panel."""

import pytest

from edgec.backends.base import Target
from edgec.backends.targets import ARM_CPUS, all_targets, find_target
from edgec.backends.tvm.tiling import (
    multiplies_by_element,
    panel_width,
    results_in_registers,
    rows_in_registers,
    tile_rows,
    vectors_of,
)

TARGETS = (
    *(target for target in all_targets() if target.lanes > 1),
    *(find_target(f"arm-cpu:{cpu}") for cpu in ARM_CPUS),
)
each_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


@each_target
def test_a_tile_of_a_product_fits(target: Target):
    """Sums, a row of the right matrix, and of the left one a vector for each row, or one broadcast."""
    widest = panel_width(1000, target)
    for width in range(1, widest + 1):
        rows, vectors = tile_rows(width, target), vectors_of(width, target.lanes)
        left = rows if multiplies_by_element(target) else 1
        assert rows >= 1
        assert rows * vectors + vectors + left <= target.registers, width
    # At least three multiply-adds for two loads, of which x86 does two beside two multiply-adds.
    rows, vectors = tile_rows(widest, target), vectors_of(widest, target.lanes)
    depths = target.lanes if multiplies_by_element(target) else 1
    assert 2 * rows * vectors * depths >= 3 * (vectors * depths + rows)


@each_target
@pytest.mark.parametrize("taps", [1, 2, 3, 5, 7])
def test_depthwise_tiles_fit(target: Target, taps: int):
    """Results, a kernel row and a source; of a weight's gradient the sums of some kernel rows and both operands."""
    assert results_in_registers(target) + taps + 1 <= target.registers
    assert rows_in_registers(taps, target) * taps + 2 <= target.registers
