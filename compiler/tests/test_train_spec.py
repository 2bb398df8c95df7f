"""Train: valid once constructed, with errors that say what exists, and read from TOML."""

import json
from pathlib import Path

import pytest

from edgec.compiler.parameter_groups import ParameterGroup
from edgec.compiler.train import Train
from edgec.graph.errors import UserError


def test_defaults_are_plain_sgd_on_everything() -> None:
    train = Train()
    assert (train.loss, train.optimizer, train.update, train.batch) == ("softmax_cross_entropy", "sgd", "full", None)
    assert (train.momentum, train.decay_rate, train.nesterov, train.guard) == (0.0, 0.0, False, "loss")
    assert (train.accumulate, train.clip_norm, train.clip_value, train.groups) == (1, None, None, ())


@pytest.mark.parametrize(
    ("optimizer", "decay", "betas"),
    [
        ("sgd", 0.0, (0.9, 0.999)),
        ("adam", 0.0, (0.9, 0.999)),
        ("adamw", 0.01, (0.9, 0.999)),
        ("lion", 0.0, (0.9, 0.99)),
    ],
)
def test_defaults_of_optimizers_are_torchs(optimizer: str, decay: float, betas: tuple) -> None:
    train = Train(optimizer=optimizer)
    assert (train.decay_rate, train.averages) == (decay, betas)
    assert Train(optimizer=optimizer, weight_decay=0).decay_rate == 0.0


@pytest.mark.parametrize("loss", ["bce_logits", "mse", "l1", "huber", "output:y", "sum_mse:a", "sum_mse:a,b.c,d"])
def test_losses(loss: str) -> None:
    assert Train(loss=loss).loss == loss


def test_what_the_manifest_keeps_is_json_with_resolved_defaults() -> None:
    train = Train(optimizer="adamw", groups=(ParameterGroup("*.bias", rate=2.0),), class_weights=(1.0, 2.0))
    table = train.to_json()
    assert json.loads(json.dumps(table)) == table
    assert table["weight_decay"] == 0.01 and table["betas"] == [0.9, 0.999] and table["class_weights"] == [1.0, 2.0]


@pytest.mark.parametrize("update", ["full", "head", "bias", "last:1", "last:12", "blocks:2", "lora:r=8"])
def test_update_schemes_of_this_version(update: str) -> None:
    assert Train(update=update).update == update


@pytest.mark.parametrize(
    ("wrong", "message", "hint"),
    [
        ({"loss": "softmax_crossentropy"}, "unknown loss", "did you mean 'softmax_cross_entropy'"),
        ({"loss": "x"}, "unknown loss", "there is softmax_cross_entropy"),
        ({"loss": "output:"}, "unknown loss", "did you mean 'output:NAME'"),
        ({"loss": "sum_mse:a,,b"}, "unknown loss", "did you mean"),
        ({"optimizer": "adamax"}, "unknown optimizer", "did you mean 'adam"),
        ({"label_smoothing": 1.0}, r"lies in \[0, 1\)", ""),
        ({"label_smoothing": 0.1, "loss": "mse"}, "loss mse has none", "it belongs to loss softmax_cross_entropy"),
        ({"ignore_index": -1, "targets": "probabilities"}, "no index to ignore", ""),
        ({"class_weights": (1.0, -1.0)}, "not negative", ""),
        ({"class_weights": 2.0}, "expected tuple", ""),
        ({"targets": "soft"}, "unknown targets", "there is indices, probabilities"),
        ({"huber_delta": 0.0, "loss": "huber"}, "greater than 0", ""),
        ({"momentum": 0.9, "optimizer": "adam"}, "optimizer adam has none", "it belongs to optimizer sgd"),
        ({"betas": (0.9, 0.99)}, "optimizer sgd has none", "adam, adamw, lion"),
        ({"betas": (0.9,), "optimizer": "adam"}, "two numbers", ""),
        ({"betas": (0.9, 1.0), "optimizer": "adam"}, "two numbers", ""),
        ({"epsilon": 0.0, "optimizer": "adam"}, "greater than 0", ""),
        ({"decay": "some"}, "unknown decay", "there is all, weights"),
        ({"groups": ("*.bias",)}, "ParameterGroup", ""),
        ({"accumulate": 0}, "at least 1", ""),
        ({"clip_norm": 0.0}, "greater than 0", ""),
        ({"clip_value": float("inf")}, "finite", ""),
        ({"optimizer": "sdg"}, "unknown optimizer", "did you mean 'sgd'"),
        ({"update": "none"}, "unknown update", "there is full, head, bias, last:K"),
        ({"update": "last:K"}, "write a number", ""),
        ({"update": "last:0"}, "unknown update", "last:K"),
        ({"update": "blocks:0"}, "unknown update", "blocks:K"),
        ({"update": "lora:r=0"}, "unknown update", "lora:r=K"),
        ({"update": "blocks:K"}, "write a number", ""),
        ({"guard": "gradients"}, "unknown guard", "did you mean 'grads'"),
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
        ("groups = 3", "a table of its own"),
        ("[[groups]]\nrate = 2.0", "a pattern of parameter names"),
        ('[[groups]]\npattern = "*"\nrates = 2.0', "did you mean 'rate'"),
        ('[[groups]]\npattern = "*"\nrate = -2.0', "not negative"),
        ('[[groups]]\npattern = "*"\nweight_decay = "none"', "not negative"),
    ],
)
def test_mistakes_in_a_file_name_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        Train.from_toml(path)
    assert caught.value.code == "E0302" and "spec.toml" in caught.value.where
    assert message in caught.value.render()


def test_groups_and_lists_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(
        'optimizer = "adamw"\nbetas = [0.8, 0.9]\ndecay = "weights"\n'
        '[[groups]]\npattern = "head.*"\nrate = 10.0\n[[groups]]\npattern = "*.bias"\nweight_decay = 0.0\n'
    )
    groups = (ParameterGroup("head.*", rate=10.0), ParameterGroup("*.bias", weight_decay=0.0))
    assert Train.from_toml(path) == Train(optimizer="adamw", betas=(0.8, 0.9), decay="weights", groups=groups)


def test_a_file_that_is_not_text_or_not_there(tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a TOML file"):
        Train.from_toml(binary)
    with pytest.raises(UserError) as caught:
        Train.from_toml(tmp_path / "none.toml")
    assert caught.value.code == "E0507"
