"""Rules for register tiles and task grids: from shapes and the target's registers, never from measurements of one
model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgec.backends.base import Target
from edgec.runtime.abi import Arch

_TASK_MACS = 1 << 19  # several microseconds on one core: much more than handing out a task costs
_MOST_TASKS = 64
# Rounding errors of a sum grow with the number of products that are added up one after another: beyond the first
# number, in chains of at most the second, which takes 1 % of the time. Halves the error at depth 512, 5 at 4608.
_LONGEST_CHAIN, _CHAIN = 256, 128
_ENOUGH_SUMS = 18  # in a tile: with fewer, multiply-adds wait for loads, and on Arm for one another
_LATENCY = 8  # independent multiply-adds that keep two FMA units busy
_MOST_REDUCE_TASKS = 8  # each reads all rows, so more of them cost more than they help


def vectors_of(width: int, lanes: int) -> int:
    """Registers that a row of `width` columns takes: full vectors, then falling powers of two."""
    return width // lanes + (width % lanes).bit_count()


def panel_width(columns: int, target: Target) -> int:
    """Columns of a tile: two vectors, so that each broadcast is used twice."""
    return min(columns, 2 * target.lanes)


def tile_rows(width: int, target: Target) -> int:
    """Rows of a register tile: accumulators, a row of the right matrix and a spare register or two fill the file.

    On Arm each row also holds a vector of the left matrix, whose lanes `fmla` multiplies by element.
    """
    vectors = vectors_of(width, target.lanes)
    if multiplies_by_element(target):
        return (target.registers - vectors - 2) // (vectors + 1)
    return max(1, (target.registers - vectors - 2) // vectors)


def multiplies_by_element(target: Target) -> bool:
    """Whether scalars for broadcast are best read several at a time: Arm multiplies by a lane, x86 broadcasts from
    memory.
    """
    return target.arch is Arch.AARCH64


def even_split(total: int, largest: int) -> tuple[int, int, int]:
    """Cut into the fewest parts of at most `largest`, as even as possible: (height, taller, shorter).

    `taller` parts have `height` rows and come first, `shorter` parts have height - 1. A short last tile would wait
    for its own multiply-adds; two nearly equal heights do not.
    """
    parts = max(1, -(-total // largest))
    height = -(-total // parts)
    taller = total - parts * (height - 1)
    return height, taller, parts - taller


def usual_heights(total: int, largest: int, vectors: int) -> tuple[int, ...]:
    """Heights of tiles to begin with: the tallest that leaves no second height, whose code would be another copy, if
    there is one of enough sums; then the largest.
    """
    enough = -(-_ENOUGH_SUMS // vectors)
    splits = (even_split(total, most) for most in range(largest, enough - 1, -1))
    alike = next((height for height, _, shorter in splits if not shorter), largest)
    return (largest,) if even_split(total, largest)[0] == alike else (alike, largest)


def chains(depth: Sequence[int]) -> tuple[int, int]:
    """(loop, pieces): which loop over a depth is cut, and into how many pieces, so that no sum is a long chain.

    Loops within that one are whole; those around it run one iteration at a time. (0, 1): nothing is cut.
    """
    if math.prod(depth) <= _LONGEST_CHAIN:
        return 0, 1
    # More than one piece in all: the whole depth is longer than a chain.
    within = [math.prod(depth[loop + 1 :]) for loop in range(len(depth))]
    loop = next(loop for loop, products in enumerate(within) if products <= _CHAIN)
    return loop, -(-depth[loop] // (_CHAIN // within[loop]))


def interleaved_sums(depth: int, height: int, vectors: int) -> int:
    """Parts of every sum of a tile of `height` rows by `vectors`: few sums would wait for one another."""
    return max(1, min(depth, _LATENCY // (height * vectors)))


def row_tasks(rows: int, tiles: int, panels: int, macs: int, batch: int, block_rows: int) -> tuple[int, int]:
    """(row blocks, panel groups) of a product whose output has `tiles` units along its rows and `panels` panels; some
    `block_rows` rows, or fewer, go through all panels before the next.
    """
    wanted = max(1, min(_MOST_TASKS, macs // _TASK_MACS) // batch)
    blocks = min(tiles, max(wanted, -(-rows // block_rows)))
    return blocks, min(panels, max(1, -(-wanted // blocks)))


def reduce_tasks(depths: int, panels: int, macs: int) -> tuple[int, int]:
    """(depth groups, panel groups) of a reduction with `depths` units of depth."""
    wanted = max(1, min(_MOST_REDUCE_TASKS, macs // (2 * _TASK_MACS)))
    groups = min(panels, wanted)
    return min(depths, -(-wanted // groups)), groups


def reduce_block(lines: int, line_rows: int, block_rows: int) -> int:
    """Rows, or lines where there are several, that are summed in registers: some `block_rows` rows, cut evenly."""
    blocks = max(1, round(lines * line_rows / block_rows))
    return -(-(line_rows if lines == 1 else lines) // blocks)


def column_block(columns: int, target: Target, most: int) -> int:
    """Columns that are summed side by side in `most` vectors or fewer: without a rest, whose code would be another
    copy, where two vectors or more allow it.
    """
    blocks = (vectors * target.lanes for vectors in range(most, 1, -1))
    return next((block for block in blocks if columns % block == 0), most * target.lanes)


def results_in_registers(target: Target) -> int:
    """Results along x of a depthwise tile; the rest of the registers holds one kernel row and one source vector."""
    return 14 if target.registers >= 32 else 8


def rows_in_registers(taps: int, target: Target) -> int:
    """Kernel rows of `taps` whose sums fit, beside some vectors of dy and one of the source."""
    return max(1, (target.registers - 6) // taps)


def lines_in_registers(width: int) -> int:
    """Lines of a map summed before the sums go to memory: wide lines go by one, since pixels far apart cost more
    than the sums.
    """
    return max(1, 56 // width)


def line_tasks(units: int, macs: int) -> int:
    return max(1, min(units, _MOST_TASKS, macs // (_TASK_MACS // 4)))


def channel_tasks(channels: int, macs: int) -> int:
    """Tasks of at least 64 channels: each walks over all pixels, and a pixel's part should be some cache lines."""
    return max(1, min(channels // 64, _MOST_REDUCE_TASKS, macs // (_TASK_MACS // 4)))
