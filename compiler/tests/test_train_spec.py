"""Train: valid once constructed, with errors that say what exists, and read from TOML."""

from pathlib import Path

import pytest

from edgec.compiler.train import Train
from edgec.graph.errors import UserError


def test_defaults_are_plain_sgd_on_everything() -> None:
    train = Train()
    assert (train.loss, train.optimizer, train.update, train.batch) == ("softmax_cross_entropy", "sgd", "full", None)
    assert (train.momentum, train.weight_decay, train.nesterov, train.guard) == (0.0, 0.0, False, "loss")


@pytest.mark.parametrize("update", ["full", "head", "bias", "last:1", "last:12"])
def test_update_schemes_of_this_version(update: str) -> None:
    assert Train(update=update).update == update


@pytest.mark.parametrize(
    ("wrong", "message", "hint"),
    [
        ({"loss": "softmax_crossentropy"}, "unknown loss", "did you mean 'softmax_cross_entropy'"),
        ({"loss": "x"}, "unknown loss", "there is softmax_cross_entropy"),
        ({"loss": "mse"}, "not supported yet", "softmax_cross_entropy"),
        ({"loss": "output:loss"}, "not supported yet", "softmax_cross_entropy"),
        ({"optimizer": "adam"}, "not supported yet", "this version has sgd"),
        ({"optimizer": "sdg"}, "unknown optimizer", "did you mean 'sgd'"),
        ({"update": "none"}, "unknown update", "there is full, head, bias, last:K"),
        ({"update": "last:K"}, "write a number", ""),
        ({"update": "last:0"}, "unknown update", "last:K"),
        ({"update": "blocks:2"}, "not supported yet", "last:K"),
        ({"update": "scheme.toml"}, "not supported yet", "last:K"),
        ({"update": "auto"}, "not supported yet", "last:K"),
        ({"guard": "grads"}, "not supported yet", "loss"),
        ({"batch": 0}, "at least 1", ""),
        ({"batch": 2.0}, "expected int or none", ""),
        ({"batch": True}, "expected int or none", ""),
        ({"momentum": 1.0}, r"lies in \[0, 1\)", ""),
        ({"momentum": "0.9"}, "expected float or int", ""),
        ({"momentum": float("nan")}, r"lies in \[0, 1\)", ""),
        ({"weight_decay": -0.1}, "not negative", ""),
        ({"weight_decay": float("inf")}, "finite", ""),
        ({"nesterov": True}, "needs a momentum", ""),
        ({"nesterov": 1, "momentum": 0.9}, "expected bool", ""),
        ({"labels": ""}, "needs a name", ""),
        ({"loss": None}, "expected str", ""),
    ],
)
def test_mistakes_are_e0302_with_the_key_and_what_exists(wrong: dict, message: str, hint: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Train(**wrong)
    assert caught.value.code == "E0302"
    assert caught.value.where in wrong
    assert hint in caught.value.render()


def test_toml_is_the_same_as_keywords(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text('optimizer = "sgd"\nmomentum = 0.9\nbatch = 8\nupdate = "last:2"\nnesterov = true\n')
    assert Train.from_toml(path) == Train(momentum=0.9, batch=8, update="last:2", nesterov=True)
    path.write_text("")
    assert Train.from_toml(str(path)) == Train()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch = ", "not a TOML file"),
        ("momentun = 0.9", "did you mean 'momentum'"),
        ("[train]\nbatch = 1", "unknown key 'train'"),
        ('optimizer = "adam"', "not supported yet"),
    ],
)
def test_mistakes_in_a_file_name_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        Train.from_toml(path)
    assert caught.value.code == "E0302" and "spec.toml" in caught.value.where
    assert message in caught.value.render()


def test_a_file_that_is_not_text_or_not_there(tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a TOML file"):
        Train.from_toml(binary)
    with pytest.raises(UserError) as caught:
        Train.from_toml(tmp_path / "none.toml")
    assert caught.value.code == "E0507"
