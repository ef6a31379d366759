"""What is served under a name at a moment: a prompt with all that decides its answers. It never changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tpv.errors import DamagedFileError
from tpv.evaluation import MAX_INPUT_LENGTH
from tpv.evaluation.bank import SharedPrompt
from tpv.outputs.ranking import Calibrator
from tpv.prompts import storage
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.tasks import Task, TaskSpec

KEY, SEAL = "serving", "serving_sha256"  # metadata of a file that the server wrote
Item = SoftPrompt | TaskPromptVector


class Use(BaseModel):
    """How a prompt is used; a file that the server wrote carries it beside the prompt.

    Attributes:
        task: its template, cue and label words; a request can name another one.
        calibrator: of its probabilities.
        max_input_length: texts are truncated to this many tokens.
        expression: what the prompt was calculated from, as it was written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    task: TaskSpec | None = None
    calibrator: Calibrator | None = None
    max_input_length: Annotated[int, Field(ge=1, lt=2**31)] = MAX_INPUT_LENGTH
    expression: str | None = None


@dataclass(frozen=True, eq=False)
class Version:
    """A prompt as it answers requests.

    Attributes:
        name: of the file it comes from; empty for an expression in a request.
        vector: what the file holds, where that is a vector; the prompt is then the vector on an initialization.
        scores: how it did, where that is written down.
        fixed: whether it belongs to something that the server does not write, such as a tuned folder.
    """

    name: str
    prompt: SoftPrompt
    use: Use
    vector: TaskPromptVector | None = None
    scores: Sequence[Mapping[str, Any]] = ()
    fixed: bool = False

    @property
    def item(self) -> Item:
        """What its name stands for in an expression."""
        return self.prompt if self.vector is None else self.vector

    @property
    def digest(self) -> str:
        """Of the prompt, see `PromptMatrix.digest`."""
        return self.prompt.digest

    @cached_property
    def version(self) -> str:
        """sha256 of all that decides its answers."""
        use = self.use.model_dump_json(exclude={"expression"})
        return hashlib.sha256(f"{self.digest} {use}".encode()).hexdigest()

    @cached_property
    def reader(self) -> SharedPrompt:
        """Its values, as a pass reads them."""
        return SharedPrompt(self.prompt.tensor)

    @cached_property
    def task(self) -> Task | None:
        """Its task, without rows."""
        return None if self.use.task is None else Task(self.use.task, {})

    def about(self) -> dict[str, Any]:
        """What there is to know of it, JSON-ready."""
        spec, item = self.use.task, self.item
        merged = any(part.merge is not None for part in item.components)
        return {
            "name": self.name,
            "kind": "prompt" if self.vector is None else "vector",
            "digest": self.digest,
            "version": self.version,
            "vector_digest": None if self.vector is None else self.vector.digest,
            "num_tokens": self.prompt.num_tokens,
            "init": str(self.prompt.init),
            "terms": None if merged else item.terms,
            "made_of": item.expression,
            "expression": self.use.expression,
            "task": None if spec is None else spec.name,
            "output": None if spec is None else spec.output,
            "fields": [] if spec is None else list(spec.fields),
            "labels": [] if spec is None else list(spec.labels),
            "calibrated": self.use.calibrator is not None,
            "max_input_length": self.use.max_input_length,
            "scores": [dict(score) for score in self.scores],
            "fixed": self.fixed,
        }


def file_of(item: Item, use: Use) -> bytes:
    """A prompt or vector file that says how it is used; tpv reads it as any other."""
    text = use.model_dump_json(exclude_defaults=True)
    return storage.file_bytes("tensor", item, {"format": storage.FORMAT, KEY: text, SEAL: _seal(text)})


def use_of(metadata: Mapping[str, Any], called: object) -> Use:
    """How a file says it is used; files that no server wrote say nothing.

    Raises:
        DamagedFileError: it does not read.
    """
    text = metadata.get(KEY)
    if text is None:
        return Use()
    try:
        if _seal(text) != metadata.get(SEAL):
            raise ValueError("it does not match its hash")
        return Use.model_validate(json.loads(text))
    except (ValidationError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFileError(f"{called} is damaged: how it is used cannot be read", got=str(error)[:300]) from None


def _seal(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
