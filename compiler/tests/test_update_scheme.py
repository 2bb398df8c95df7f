"""Schemes as values and as files, and what they mean in a model: names, counts, blocks, and errors that help."""

from pathlib import Path

import pytest

from edgec.compiler.sparse.scheme import Lora, Scheme, WeightRule
from edgec.compiler.sparse.select import select
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph
from edgec.graph.parse import parse_module

WHOLE = """
base = "last:2"
biases = 16
norms = "all"
channels = "largest"

[weights]
"layer3.*" = 0.25
'a"b' = 1

[lora]
rank = 4
alpha = 16.0
layers = ["*.query.weight"]
"""

BLOCKS = """
graph infer {
  input %x: f32[2,4]
  param %embed.weight: f32[4]
  param %enc.layer.0.w: f32[4,4]
  param %enc.layer.0.b: f32[4]
  param %enc.layer.1.w: f32[4,4]
  param %enc.layer.1.gamma: f32[4]
  param %enc.layer.10.w: f32[4,4]
  param %enc.layer.10.b: f32[4]
  param %pool.0.w: f32[4,4]
  param %head.w: f32[4,3]
  param %head.b: f32[3]
  %e: f32[2,4] = mul(%x, %embed.weight)
  %m0: f32[2,4] = matmul(%e, %enc.layer.0.w)
  %a0: f32[2,4] = add(%m0, %enc.layer.0.b)
  %m1: f32[2,4] = matmul(%a0, %enc.layer.1.w)
  %n1: f32[2,4], %n1.mean: f32[2], %n1.inv: f32[2] = layer_norm(%m1, %enc.layer.1.gamma) {axis=1, epsilon=1e-05}
  %m2: f32[2,4] = matmul(%n1, %enc.layer.10.w)
  %a2: f32[2,4] = add(%m2, %enc.layer.10.b)
  %p: f32[2,4] = matmul(%a2, %pool.0.w)
  %h: f32[2,3] = matmul(%p, %head.w)
  %y: f32[2,3] = add(%h, %head.b)
  output "y" = %y
}
"""
BEHIND = {"pool.0.w", "head.w", "head.b"}


def graph() -> Graph:
    return parse_module(BLOCKS).programs["infer"]


def names(scheme: Scheme) -> set[str]:
    return {param.name for param in select(graph(), scheme)}


def write(folder: Path, text: str) -> Path:
    path = folder / "scheme.toml"
    path.write_text(text)
    return path


def test_a_file_says_what_the_value_holds_and_is_written_back(tmp_path: Path) -> None:
    scheme = Scheme.from_toml(write(tmp_path, WHOLE))
    rules = (WeightRule("layer3.*", 0.25), WeightRule('a"b', 1))
    assert scheme == Scheme("last:2", 16, "all", "largest", rules, Lora(4, 16.0, ("*.query.weight",)))
    assert Scheme.from_toml(write(tmp_path, scheme.to_toml())) == scheme
    assert Scheme.from_toml(write(tmp_path, "")) == Scheme() == Scheme.named("head")
    assert (scheme.lora.scale, Lora(8).scale) == (4.0, 2.0)


def test_train_reads_a_scheme_from_a_path_and_from_its_own_file(tmp_path: Path) -> None:
    scheme = Scheme.from_toml(write(tmp_path, WHOLE))
    assert Train(update=str(tmp_path / "scheme.toml")).scheme == scheme
    assert Train(update=scheme) == Train(update=str(tmp_path / "scheme.toml"))
    specification = tmp_path / "spec.toml"
    specification.write_text('update = "scheme.toml"')
    assert Train.from_toml(specification).scheme == scheme
    specification.write_text('[update]\nbase = "none"\n[update.weights]\n"w" = 0.5')
    assert Train.from_toml(specification).scheme == Scheme("none", weights=(WeightRule("w", 0.5),))


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ('base = "heads"', 1, "unknown base 'heads'", "did you mean 'head'?"),
        ('\nbase = "last:0"', 2, "unknown base", "last:K"),
        ("\n\nbiasses = 3", 3, "unknown key 'biasses'", "did you mean 'biases'"),
        ("biases = -1", 1, "neither a number", ""),
        ("norms = true", 1, "neither a number", ""),
        ('channels = "last"', 1, "unknown choice of channels", "did you mean"),
        ('base = "none"\n[weights]\n"a" = 1\n"b" = 1.5', 4, "1.5 does not lie within 0 and 1", ""),
        ('[weights]\n"a" = true', 2, "does not lie within", ""),
        ("[weights]\na.b = 0.5", 1, "the ratio is a table", 'in quotes, as in "a.weight"'),
        ("weights = 3", 1, "a table is needed", ""),
        ('[weights]\n"rank" = 1\n[lora]\nrank = 0', 4, "0 is no rank", ""),
        ("[lora]\nalpha = 2", 1, "need a rank", ""),
        ("[lora]\nrang = 2", 2, "unknown key 'rang'", "did you mean 'rank'"),
        ("base = ", 0, "not a TOML file", ""),
    ],
)
def test_mistakes_in_a_file_have_their_line(tmp_path: Path, text: str, line: int, message: str, hint: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=message) as caught:
        Scheme.from_toml(path)
    assert caught.value.code == "E0302" and hint in (caught.value.hint or "")
    assert caught.value.where.startswith(f"{path}:{line}:" if line else str(path))


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UserError) as caught:
        Train(update="nowhere.toml")
    assert caught.value.code == "E0507"


@pytest.mark.parametrize(
    ("scheme", "trained"),
    [
        (Scheme("blocks:1"), {"enc.layer.10.w", "enc.layer.10.b"} | BEHIND),
        (Scheme("blocks:2"), {"enc.layer.1.w", "enc.layer.1.gamma", "enc.layer.10.w", "enc.layer.10.b"} | BEHIND),
        (Scheme(biases=2), {"enc.layer.10.b", "head.w", "head.b"}),
        (Scheme("none", biases="all"), {"enc.layer.0.b", "enc.layer.10.b"}),
        (Scheme("none", norms=1), {"enc.layer.1.gamma"}),
        (Scheme("none", weights=(WeightRule("enc.layer.[0-1].w"),)), {"enc.layer.0.w", "enc.layer.1.w"}),
        (Scheme(weights=(WeightRule("head.b", 0.0), WeightRule("head.*", 0.5))), {"head.w"}),
        (Scheme("full", weights=(WeightRule("e*", 0.0), WeightRule("pool.*", 0.0))), {"head.w", "head.b"}),
    ],
)
def test_what_schemes_train(scheme: Scheme, trained: set[str]) -> None:
    assert names(scheme) == trained


@pytest.mark.parametrize(
    ("scheme", "code", "message", "hint"),
    [
        (Scheme("blocks:4"), "E0302", "the model has 3 repeated blocks: enc.layer.0, enc.layer.1, enc.layer.10", ""),
        (Scheme(biases=5), "E0302", "biases = 5: the model has 4 layers before the head", '"all"'),
        (Scheme(norms=2), "E0302", "norms = 2: the model has 1 norms", '"all"'),
        (Scheme(weights=(WeightRule("enc.layer.1.weight"),)), "E0302", "no parameter .* called", "'enc.layer.1.w'"),
        (Scheme(weights=(WeightRule("conv9"),)), "E0302", "no parameter .* called", "names are embed.weight"),
        (Scheme("none"), "E0303", "leaves nothing to train", ""),
        (Scheme("none", weights=(WeightRule("*", 0.0),)), "E0303", "all ratios are 0", ""),
    ],
)
def test_what_a_model_has_not(scheme: Scheme, code: str, message: str, hint: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        names(scheme)
    assert caught.value.code == code and hint in (caught.value.hint or "")


def test_blocks_need_names_that_count() -> None:
    text = BLOCKS.replace("enc.layer.0", "first").replace("enc.layer.10", "third").replace("enc.layer.1", "second")
    with pytest.raises(UserError, match="no names of parameters count") as caught:
        select(parse_module(text).programs["infer"], Scheme("blocks:1"))
    assert caught.value.code == "E0302"
    numbered = BLOCKS.replace("enc.layer.0", "conv1").replace("enc.layer.10", "conv3").replace("enc.layer.1", "conv2")
    chosen = select(parse_module(numbered).programs["infer"], Scheme("blocks:1"))
    assert {param.name for param in chosen} == {"conv3.w", "conv3.b"} | BEHIND
