"""Register tiles fit the register file of every processor that is compiled for, at every width of a panel."""

import pytest

from edgec.backends.base import Target
from edgec.backends.targets import ARM_CPUS, all_targets, find_target
from edgec.backends.tvm.depthwise import Tile, Unsure, forward_taps, tiles
from edgec.backends.tvm.tiling import (
    even_split,
    multiplies_by_element,
    panel_width,
    results_in_registers,
    rows_in_registers,
    tile_rows,
    usual_heights,
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


@pytest.mark.parametrize(
    "total, heights", [(96, (12, 14)), (84, (14,)), (65, (14,)), (97, (14,)), (14, (14,)), (22, (14,)), (1, (14,))]
)
def test_rows_that_divide_begin_with_one_height(total: int, heights: tuple[int, ...]):
    """65 rows are five tiles of 13 anyway; 97 is prime."""
    assert usual_heights(total, 14, 2) == heights


def test_a_height_of_few_sums_is_none_to_begin_with():
    assert usual_heights(97 * 7, 14, 2) == (14,)  # 7 would divide


@pytest.mark.parametrize("stride, shifts", [(1, (Unsure(0, 1), Unsure(15, -1))), (2, (Unsure(0, 1),))])
def test_tiles_of_a_line_are_one_loop(stride: int, shifts: tuple[Unsure, ...]):
    taps = forward_taps(56, 3, stride, 1, 1)
    size = 56 * stride
    assert tiles(taps, size, even_split(56, 14), 2) == (Tile(0, 4, 14, ((0, 1, 2),) * 14, shifts),)


def test_tiles_of_a_line_are_as_few_loops_as_registers_allow():
    taps = forward_taps(56, 3, 1, 1, 1)
    counts = [[tile.count for tile in tiles(taps, 56, even_split(56, 14), most)] for most in (0, 1, 2)]
    assert counts == [[1, 2, 1], [3, 1], [4]]


def test_a_column_outside_on_both_sides_is_in_no_loop():
    taps = forward_taps(6, 3, 1, 1, 2)  # of column 1, result 0 lies before the line of 4 and result 5 behind it
    assert [tile.count for tile in tiles(taps, 4, even_split(6, 1), 9)] == [5, 1]
