"""Vectors and prompts on another model: maps between embedding spaces, a file each (`@tpv.register.port`).

A map is a function of `Anchors` and keyword parameters. It returns something with two methods, `prompt` and `vector`,
that take rows [P, H_A] to rows [P, H_B], such as an `Affine`. One registered with `tokens=False` gets all embeddings of
both models instead of those that they share; one with `known=True` gets the pairs of `tpv.port(known=)` too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, overload

import torch
from pydantic_core import to_jsonable_python
from torch import Tensor

from tpv.errors import IncompatibleError, TpvError
from tpv.models import Backbone
from tpv.porting.adapting import Teacher, Texts, adapted, lessons_of
from tpv.porting.anchors import Anchors, anchors_of
from tpv.progress import Callback
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.prompts.homes import home_of
from tpv.prompts.provenance import Adaptation, Component, Init, ModelIdentity, Port, content_hash
from tpv.registry import register
from tpv.tasks import Task
from tpv.training.recipe import Recipe

__all__ = ["port"]

Item = TypeVar("Item", SoftPrompt, TaskPromptVector)
Pair = tuple[SoftPrompt | TaskPromptVector, SoftPrompt | TaskPromptVector | Task]


@overload
def port(items: Item, source: Backbone, target: Backbone, **options: Any) -> Item: ...
@overload
def port(items: Sequence[Item], source: Backbone, target: Backbone, **options: Any) -> list[Item]: ...
def port(
    items: Any,
    source: Backbone,
    target: Backbone,
    *,
    method: str = "sparse",
    anchors: int | Sequence[str] | None = None,
    known: Sequence[Pair] = (),
    num_tokens: int | None = None,
    data: Task | Sequence[Task] | None = None,
    texts: Texts | None = None,
    teacher: Teacher = "labels",
    init: SoftPrompt | None = None,
    start: SoftPrompt | None = None,
    recipe: Recipe | None = None,
    callback: Callback | None = None,
    **parameters: Any,
) -> Any:
    """Vectors or prompts of one model on another.

    A map takes each row from one embedding space to the other. By default, `sparse` writes a row as a sum of few token
    embeddings of the source and makes the same sum of the target's. The others are linear; for vectors, which are
    differences, they leave their offset out, so that the port of `tuned - init` is the difference of their ports. They
    are fitted after both models' embeddings are brought to the same scale, and a ported row is as large among the
    target's embeddings as it was among the source's (see `Anchors.affine`).

    Args:
        items: a `TaskPromptVector` or `SoftPrompt` of the source model, or a list of either kind.
        source: the model that they belong to.
        target: the model to port to.
        method: name of a registered map: `sparse`, `procrustes`, `ridge`, `relative`, `projector`, `copy`, or that of a
            plugin.
        anchors: what the map is fitted on: by default all tokens that both vocabularies have; a number for the first so
            many; or texts that both models can read.
        known: for `projector`, pairs of something of the source and its counterpart on the target, or a `Task` that it
            has to do there. All are vectors if `items` are, else prompts.
        num_tokens: P on the target; rows are repeated or left out at the end, as in `SoftPrompt.from_text`. By default
            as many as there are.
        data: a task, or one for each item: the ported prompts then train on its training rows.
        texts: unlabelled rows to train on in place of those, as `tpv.predict` takes them; with `teacher="source"`.
        teacher: what rows teach: their `labels`, or the label probabilities that the `source` model gives them under
            the old prompt.
        init: of the source, what vectors are added to for `teacher="source"`; by default the initialization that they
            were trained from, or a random one for a portable vector.
        start: of the target, what vectors are added to for training; by default a random initialization.
        recipe: how to train; by default what suits the number of rows (`tpv.training.recipe.few_rows`).
        callback: called with a `Progress` after every training step.
        parameters: of the map, such as `alpha=1.0` for `ridge`.

    Returns:
        Of the kind and number of `items`, bound to the target. Terms stay; each component's `port` says where it came
        from, and what it trained on afterwards.

    Raises:
        TpvError: items of mixed kinds, models without shared tokens, more tokens than the target can read, an unknown
            map or parameter, or options that do not go together.
        IncompatibleError: an item, a pair, `init` or `start` of another model.
    """
    single = isinstance(items, SoftPrompt | TaskPromptVector)
    mine = _checked([items] if single else items, source.identity)
    length = _length(target, mine[0].num_tokens if num_tokens is None else num_tokens)
    lessons = lessons_of(data, texts, teacher, recipe, len(mine))
    base = _start(target, start, length, recipe)
    entry = register.port[method]
    values = entry.checked(parameters)
    fitted = anchors_of(source, target, anchors) if entry.about.get("tokens", True) else _everything(source, target)
    if entry.about.get("known"):
        mapping = entry.thing(fitted, _known(known, mine[0], source, target, base), **values)
    elif known:
        raise TpvError(f"map {method!r} does not learn from known tasks", fix="drop them, or use method='projector'")
    else:
        mapping = entry.thing(fitted, **values)
    count = len(fitted) if entry.about.get("tokens", True) else 0
    record = _Ported(target.identity, method, to_jsonable_python(values), count)
    moved = [_moved(mapping, item, length, target.identity) for item in mine]
    if lessons is None:
        found = [record.of(item, tensor) for item, tensor in zip(mine, moved, strict=True)]
        return found[0] if single else found

    def teach() -> tuple[Backbone, list[SoftPrompt]]:
        return source, [_on_source(item, source, init) for item in mine]

    vectors = isinstance(mine[0], TaskPromptVector)
    starts = [
        base.tuned_to(base.tensor + tensor, "ported") if vectors else record.of(item, tensor)
        for item, tensor in zip(mine, moved, strict=True)
    ]
    tuned = adapted(target, starts, lessons, teach, callback)
    found = [
        record.of(item, tensor - base.tensor if vectors else tensor, after, base.init)
        for item, (tensor, after) in zip(mine, tuned, strict=True)
    ]
    return found[0] if single else found


class _Ported:
    """Makes objects of ported values, with the record of how they were ported."""

    def __init__(self, model: ModelIdentity, method: str, parameters: dict[str, Any], anchors: int) -> None:
        self._model = model
        self._how: dict[str, Any] = {"method": method, "parameters": parameters, "anchors": anchors}

    def of(self, item: Any, tensor: Tensor, after: Adaptation | None = None, init: Init | None = None) -> Any:
        """A vector or prompt like `item`, of these values [P, H] on the target.

        Args:
            after: what the values were trained on after they were ported.
            init: what a vector trained from then.
        """
        components = tuple(self._component(part, item.model, tensor, after, init) for part in item.components)
        if isinstance(item, TaskPromptVector):
            return TaskPromptVector(tensor, self._model, components)
        here = Init(
            kind="ported",
            detail=f"{item.init}, from {item.model.name} by {self._how['method']}",
            parameters=self._how
            | {"model": item.model.fingerprint, "init": item.init.model_dump(mode="json"), "tokens": len(tensor)},
        )
        made = SoftPrompt(tensor, self._model, here, components)
        if after is not None and not components:  # an untuned prompt, of which the rows made a tuned one
            return made.tuned_to(tensor, after.task, after.data)
        return made

    def _component(
        self, part: Component, model: ModelIdentity, tensor: Tensor, after: Adaptation | None, init: Init | None
    ) -> Component:
        record = Port(**self._how, model=model, of=part.model_copy(update={"coefficient": 1.0}), adapted=after)
        own = tensor.detach().to("cpu", torch.float32).contiguous()
        merged = part.merge is not None
        return part.model_copy(
            update={
                "origin": content_hash(own, {"port": record.model_dump(mode="json")}),
                "init": None if merged or after is None else init,
                "training": part.training if after is None else None,
                "port": record,
            }
        )


def _checked(items: Any, model: ModelIdentity) -> list[Any]:
    """Items of one kind, shape and model.

    Raises:
        TpvError: none, or of mixed kinds. IncompatibleError: of another model, or of unlike shapes.
    """
    found = list(items) if isinstance(items, Sequence) and not isinstance(items, str) else [items]
    kinds = {type(item) for item in found}
    if len(kinds) != 1 or not kinds <= {SoftPrompt, TaskPromptVector}:
        raise TpvError(
            "what to port",
            expected="vectors, or prompts",
            got=", ".join(sorted(kind.__name__ for kind in kinds)) or "nothing",
        )
    for item in found:
        _of_model(item, model, "what to port")
        found[0].check_compatible(item)
    return found


def _of_model(item: SoftPrompt | TaskPromptVector, model: ModelIdentity, what: str) -> None:
    if item.model.fingerprint != model.fingerprint:
        raise IncompatibleError(
            f"{what} belongs to another model", expected=model, got=item.model, fix="name the model it was trained on"
        )


def _length(target: Backbone, wanted: int) -> int:
    """P on the target, if the target can read as many rows and a text."""
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        raise TpvError("num_tokens", expected="a whole number of at least 1", got=f"{wanted!r:.40}")
    most = target.most_positions
    if most is not None and wanted >= most:
        raise TpvError(
            f"a prompt of {wanted} tokens does not fit {target.identity.name}",
            expected=f"at most {most - 1} tokens before a text",
            got=wanted,
            fix="port to fewer tokens with num_tokens (--tokens)",
        )
    return wanted


def _everything(source: Backbone, target: Backbone) -> Anchors:
    """All embeddings of both models, for a map that needs no shared tokens."""
    return Anchors(source.embeddings().float(), target.embeddings().float())


def _start(target: Backbone, given: SoftPrompt | None, length: int, recipe: Recipe | None) -> SoftPrompt:
    """What ported vectors are added to on the target."""
    if given is None:
        return SoftPrompt.sample(target, length, seed=0 if recipe is None else recipe.seed)
    _of_model(given, target.identity, "start")
    if given.num_tokens != length:
        raise IncompatibleError("start", expected=f"{length} tokens", got=given.num_tokens)
    return given


def _known(
    pairs: Sequence[Pair], like: SoftPrompt | TaskPromptVector, source: Backbone, target: Backbone, base: SoftPrompt
) -> Any:
    """The pairs that a projector learns from."""
    from tpv.porting.projector import Known

    if not pairs:
        raise TpvError("a projector", expected="pairs of what is known on both models, as known=", got="none")
    ours, theirs = [], []
    for one, other in pairs:
        for item, backbone in ((one, source), (other, target)):
            if isinstance(item, Task) and backbone is target:
                continue
            if type(item) is not type(like):
                raise TpvError("known pairs", expected=type(like).__name__, got=type(item).__name__)
            _of_model(item, backbone.identity, "half of a known pair")
        if not isinstance(other, Task) and one.num_tokens != other.num_tokens:
            raise IncompatibleError("a known pair", expected=f"{one.num_tokens} tokens", got=other.num_tokens)
        ours.append(one.tensor)
        theirs.append(other if isinstance(other, Task) else other.tensor)
    vectors = isinstance(like, TaskPromptVector)
    if vectors and any(isinstance(other, Task) for other in theirs) and any(len(o) != base.num_tokens for o in ours):
        raise IncompatibleError("known vectors", expected=f"{base.num_tokens} tokens, as start", got="others")
    return Known(ours, theirs, base.tensor if vectors else None, target)


def _moved(mapping: Any, item: SoftPrompt | TaskPromptVector, length: int, model: ModelIdentity) -> Tensor:
    """The values of an item on the target, [P, H]."""
    rows = item.tensor
    if not hasattr(mapping, "prompt") or not hasattr(mapping, "vector"):
        got = type(mapping).__name__
        raise TpvError("return value of a map", expected="methods prompt and vector, as of Affine", got=got)
    moved = mapping.vector(rows) if isinstance(item, TaskPromptVector) else mapping.prompt(rows)
    if not isinstance(moved, Tensor) or moved.shape != (len(rows), model.hidden_size):
        raise TpvError(
            "return value of a map",
            expected=f"a tensor {[len(rows), model.hidden_size]}",
            got=list(moved.shape) if isinstance(moved, Tensor) else type(moved).__name__,
        )
    return moved[torch.arange(length) % len(rows)]


def _on_source(item: SoftPrompt | TaskPromptVector, source: Backbone, init: SoftPrompt | None) -> SoftPrompt:
    """The old prompt."""
    if isinstance(item, SoftPrompt):
        return item
    if init is not None:
        _of_model(init, source.identity, "init")
        return init + item
    return (home_of(source, item) or SoftPrompt.sample(source, item.num_tokens, seed=0)) + item
