"""What a scheme trains in a model: its names and counts become parameters, or errors that say what there is."""

from __future__ import annotations

from edgec.compiler.sparse import layers
from edgec.compiler.sparse.scheme import ALL, Scheme, suggest, wrong
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Value


def select(graph: Graph, scheme: Scheme) -> set[Value]:
    """The parameters of `graph` that `scheme` trains, adapters apart.

    UserError E0302 for names and counts that the model has not, E0303 where nothing is left to train.
    """
    known = layers.candidates(graph)
    chosen = _base(graph, scheme, known)
    chosen |= _last_biases(graph, scheme.biases, known) | _last_norms(graph, scheme.norms, known)
    for rule in scheme.weights:
        if not any(rule.holds(param.name) for param in known):
            raise _unmatched(rule.pattern, known)
    for param in known:
        rule = scheme.rule_of(param.name)
        if rule is not None:
            chosen = chosen | {param} if rule.ratio else chosen - {param}
    if not chosen and scheme.lora is None:
        raise UserError("E0303", f"the update scheme leaves nothing to train: {_described(scheme)}", where="update")
    return chosen


def _described(scheme: Scheme) -> str:
    return "the model has no such parameter" if scheme.base != "none" else 'its base is "none", and all ratios are 0'


def _base(graph: Graph, scheme: Scheme, known: set[Value]) -> set[Value]:
    kind, count = scheme.counted_base
    match kind:
        case "full":
            return set(known)
        case "head":
            return _last_layers(graph, known, 1, scheme.base)
        case "bias":
            return layers.biases(graph) & known | _last_layers(graph, known, 1, scheme.base)
        case "last":
            return _last_layers(graph, known, count, scheme.base)
        case "blocks":
            return _last_blocks(graph, known, count)
        case _:
            return set()


def _last_layers(graph: Graph, known: set[Value], count: int, base: str) -> set[Value]:
    """The weights of the last `count` convolutions and products, with what belongs to each."""
    found = layers.layers(graph, known)
    if not found:
        raise UserError("E0303", f"update {base!r}: the model has no convolution or product with a trainable weight")
    if count > len(found):
        raise UserError(
            "E0302", f"update {base!r}: the model has {len(found)} layers with trainable weights", where="update"
        )
    chosen: set[Value] = set()
    for node in found[-count:]:
        chosen |= {layers.weight_of(node), *(param for param, _ in layers.followers(node))} & known
    return chosen


def _last_blocks(graph: Graph, known: set[Value], count: int) -> set[Value]:
    """The parameters of the last `count` blocks, and all that are first read behind the first of these."""
    found = layers.blocks(graph, known)
    if not found:
        message = f"update 'blocks:{count}': no names of parameters count through a repeated part of the model"
        raise UserError("E0302", message, where="update", hint="`last:K` counts layers, whatever their names")
    if count > len(found):
        listed = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        message = f"update 'blocks:{count}': the model has {len(found)} repeated blocks: {listed}"
        raise UserError("E0302", message, where="update")
    places = layers.first_reads(graph, known)
    own = {param for param in known for prefix in found[-count:] if layers.in_block(param.name, prefix)}
    begin = min(places[param] for param in own)
    return own | {param for param, place in places.items() if place >= begin}


def _last_biases(graph: Graph, count: int | str, known: set[Value]) -> set[Value]:
    """What is added right behind the last `count` layers before the head."""
    if count == 0:
        return set()
    found = layers.layers(graph, known)[:-1]
    _refuse_more("biases", count, len(found), "layers before the head")
    chosen = found if count == ALL else found[-int(count) :]
    return {param for node in chosen for param, added in layers.followers(node) if added} & known


def _last_norms(graph: Graph, count: int | str, known: set[Value]) -> set[Value]:
    if count == 0:
        return set()
    found = layers.norms(graph)
    _refuse_more("norms", count, len(found), "norms with a scale or shift")
    chosen = found if count == ALL else found[-int(count) :]
    return set().union(*chosen) & known


def _refuse_more(key: str, count: int | str, there: int, what: str) -> None:
    if count != ALL and int(count) > there:
        raise wrong(key, f"{key} = {count}: the model has {there} {what}", f'"{ALL}" takes every one')


def _unmatched(pattern: str, known: set[Value]) -> UserError:
    names = sorted(param.name for param in known)
    listed = names if len(names) <= 12 else [*names[:6], "...", *names[-5:]]
    hint = suggest(pattern, names, "names are")
    message = f"no parameter that can be trained is called `{pattern}`"
    if not hint.startswith("did"):
        hint = f"names are {', '.join(listed)}"
    return wrong(f"weights.{pattern}", message, hint)
