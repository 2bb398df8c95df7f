"""The picture of the arena: rectangles where the plan says, one scale for one program, the peak marked and named."""

import xml.etree.ElementTree as ElementTree

import pytest

from edgec.tools.memory_picture import COLOURS, Panel, draw

SVG = "{http://www.w3.org/2000/svg}"


def _row(name: str, role: str, size: int, offset: int, first: int, last: int) -> dict:
    return {"name": name, "role": role, "bytes": size, "offset": offset, "first": first, "last": last}


def _panel(artifact: str = "a.edge", program: str = "train", arena: int = 4096, **changes: object) -> Panel:
    rows = [
        _row("x", "input", 1024, 0, 0, 1),
        _row("big <&> activation", "saved activation", 2048, 1024, 1, 3),
        _row("grad", "gradient", 1024, 3072, 2, 2),
    ]
    steps = ["copy x", "conv2d conv1", "conv2d_weight_grad conv1", "sgd_update"]
    plan = {"arena_bytes": arena, "live_peak_bytes": arena, "guard": 2, "steps": steps, "rows": rows}
    return Panel(artifact, "x86", program, plan | changes)


def _drawing(*panels: Panel) -> ElementTree.Element:
    return ElementTree.fromstring(draw(panels))


def _buffers(root: ElementTree.Element) -> dict[str, ElementTree.Element]:
    return {rect[0].text: rect for rect in root.iter(f"{SVG}rect") if len(rect)}


def _texts(root: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text")]


def test_a_buffer_stands_where_the_plan_says() -> None:
    """Four steps and 4096 bytes over a plot of 560 by 300."""
    buffers = _buffers(_drawing(_panel()))
    rect = buffers["big <&> activation: saved activation, 2.0 KB, steps 1 to 3"]
    place = {key: float(rect.get(key)) for key in ("x", "y", "width", "height")}
    assert place == {"x": 140.0, "y": 75.0, "width": 420.0, "height": 150.0}
    assert rect.get("fill") == COLOURS["saved activation"]
    assert len(buffers) == 3


def test_buffers_that_share_bytes_at_a_step_would_be_seen_to_overlap() -> None:
    """The rectangles of a sound plan do not overlap."""
    rects = [
        [float(r.get(key)) for key in ("x", "y", "width", "height")] for r in _buffers(_drawing(_panel())).values()
    ]
    for i, (x, y, w, h) in enumerate(rects):
        for u, v, p, q in rects[i + 1 :]:
            assert x + w <= u or u + p <= x or y + h <= v or v + q <= y


def test_the_peak_is_marked_and_named() -> None:
    """At step 2 the last two are alive; at step 1 the first two: as many bytes, and earlier."""
    root = _drawing(_panel())
    (line,) = [line for line in root.iter(f"{SVG}line") if line.get("stroke-dasharray")]
    assert float(line.get("x1")) == 1.5 * 140
    texts = _texts(root)
    assert "peak 3.0 KB at step 1: conv2d conv1" in texts
    assert "largest there: big <&> activation (saved activation, 2.0 KB), x (input, 1.0 KB)" in texts
    assert "guard" in texts


def test_one_program_has_one_scale_in_every_artifact() -> None:
    """The same buffer is half as high beside an arena twice as large; another program has its own scale."""
    alone = _buffers(_drawing(_panel()))
    root = _drawing(_panel(), _panel("b.edge", arena=8192), _panel(program="infer"))
    heights = [float(r.get("height")) for r in root.iter(f"{SVG}rect") if len(r) and r[0].text.startswith("grad")]
    (full,) = (float(r.get("height")) for text, r in alone.items() if text.startswith("grad"))
    assert heights == pytest.approx([full / 2, full / 2, full])
    titles = [text for text in _texts(root) if text.startswith(("a.edge", "b.edge"))]
    assert titles == ["a.edge: train", "b.edge: train", "a.edge: infer"]


def test_it_needs_nothing_from_outside() -> None:
    text = draw([_panel()])
    assert "href" not in text and "<style" not in text and "script" not in text
    assert text.count("http") == 1  # the namespace


def test_programs_without_steps_and_unknown_roles() -> None:
    empty = _panel(arena=0, steps=[], rows=[], guard=None)
    assert _buffers(_drawing(empty)) == {}
    odd = _panel(rows=[_row("n", "novel role", 64, 0, 0, 3)])
    assert "novel role" in _texts(_drawing(odd))
