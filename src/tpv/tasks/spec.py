"""What a task's data file says: the pydantic model behind `tasks/data/**.toml` and a user's own."""

import math
import re
import string
import tomllib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from tpv.errors import TpvError, did_you_mean
from tpv.files import regular
from tpv.registry import register

Style = Literal["text", "instruct"]
# known without loading the registries
METRICS = ("exact_match", "f1", "macro_f1", "pearson", "spearman")
TEXT_METRICS = ("exact_match", "token_f1", "rouge1", "rouge2", "rouge_l", "bleu", "chrf", "final_answer")
OUTPUTS = ("label", "number", "text")
MAX_TARGET_LENGTH = 128  # tokens that a gold text is truncated to
CORRELATIONS = ("pearson", "spearman")
Rows = Annotated[int, Field(ge=0)]


class GeneratedSource(BaseModel):
    """Rows made in code by `tpv.mini`.

    Attributes:
        kind: `generated`.
        generator: a generator of `tpv.mini`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["generated"]
    generator: str


class FileSource(BaseModel):
    """Rows read from local files; a relative path is taken from the task file's own folder.

    Attributes:
        kind: `files`.
        train: file with the training rows: `.csv`, `.tsv`, `.jsonl`, `.jsonl.gz`, `.json` or `.parquet`.
        validation: file with the validation rows; by default tpv holds out a tenth of the training rows.
        test: file with the test rows; by default tpv holds out a tenth of the training rows.
        label_column: column with the labels, as ids or words.
        target_column: column with the text to write, for text tasks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["files"]
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    label_column: str = "label"
    target_column: str = "target"


class LocalSource(BaseModel):
    """Rows that are on no hub: read from a folder of local copies (`TPV_DATA_DIR`), `<task>/{train,validation,test}`.

    Attributes:
        kind: `local`.
        origin: where the rows come from, for people.
        label_column: column with the labels, as ids or words.
        target_column: column with the text to write, for text tasks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["local"]
    origin: str = ""
    label_column: str = "label"
    target_column: str = "target"


class HubSource(BaseModel):
    """Rows of a data set on the Hugging Face hub, or of a local copy of it in the same columns.

    A label of -1 says "no gold label" there: such rows are dropped on loading.

    Attributes:
        kind: `hub`.
        path: the data set, `owner/name`, or a local folder in the Hub's layout.
        name: the data set's configuration, where it has several.
        revision: branch, tag or commit of the data set.
        columns: the Hub's column for a template field, where the names differ.
        optional: template fields whose column a local copy may lack; they are then empty.
        label_column: column with the labels.
        target_column: column with the text to write, or with a list of right answers, for text tasks; a dot goes into a
            column of objects, as in `answers.text`.
        answers_column: column with a list of further right answers, for text tasks.
        joined: the text between the items of a field whose column holds a list of texts, by field.
        label_values: the Hub's words for the labels where they differ from the label words, in id order.
        splits: the Hub's name for each labelled split.
        authors_validation: the Hub's split that the paper's authors validate on instead; they test on the one that is
            called validation here.
        sizes: rows of the Hub's splits, so that a plan can count steps without loading them.
        unlabelled: how many of those rows have no gold label.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["hub"]
    path: Annotated[str, Field(min_length=1)]
    name: str | None = None
    revision: str | None = None
    columns: Mapping[str, str] = {}
    optional: tuple[str, ...] = ()
    label_column: str = "label"
    target_column: str = "target"
    answers_column: str | None = None
    joined: Mapping[str, str] = {}
    label_values: tuple[str, ...] = ()
    splits: Annotated[Mapping[Literal["train", "validation", "test"], str], Field(min_length=1)]
    authors_validation: str | None = None
    sizes: Mapping[str, Rows] = {}
    unlabelled: Mapping[str, Rows] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        named = {*self.splits.values(), *filter(None, [self.authors_validation])}
        if self.sizes and set(self.sizes) != named:
            raise ValueError(f"sizes are of {sorted(self.sizes)}, the splits are {sorted(named)}")
        if any(rows > self.sizes.get(split, 0) for split, rows in self.unlabelled.items()):
            raise ValueError(f"more unlabelled rows than rows: {dict(self.unlabelled)} of {dict(self.sizes)}")
        return self


class TaskSpec(BaseModel):
    """A task without its rows.

    Attributes:
        name: what the task is called, `family/name` or any other.
        family: a group of tasks, for `tpv tasks`.
        role: whether the paper uses the task as a source or as a target.
        fields: the columns that make the input, in the order the template names them.
        template: the input text, each field in braces: `"premise: {premise} hypothesis: {hypothesis}"`;
            `{{` and `}}` stand for braces.
        instruct: the input text of style `instruct`: an instruction that names the label words, then the fields.
        cue: what a decoder-only model reads between the input and its answer; never truncated, may be empty.
        labels: the label words; a label id is an index into them. A text task has none.
        splits: `given` (the source's own splits, what is missing held out of the training rows), or
            `paper` (appendix A of the paper, see `tpv.tasks.local.paper_splits`).
        metric: the score that the task is usually reported by; the command line prints it in bold.
        output: the kind of answer: `label`; `number`, where the label words are ascending numbers and a row's label is
            the word nearest to its own number; or `text`. By default `number` where the metric is a correlation, and
            `label` elsewhere.
        max_target_length: gold texts are truncated to this many tokens, end-of-sequence included.
        no_answer: for text tasks, the word for an answer that is empty in the data; without one, such rows are refused.
        positive: id of the positive class of a binary task.
        source: where the rows come from; see below.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[str, Field(min_length=1, max_length=200)]
    family: str = "other"
    role: Literal["source", "target", "other"] = "other"
    fields: Annotated[tuple[str, ...], Field(min_length=1)]
    template: str
    instruct: str | None = None
    cue: str = "label:"
    output: str = "label"
    labels: Annotated[tuple[str, ...], Field(validate_default=True)] = ()
    splits: Literal["given", "paper"] = "given"
    metric: str = "exact_match"
    positive: int = 1
    max_target_length: Annotated[int, Field(ge=2)] = MAX_TARGET_LENGTH
    no_answer: Annotated[str, Field(min_length=1)] | None = None
    source: Annotated[GeneratedSource | FileSource | LocalSource | HubSource, Field(discriminator="kind")]

    @model_validator(mode="before")
    @classmethod
    def _of_numbers(cls, values: Any) -> Any:
        """Task files that name a correlation and no kind of output are of numbers."""
        if isinstance(values, dict) and values.get("metric") in CORRELATIONS and "output" not in values:
            return values | {"output": "number"}
        return values

    @field_validator("labels")
    @classmethod
    def _enough(cls, labels: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if len(labels) < 2 and info.data.get("output") != "text":
            raise ValueError(f"expected at least two label words, got {list(labels)}")
        return labels

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for template in (self.template,) if self.instruct is None else (self.template, self.instruct):
            used = set(template_fields(template))
            if used != set(self.fields):
                raise ValueError(f"template {template!r} names {sorted(used)}, fields are {sorted(self.fields)}")
        if self.output == "text":
            self._is_text()
        if any(not word.strip() or word != word.strip() for word in self.labels):
            raise ValueError(f"label words must not be empty or padded with spaces: {list(self.labels)}")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"label words repeat: {list(self.labels)}")
        if self.metric == "f1" and len(self.labels) != 2:
            raise ValueError(f"metric 'f1' is for two labels, there are {len(self.labels)}")
        for known, name, registry in (
            (METRICS + TEXT_METRICS, self.metric, register.metric),
            (OUTPUTS, self.output, register.output),
        ):
            if name not in known and name not in registry:  # the registries bring scikit-learn and torch
                names = [*dict.fromkeys([*known, *registry.names()])]
                raise ValueError(f"unknown {registry.sort} {name!r}, {did_you_mean(name, names)}")
        if self.output == "number" and not _ascending(self.labels):
            raise ValueError(f"output 'number' needs label words that are ascending numbers: {list(self.labels)}")
        if self.metric in CORRELATIONS and self.output != "number":
            raise ValueError(f"metric {self.metric!r} needs output 'number', is {self.output!r}")
        if self.output != "text" and not 0 <= self.positive < len(self.labels):
            raise ValueError(f"positive must be a label id below {len(self.labels)}, is {self.positive}")
        if isinstance(self.source, HubSource):
            self._fits(self.source)
        return self

    @property
    def numbers(self) -> tuple[float, ...] | None:
        """The label words as numbers where that is what they are, None elsewhere."""
        return tuple(map(float, self.labels)) if self.output == "number" else None

    def _is_text(self) -> None:
        if self.labels:
            raise ValueError(f"output 'text' has no labels: {list(self.labels)}")
        if self.metric in ("f1", "macro_f1", *CORRELATIONS):
            raise ValueError(f"metric {self.metric!r} is of labels; of text there are {', '.join(TEXT_METRICS)}")

    def _fits(self, source: HubSource) -> None:
        strange = {*source.columns, *source.optional, *source.joined} - set(self.fields)
        if strange:
            raise ValueError(f"columns, optional and joined name {sorted(strange)}, fields are {sorted(self.fields)}")
        if source.label_values and len(set(source.label_values)) != len(self.labels):
            raise ValueError(f"label_values must be {len(self.labels)} different ones: {list(source.label_values)}")
        if self.splits == "paper" and not ("train" in source.splits and {"validation", "test"} & set(source.splits)):
            raise ValueError(f"the splits of the paper need train and validation or test: {dict(source.splits)}")
        if source.authors_validation and not (self.splits == "paper" and {"train", "validation"} <= set(source.splits)):
            raise ValueError("authors_validation is for the splits of the paper with a train and a validation split")


def _ascending(words: tuple[str, ...]) -> bool:
    """Whether words are finite numbers, each larger than the one before."""
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return False
    return all(map(math.isfinite, numbers)) and all(a < b for a, b in pairwise(numbers))


def template_fields(template: str) -> list[str]:
    """The fields a template names, in order, each once.

    Raises:
        ValueError: not a format string, or more than plain `{field}`s in it.
    """
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"template {template!r} is not a format string: {error}") from None
    if any(spec or conversion for _, _, spec, conversion in pieces):
        raise ValueError(f"template {template!r} may hold plain {{field}}s only, no format after ':' or '!'")
    return list(dict.fromkeys(name for _, name, _, _ in pieces if name is not None))


def styled(spec: TaskSpec, style: str) -> TaskSpec:
    """The task with the template of a style: `text`, or `instruct` where it has one.

    Raises:
        TpvError: unknown style, or a task without a template of that style.
    """
    if style not in get_args(Style):
        raise TpvError(f"unknown style {style!r} of a template", fix=did_you_mean(style, get_args(Style)))
    if style == "text":
        return spec
    if spec.instruct is None:
        raise TpvError(
            f"task {spec.name!r} has no template of style 'instruct'",
            expected="a hub task, or a task file with a line `instruct`",
            fix="use style 'text'",
        )
    return spec.model_copy(update={"template": spec.instruct})


def render(template: str, fields: Mapping[str, str]) -> str:
    """The template with each field put in; field names may hold anything but braces, `:` and `!`."""
    return "".join(
        literal + ("" if name is None else fields[name]) for literal, name, _, _ in string.Formatter().parse(template)
    )


def read_spec(path: Path) -> TaskSpec:
    """Read a task's data file.

    Raises:
        TpvError: unreadable file, bad TOML, or a key that does not fit; all mistakes in one message.
    """
    content = read_toml(path, "task file")
    content.pop("tuned", None)  # of a folder that `tpv tune` wrote, see `tpv.evaluation.tuned`
    return build_spec(content, where=f"task file {path}")


# the time that tomllib takes for a dotted key is the square of its length: x.x.x… of 40 kB takes it seconds
_PART = r"""(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+"""
LONG_KEY = re.compile(rf"(?:^[ \t]*+\[{{0,2}}|[{{,])[ \t]*+(?:{_PART}\.[ \t]*+){{100}}", re.MULTILINE)
MOST_TOML = 2**20  # bytes


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The values in a TOML file, with a byte order mark or without.

    Args:
        what: the file is, for messages.

    Raises:
        TpvError: unreadable, not TOML, or of a size that no such file has.
    """
    try:
        content = regular(path).read_bytes()
        if len(content) > MOST_TOML:
            raise TpvError(f"{what} {path} is too long", expected=f"at most {MOST_TOML} bytes", got=len(content))
        text = content.decode("utf-8-sig")
        if LONG_KEY.search(text):
            raise ValueError("a key of more than 100 parts")
        return tomllib.loads(text)
    except OSError as error:
        raise TpvError(f"{what} {path} cannot be read", got=error.strerror, fix="check the path") from None
    except (ValueError, RecursionError) as error:  # TOML with its line, UTF-8, or a NUL in the name
        raise TpvError(f"{what} {path} is not TOML", got=str(error)) from None


def build_spec(content: dict[str, Any], *, where: str) -> TaskSpec:
    """A `TaskSpec` from plain values, every mistake reported in one `TpvError`."""
    try:
        return TaskSpec.model_validate(content)
    except ValidationError as error:
        mistakes = [
            ": ".join(filter(None, (".".join(str(part) for part in item["loc"]), item["msg"])))
            for item in error.errors()
        ]
        raise TpvError(f"{where} does not describe a task", got="; ".join(mistakes)) from None
