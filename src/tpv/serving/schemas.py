"""What requests and answers look like."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tpv.tasks import TaskSpec
from tpv.tasks.spec import MAX_TARGET_LENGTH, build_spec

MOST_LISTED = 100_000  # of anything in a list; the server's own limits are lower
Name = Annotated[str, Field(min_length=1, max_length=200)]
Words = Annotated[str, Field(min_length=1, max_length=2000)]
Digest = Annotated[str, Field(min_length=64, max_length=64, pattern="^[0-9a-f]{64}$")]
EXAMPLE: Any = {"expression": "init:7 + 0.8*(sst2 + yelp)", "task": "mini/sst2", "texts": ["sentence: a fine film"]}


class GivenTask(BaseModel):
    """A task that does not come with tpv: template and label words; see "Use your own data" in the docs."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Name = "own"
    fields: Annotated[tuple[Name, ...], Field(min_length=1, max_length=50)] = ("text",)
    template: Annotated[str, Field(max_length=20_000)] = "{text}"
    cue: Annotated[str, Field(max_length=2000)] = "label:"
    output: Literal["label", "number", "text"] = "label"
    labels: Annotated[tuple[Name, ...], Field(max_length=500)] = ()
    max_target_length: Annotated[int, Field(ge=2, le=4096)] = MAX_TARGET_LENGTH

    def spec(self) -> TaskSpec:
        """As tpv has it.

        Raises:
            TpvError: it does not fit together.
        """
        positive = {"positive": 0} if self.output == "text" else {}
        return build_spec(self.model_dump() | positive | {"source": {"kind": "files"}}, where="task of the request")


class _Texts(BaseModel):
    """Texts, and the prompts that they are read after.

    `texts` are whole inputs, read as they are; `rows` go through the task's template.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    prompt: Name | Annotated[list[Name], Field(min_length=1, max_length=MOST_LISTED)] | None = Field(
        None, description="Name of a prompt or a vector of the library, or several."
    )
    expression: Words | Annotated[list[Words], Field(min_length=1, max_length=MOST_LISTED)] | None = Field(
        None, description="In place of a prompt: an expression over the library, or several."
    )
    digest: Digest | Annotated[list[Digest], Field(min_length=1, max_length=MOST_LISTED)] | None = Field(
        None, description="Of each prompt: answer only if it is this version (409 otherwise)."
    )
    task: Name | GivenTask | None = Field(None, description="In place of the prompt's own task: a name, or a template.")
    texts: Annotated[list[str], Field(min_length=1, max_length=MOST_LISTED)] | None = None
    rows: Annotated[list[dict[str, str]], Field(min_length=1, max_length=MOST_LISTED)] | None = None
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(None, description="Seconds.")

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if self.prompt is None and self.expression is None:
            raise ValueError("give prompt or expression")
        if (self.texts is None) == (self.rows is None):
            raise ValueError("give either texts or rows")
        if self.digest is not None and (self.expression is not None or len(listed(self.digest)) != len(self.prompts)):
            raise ValueError("give as many digests as prompts, and no expression")
        return self

    @property
    def prompts(self) -> list[str]:
        return listed(self.prompt)

    @property
    def expressions(self) -> list[str]:
        return listed(self.expression)

    @property
    def digests(self) -> list[str | None]:
        return [*listed(self.digest)] if self.digest is not None else [None] * len(self.prompts)

    @property
    def given(self) -> list[str] | list[dict[str, str]]:
        """The texts or the rows."""
        return (self.texts if self.texts is not None else self.rows) or []


def listed(value: str | list[str] | None) -> list[str]:
    """One or several as a list."""
    return [] if value is None else [value] if isinstance(value, str) else value


class PredictRequest(_Texts):
    """Texts to label."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "sst2", "rows": [{"sentence": "a fine film"}]},
                {"prompt": ["sst2", "yelp"], "texts": ["sentence: a fine film"]},
                EXAMPLE,
            ]
        }
    )


class GenerateRequest(_Texts):
    """Texts to answer with text."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompt": "summaries", "texts": ["a long article"], "max_new_tokens": 40}]}
    )
    max_new_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = Field(
        None, description="By default the task's max_target_length."
    )
    num_beams: Annotated[int, Field(ge=1, le=16)] = 1
    do_sample: bool = False
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    stream: bool = Field(False, description="Answer with server-sent events, a piece of text each.")


class PutRequest(BaseModel):
    """A prompt to write to the library, as an expression over what is in it. It is calculated once, now."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"expression": "init:7 + 0.8*(sst2 + yelp) - 0.3*mnli", "task": "mini/sst2"}]},
    )
    expression: Words
    task: Name | GivenTask | None = Field(None, description="By default that of the vectors, where they have one task.")
    max_input_length: Annotated[int, Field(ge=1, le=100_000)] | None = None


class Prediction(BaseModel):
    """What is said to one text.

    Attributes:
        predicted: the likeliest label word.
        probability: of it, among the label words; calibrated where the prompt has a calibrator.
        said: what greedy decoding says; null where that is no label word.
        probabilities: of each label word.
        log_probs: log-probability of each label word, nats.
    """

    predicted: str
    probability: float
    said: str | None
    probabilities: dict[str, float]
    log_probs: dict[str, float]


class _Answer(BaseModel):
    """What one prompt answers.

    Attributes:
        prompt: its name, or the expression.
        digest: of the prompt that answered.
        version: of all that decided the answers.
    """

    prompt: str
    digest: str
    version: str
    task: str


class PredictAnswer(_Answer):
    """The labels under one prompt, a prediction for each text."""

    predictions: list[Prediction]


class GenerateAnswer(_Answer):
    """The texts under one prompt, one for each text of the request."""

    generated: list[str]


class PredictResponse(BaseModel):
    """An answer for each prompt of the request, in order: prompts, then expressions."""

    results: list[PredictAnswer]


class GenerateResponse(BaseModel):
    """An answer for each prompt of the request, in order: prompts, then expressions."""

    results: list[GenerateAnswer]


class PromptAbout(BaseModel):
    """What there is to know of a prompt or a vector.

    Attributes:
        kind: what its file holds; a vector is served on the initialization `init`.
        digest: of the prompt as it is served.
        version: sha256 of all that decides its answers; a request can pin it, or the digest.
        vector_digest: of a vector, its own.
        terms: coefficient of each task that went in; null where a merge did.
        made_of: what went in, in words.
        expression: what it was calculated from, where it was written as an expression.
        fixed: whether it belongs to a tuned folder or a run, which the server does not change.
    """

    name: str
    kind: Literal["prompt", "vector"]
    digest: str
    version: str
    vector_digest: str | None
    num_tokens: int
    init: str
    terms: dict[str, float] | None
    made_of: str
    expression: str | None
    task: str | None
    output: str | None
    fields: list[str]
    labels: list[str]
    calibrated: bool
    max_input_length: int
    scores: list[dict[str, Any]]
    fixed: bool


class PromptList(BaseModel):
    """Everything that is served.

    Attributes:
        left_out: files that are not, and why.
    """

    model: str
    fingerprint: str
    prompts: list[PromptAbout]
    left_out: dict[str, str]


class Cosines(BaseModel):
    """Cosines between vectors, [N, N]."""

    names: list[str]
    cosines: list[list[float]]


class ErrorBody(BaseModel):
    """What is wrong with a request, in one line."""

    status: int
    message: str


class ErrorAnswer(BaseModel):
    """Every answer that is not 2xx looks like this."""

    error: ErrorBody
