"""From a checked request to its answer: prompts, tasks, tokens, the engine, and back."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from tpv import metrics
from tpv.errors import TpvError
from tpv.evaluation.answers import blank_tokens
from tpv.evaluation.encode import check_texts, encode_examples
from tpv.evaluation.predict import rendered
from tpv.models import Backbone, Tokens
from tpv.models.generation import Decoding
from tpv.outputs.label import Answers, label_tokens
from tpv.prompts.algebra import TaskPromptVector, any_of_bytes, cosine_matrix
from tpv.serving.catalog import Catalog
from tpv.serving.engine import Engine, Scoring, Writing
from tpv.serving.keys import Caller
from tpv.serving.problems import Refusal
from tpv.serving.schemas import GenerateRequest, GivenTask, PredictRequest, PutRequest
from tpv.serving.settings import RequestLimits
from tpv.serving.versions import Item, Use, Version, use_of
from tpv.tasks import Example, Task, TaskSpec, labels_only

MOST_COMPARED = 100  # vectors in a table of cosines


@dataclass(frozen=True)
class Question:
    """The texts of a request under one of its prompts.

    Attributes:
        called: the prompt's name, or the expression.
    """

    called: str
    version: Version
    task: Task
    sources: Sequence[Tokens]

    def about(self) -> dict[str, Any]:
        """What an answer says of the prompt."""
        version = self.version
        return {"prompt": self.called, "digest": version.digest, "version": version.version, "task": self.task.name}


class Service:
    """Answers requests with the prompts of a catalog."""

    def __init__(self, backbone: Backbone, catalog: Catalog, engine: Engine, limits: RequestLimits) -> None:
        self.backbone, self.catalog, self.engine, self.limits = backbone, catalog, engine, limits
        self._words = lru_cache(1024)(self._words_of)
        self._expressions = lru_cache(256)(self._expression)

    # --- labels ---------------------------------------------------------------------------------------
    async def predict(self, caller: Caller, ask: PredictRequest) -> dict[str, Any]:
        """The labels of each text under each prompt, as `PredictResponse` has them.

        Raises:
            Refusal, TpvError: what is wrong with the request, or with the server's state.
        """
        with self.engine.room(caller.name, self._rows(ask)):
            questions = await self.engine.prepared(self._questions, ask, True)
            works = []
            for one in questions:
                group = Scoring(self._words(one.task.labels), one.version.prompt.num_tokens)
                works.append(self.engine.submit(caller.name, group, one.version.reader, one.sources))
        found = await self.engine.answers(works, ask.timeout)
        answers = zip(questions, found, strict=True)
        return {"results": [one.about() | {"predictions": await self._predictions(one, rows)} for one, rows in answers]}

    async def _predictions(self, one: Question, rows: Sequence[tuple[torch.Tensor, int]]) -> list[dict[str, Any]]:
        labels, words = one.task.labels, self._words(one.task.labels)
        calibrator = one.version.use.calibrator if one.task.spec == one.version.use.task else None
        log_probs = torch.stack([row for row, _ in rows])
        if not torch.isfinite(log_probs).all():
            raise TpvError(f"the model's scores on task {one.task.name!r} are not finite", fix="use precision fp32")
        way, context = calibrator.normalize if calibrator else "none", None
        if way == "context":
            blank = await self.engine.prepared(blank_tokens, self.backbone, one.task)
            context = await self.engine.without_text(one.version.reader, words, blank)
        greedy, lengths = torch.tensor([said for _, said in rows]), torch.tensor([len(word) for word in words])
        best, probabilities = Answers(log_probs, greedy, lengths, way, context, calibrator).ranked()
        columns = zip(best.tolist(), probabilities.tolist(), log_probs.tolist(), greedy.tolist(), strict=True)
        return [
            {
                "predicted": labels[place],
                "probability": sure[place],
                "said": None if said == metrics.INVALID else labels[said],
                "probabilities": dict(zip(labels, sure, strict=True)),
                "log_probs": dict(zip(labels, scores, strict=True)),
            }
            for place, sure, scores, said in columns
        ]

    # --- text -----------------------------------------------------------------------------------------
    async def generate(self, caller: Caller, ask: GenerateRequest) -> dict[str, Any]:
        """The text after each text under each prompt, as `GenerateResponse` has it; raises as `predict`."""
        with self.engine.room(caller.name, self._rows(ask)):
            questions = await self.engine.prepared(self._questions, ask, False)
            works = []
            for one in questions:
                group = Writing(
                    self._decoding(ask, one.task), one.version.prompt.num_tokens, object() if ask.do_sample else None
                )
                works.append(self.engine.submit(caller.name, group, one.version.reader, one.sources))
        found = await self.engine.answers(works, ask.timeout)
        answers = zip(questions, found, strict=True)
        return {"results": [one.about() | {"generated": rows} for one, rows in answers]}

    async def stream(self, caller: Caller, ask: GenerateRequest) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """Events and their data: `start` of each text, its pieces, `end` with the whole text; then `done`.

        The first event comes when the request is known to be good; raises as `predict`.
        """
        with self.engine.room(caller.name, self._rows(ask)):
            questions = await self.engine.prepared(self._questions, ask, False)
        if ask.num_beams > 1 or (ask.do_sample and sum(len(one.sources) for one in questions) > 1):
            raise Refusal(422, "stream", expected="num_beams 1, and one text to sample for", got="more")
        for place, one in enumerate(questions):
            group = Writing(self._decoding(ask, one.task), one.version.prompt.num_tokens)
            for row, source in enumerate(one.sources):
                where = {"result": place, "row": row}
                yield "start", where | one.about()
                text = ""
                async with aclosing(self.engine.written(caller.name, group, one.version.reader, source)) as pieces:
                    async for piece in pieces:
                        text += piece
                        yield "piece", where | {"text": piece}
                yield "end", where | {"generated": text.strip()}
        yield "done", {}

    def _decoding(self, ask: GenerateRequest, task: Task) -> Decoding:
        most = task.spec.max_target_length if ask.max_new_tokens is None else ask.max_new_tokens
        if most > self.limits.new_tokens:
            if ask.max_new_tokens is not None:
                raise Refusal(422, "max_new_tokens", expected=f"at most {self.limits.new_tokens}", got=most)
            most = self.limits.new_tokens
        return Decoding(most, ask.num_beams, ask.do_sample, ask.temperature, ask.seed)

    # --- both -----------------------------------------------------------------------------------------
    def _rows(self, ask: PredictRequest | GenerateRequest) -> int:
        """Rows that the model answers, if they are within the limits."""
        prompts, texts = len(ask.prompts) + len(ask.expressions), len(ask.given)
        if prompts > self.limits.prompts:
            raise Refusal(422, "prompts of a request", expected=f"at most {self.limits.prompts}", got=prompts)
        if prompts * texts > self.limits.rows:
            raise Refusal(
                413,
                "texts times prompts of a request",
                expected=f"at most {self.limits.rows}",
                got=prompts * texts,
                fix="send them in parts",
            )
        return prompts * texts

    def _questions(self, ask: PredictRequest | GenerateRequest, labels: bool) -> list[Question]:
        """The texts under each prompt, as tokens; runs where tokenizing is allowed."""
        own = self._spec(ask.task)
        versions = [
            (name, self.catalog.get(name, digest)) for name, digest in zip(ask.prompts, ask.digests, strict=True)
        ] + [(text, self._calculated(text, own)) for text in ask.expressions]
        encoded: dict[tuple[str, int], list[Tokens]] = {}
        found = []
        for called, version in versions:
            task = self._task(called, version, own, labels)
            key = (task.spec.model_dump_json(), version.use.max_input_length)
            if key not in encoded:
                encoded[key] = self._encoded(task, ask.given, version.use.max_input_length)
            found.append(Question(called, version, task, encoded[key]))
        return found

    def _task(self, called: str, version: Version, own: TaskSpec | None, labels: bool) -> Task:
        """The task that texts are read with."""
        task = version.task if own is None else Task(own, {})
        if task is None:
            if not labels:
                return labels_only(["a", "b"])  # texts are read as they are
            raise Refusal(
                422, f"prompt {called!r:.200} has no task", expected="task in the request", fix='"task": "sst2", say'
            )
        if labels and not task.labels:
            raise Refusal(422, f"task {task.name!r:.200}", expected="label words", got="a text task", fix="generate")
        if labels:
            self._words(task.labels)  # here, since the tokenizer is this thread's
        return task

    def _encoded(self, task: Task, given: Sequence[Any], length: int) -> list[Tokens]:
        whole = rendered(task, given)
        check_texts(whole)
        longest = max(map(len, whole))
        if longest > self.limits.characters:
            raise Refusal(413, "a text", expected=f"at most {self.limits.characters} characters", got=longest)
        rows = [Example("", text, "", 0, task.spec.cue) for text in whole]
        return encode_examples(self.backbone, rows, length)

    def _words_of(self, labels: tuple[str, ...]) -> tuple[Tokens, ...]:
        return tuple(label_tokens(self.backbone, labels_only(labels)))

    def _calculated(self, text: str, own: TaskSpec | None) -> Version:
        """The prompt of an expression in a request; a slider moves through many."""
        task = None if own is None else own.model_dump_json()
        return self._expressions(text, task, self.catalog.changes)

    def _expression(self, text: str, task: str | None, changes: int) -> Version:
        spec = None if task is None else TaskSpec.model_validate_json(task)
        return self.catalog.calculated(text, Use(task=spec))

    def _spec(self, task: str | GivenTask | None) -> TaskSpec | None:
        if task is None:
            return None
        return self.catalog.task(task) if isinstance(task, str) else task.spec()

    # --- the library ----------------------------------------------------------------------------------
    async def put(self, name: str, body: bytes, ask: PutRequest | None, task: str | None) -> tuple[Version, bool]:
        """Write an expression, or a file as it was uploaded; it is served when this returns.

        Args:
            body: the file, where `ask` is no expression.
            task: of the file.
        """

        def make() -> tuple[Item, Use]:
            if ask is None:
                item, metadata = any_of_bytes(body, "the uploaded file")
                use = use_of(metadata, "the uploaded file")
                return item, use if task is None else Use(task=self._spec(task))
            use = Use(task=self._spec(ask.task))
            if ask.max_input_length is not None:
                use = use.model_copy(update={"max_input_length": ask.max_input_length})
            version = self.catalog.calculated(ask.expression, use)
            return version.prompt, version.use

        def write() -> tuple[Version, bool]:
            version, new = self.catalog.put(name, make)
            if version.task is not None and version.task.labels:
                with suppress(TpvError):  # words that this tokenizer cannot tell apart are refused when they are used
                    self._words(version.task.labels)
            return version, new

        return await self.engine.prepared(write)

    async def delete(self, name: str) -> None:
        """Delete a prompt or a vector of the library."""
        await self.engine.prepared(self.catalog.delete, name)

    async def similarity(self, names: Sequence[str]) -> dict[str, Any]:
        """Cosines between vectors of the library: of those named, or of the first 100 of the commonest length."""
        return await self.engine.prepared(self._similarity, names)

    def _similarity(self, names: Sequence[str]) -> dict[str, Any]:
        if len(names) > MOST_COMPARED:
            raise Refusal(422, "names to compare", expected=f"at most {MOST_COMPARED}", got=len(names))
        if names:
            chosen = [self.catalog.get(name) for name in names]
        else:
            every = [version for version in self.catalog.versions if version.vector is not None]
            lengths = [version.prompt.num_tokens for version in every]
            common = max(lengths, key=lengths.count, default=0)
            chosen = [one for one in every if one.prompt.num_tokens == common and one.item.norm()][:MOST_COMPARED]
        vectors = [one.vector for one in chosen if isinstance(one.vector, TaskPromptVector)]
        if len(vectors) != len(chosen):
            raise Refusal(422, "names to compare", expected="vectors", got="a prompt among them")
        cosines = cosine_matrix(vectors).tolist() if vectors else []
        return {"names": [one.name for one in chosen], "cosines": cosines}


def event(name: str, data: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
