"""The page of a repository of prompts and vectors: a model card made from what the files themselves say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from tpv import __version__
from tpv.errors import DamagedFileError, TpvError
from tpv.files import read_parquet
from tpv.outputs.scores import Scores, score_predictions
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.prompts.matrix import PromptMatrix
from tpv.prompts.provenance import Components, Init, ModelIdentity
from tpv.tasks import task_specs

LIBRARY = "tpv"
OWN_KEYS = ("base_model", "library_name", "tags", LIBRARY)  # in the front matter; everything else there is kept
LOADABLE = ("mini", "smollm2")  # models that every tpv knows by a name which is no hub name
Items = Mapping[str, PromptMatrix]


class CardScore(BaseModel):
    """One scoring as a card keeps it.

    Attributes:
        file: name of the prompt or vector in the repository.
        digest: of its content, so that a score does not outlive the file that it was measured on.
        start: for a vector, the initialization it was added to; empty for a prompt, which was scored as it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    digest: str
    start: str = ""
    task: str
    split: str
    n: int
    exact_match: float
    macro_f1: float | None
    f1: float | None = None
    invalid_rate: float | None
    majority: float

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What a later scoring replaces an earlier one by."""
        return self.file, self.task, self.split, self.start


_card_scores = TypeAdapter(list[CardScore])


class _ScoredIdentity(BaseModel):
    """What `scores_of` reads of the identity of a prompt that was scored."""

    model: ModelIdentity
    components: Components
    init: Init


class _Scored(BaseModel):
    """Which prompt a table of predictions is of."""

    digest: str
    identity: _ScoredIdentity


# --- scores ---------------------------------------------------------------------------------------
def read_scores(path: str | PathLike[str]) -> list[Scores]:
    """The scores of each prompt in a table that `tpv evaluate --predictions` wrote.

    Raises:
        TpvError: no such file, or one that does not say which prompts it scores.
        DamagedFileError: no Parquet file, or predictions that do not read.
    """
    try:
        table = read_parquet(Path(path))
        columns = table.column_names
    except OSError as error:
        raise TpvError(f"{path} cannot be read", got=error.strerror or str(error)) from None
    except (pa.ArrowException, ValueError) as error:
        raise DamagedFileError(f"{path} is damaged or no Parquet file", got=str(error)) from None
    about = dict(table.schema.metadata or {})
    if "prompt" not in columns or not {b"scored", b"split", b"task"} <= set(about):
        raise TpvError(
            f"{path} does not say which prompts it scores",
            expected="a file of `tpv evaluate --predictions`",
            fix="score the prompts again",
        )
    try:
        scored: dict[str, Any] = json.loads(about[b"scored"])
        result = []
        for prompt, who in scored.items():
            _Scored.model_validate(who)
            own = table.filter(pa.compute.equal(table["prompt"], prompt)).drop_columns(["prompt"])
            if len(set(own["example"].to_pylist())) != len(own):
                raise TpvError(f"{path} scores {prompt} twice", fix="score each prompt once")
            result.append(score_predictions(own.replace_schema_metadata(about | {b"scored": json.dumps(who).encode()})))
        return result
    except (KeyError, ValueError, TypeError, AttributeError, pa.ArrowException) as error:
        raise DamagedFileError(f"{path} is damaged: its predictions do not read", got=str(error)) from None


def scores_of(items: Items, scores: Iterable[Scores]) -> list[CardScore]:
    """Scores put to the files they were measured on, by content and never by name.

    A prompt's score belongs to the file that holds that prompt. A vector's belongs to the file whose trained vectors,
    coefficients included, are those of the prompt that was scored: it was that vector on some initialization.

    Raises:
        TpvError: scores that do not say what was scored, or that belong to none of the files.
    """
    rows: list[CardScore] = []
    seen = 0
    for score in scores:
        seen += 1
        about = {key.decode(): value.decode() for key, value in (score.predictions.schema.metadata or {}).items()}
        if "scored" not in about:
            raise TpvError("these scores do not say which prompt they are of", expected="scores of tpv.evaluate")
        who = json.loads(about["scored"])
        for file, item in items.items():
            exact = item.digest == who["digest"]
            moved = (
                isinstance(item, TaskPromptVector)
                and item.components
                and who["identity"]["model"]["fingerprint"] == item.model.fingerprint
                and who["identity"]["components"] == [part.model_dump(mode="json") for part in item.components]
            )
            if exact or moved:
                init = who["identity"]["init"]
                rows.append(
                    CardScore(
                        file=file,
                        digest=item.digest,
                        start="" if exact else _start(init),
                        task=about["task"],
                        split=about["split"],
                        n=score.n,
                        exact_match=score.exact_match,
                        macro_f1=score.macro_f1,
                        f1=score.positive_f1,
                        invalid_rate=score.invalid_rate,
                        majority=score.majority,
                    )
                )
    if seen and not rows:
        raise TpvError(
            "the scores belong to none of the files",
            expected="scores of these prompts, or of these vectors on an initialization",
            got=f"{seen} of others",
            fix="score what is pushed: `tpv evaluate FILE --predictions scores.parquet`",
        )
    return rows


def _start(init: Mapping[str, Any]) -> str:
    return str(Init.model_validate(init))


# --- the card of before ---------------------------------------------------------------------------
def read_card(content: str, called: str) -> tuple[dict[str, Any], list[CardScore]]:
    """What an earlier card of ours says that the files do not: front matter of others, and scores.

    Raises:
        TpvError: the card is somebody else's text, or its front matter does not read.
    """
    from huggingface_hub import ModelCard

    try:
        card = ModelCard(content, ignore_metadata_errors=True)
        data: dict[str, Any] = card.data.to_dict()
    except Exception as error:  # yaml's errors, and those of the hub's checks
        raise DamagedFileError(
            f"the front matter of {called} does not read",
            got=_one_line(str(error)),
            fix="mend it on the hub, or push to another repository",
        ) from None
    library = data.get("library_name")
    if library != LIBRARY and (library is not None or card.text.strip()):
        raise TpvError(f"{called} is a model card that tpv did not write", fix="push to another repository")
    own = data.get(LIBRARY)
    try:
        scores = _card_scores.validate_python(own.get("scores", []) if isinstance(own, dict) else [])
    except ValidationError as error:
        raise DamagedFileError(
            f"the scores in the front matter of {called} do not read",
            got=f"{error.error_count()} errors",
            fix="mend them on the hub",
        ) from None
    tags = data.get("tags")
    kept = {key: value for key, value in data.items() if isinstance(key, str) and key not in OWN_KEYS}
    return kept | {"tags": [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []}, scores


def still_true(items: Items, old: Iterable[CardScore], new: Iterable[CardScore]) -> list[CardScore]:
    """Scores of files that are as they were when scored; a later scoring replaces an earlier one."""
    by_place = {score.place: score for score in (*old, *new)}
    return [
        by_place[place]
        for place in sorted(by_place)
        if place[0] in items and items[place[0]].digest == by_place[place].digest
    ]


# --- the card -------------------------------------------------------------------------------------
def write_card(
    repo_id: str, items: Items, scores: Sequence[CardScore], hub_models: Sequence[str], kept: Mapping[str, Any]
) -> str:
    """The model card of a repository.

    Args:
        repo_id: `OWNER/NAME`.
        items: all that the repository holds, by name.
        scores: of them.
        hub_models: those of the items' models that the hub has; others are no base model.
        kept: front matter to keep, its tags included.
    """
    from huggingface_hub import ModelCardData

    kinds = {type(item) for item in items.values()}
    tags = ["prompt-tuning"]
    tags += ["soft-prompt"] * (SoftPrompt in kinds) + ["task-prompt-vector"] * (TaskPromptVector in kinds)
    tags += [tag for tag in kept.get("tags", ()) if tag not in tags]
    own: dict[str, Any] = {"version": __version__}
    if scores:
        own["scores"] = [score.model_dump(exclude_none=True) for score in scores]
    models = sorted(hub_models)
    data = ModelCardData(
        base_model=(models[0] if len(models) == 1 else models) or None, library_name=LIBRARY, tags=tags
    )
    for key, value in (dict(kept) | {"tags": tags, LIBRARY: own}).items():
        data[key] = value
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {escape(repo_id)}",
        "Soft prompts and task prompt vectors for a frozen language model, made with tpv "
        f"{escape(__version__)}. A *soft prompt* is P vectors of width H that are put before the text; a *task prompt "
        "vector* is what training added to the prompt it started from, and is added to a prompt to be used.",
        "## Files",
        _files(items),
        "## Models",
        _models(items),
        "## Sources",
        _sources(items),
    ]
    if scores:
        parts += ["## Scores", _scores(scores)]
    parts += ["## Use", _use(repo_id, items, hub_models), "## Limits", _limits(items)]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text that Markdown, also in a table, shows as it is: no link, no HTML, no second line."""
    plain = _one_line("".join(letter if letter.isprintable() else " " for letter in text))
    return re.sub(r"([\\`*_{}\[\]()<>#|~&$!@:]|(?<=www)\.)", r"\\\1", plain)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; every cell is escaped."""
    lines = [[escape(str(cell)) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(head), ["---"] * len(head), *lines])


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _files(items: Items) -> str:
    rows = []
    for name, item in items.items():
        if isinstance(item, SoftPrompt):
            kind, starts = "soft prompt", [str(item.init)]
        else:
            kind, starts = "task prompt vector", _unique(part.home or "a merge" for part in item.components)
        trained = item.expression if item.components else "nothing"
        rows.append(
            (
                f"{name}.safetensors",
                kind,
                trained,
                item.num_tokens,
                item.model.hidden_size,
                _short(item.model),
                "; ".join(starts),
            )
        )
    return _table(["file", "what", "trained on", "P", "H", "model", "initialization"], rows)


def _short(model: ModelIdentity) -> str:
    return f"{model.name} {model.fingerprint[:8]}"


def _models(items: Items) -> str:
    models = {(item.model.fingerprint, item.model.name): item.model for item in items.values()}
    table = _table(
        ["model", "architecture", "H", "fingerprint"],
        [(models[key].name, models[key].architecture, models[key].hidden_size, key[0]) for key in sorted(models)],
    )
    return f"{table}\n\nThe fingerprint is the sha256 of the input embeddings; it decides, the name does not."


def _sources(items: Items) -> str:
    rows = [
        (
            f"{name}.safetensors",
            part.name,
            f"{part.coefficient:+g}",
            part.home or "a merge",
            part.data[:12] or "unknown",
            part.origin[:12],
        )
        for name, item in items.items()
        for part in item.components
    ]
    if not rows:
        return "Nothing was trained: these are initializations."
    table = _table(["file", "task", "factor", "trained from", "training data", "training"], rows)
    return (
        f"{table}\n\nEach line is one training of one task; a file is the sum of its lines, each times its factor. "
        "*training data* and *training* are the beginnings of hashes: equal ones are the same rows, the same training."
    )


def _scores(scores: Sequence[CardScore]) -> str:
    rows = [
        (
            f"{score.file}.safetensors",
            score.start or "as it is",
            score.task,
            score.split,
            score.n,
            f"{score.exact_match:.3f}",
            *("" if value is None else f"{value:.3f}" for value in (score.f1, score.macro_f1, score.invalid_rate)),
            f"{score.majority:.3f}",
        )
        for score in scores
    ]
    head = ["file", "added to", "task", "split", "n", "exact match", "F1", "macro-F1", "invalid", "majority"]
    return (
        f"{_table(head, rows)}\n\nCalculated from stored predictions, one an example. *Exact match*: greedy decoding "
        "says exactly the label word. *Invalid*: it says no label word. *Majority*: what always saying the commonest "
        "label gets."
    )


def _use(repo_id: str, items: Items, hub_models: Sequence[str]) -> str:
    name = next((name for name, item in items.items() if item.components), next(iter(items)))
    item = items[name]
    model = item.model.name if item.model.name in (*LOADABLE, *hub_models) else "path/to/the/model"
    known = [part.task for part in item.components if part.task in task_specs()]
    task = known[0] if known else "the-task.toml"
    start = f"tpv.SoftPrompt.sample(backbone, num_tokens={item.num_tokens}, seed=1) + "
    prompt = f"{start if isinstance(item, TaskPromptVector) else ''}items[{json.dumps(name)}]"
    lines = [
        "```python",
        "import tpv",
        "from tpv.interop import repository",
        "",
        f"items = repository.pull({json.dumps(repo_id)})",
        f"backbone = tpv.load_backbone({json.dumps(model)})",
        f"task = tpv.load_task({json.dumps(task)})",
        f"prompt = {prompt}",
        'print(tpv.evaluate(backbone, task, prompt, split="test"))',
        'prompt.to_peft("adapter")  # and then peft.PeftModel.from_pretrained(model, "adapter")',
        "```",
        "",
        f"On the command line, `tpv pull {repo_id} --out FOLDER` writes the files.",
    ]
    return "\n".join(lines)


def _limits(items: Items) -> str:
    lines = [
        "A prompt or a vector works with the weights of its model only, which the fingerprint tells apart; tpv refuses "
        "any other.",
        "The model answers with the label words of the task it was trained on, and needs the task's template around "
        "the text.",
    ]
    if any(isinstance(item, TaskPromptVector) for item in items.values()):
        doubt = "A vector may do less, or nothing, on another initialization than its own, and in a sum with others: "
        lines.insert(1, f"{doubt}score it there before relying on it.")
    return "\n".join(f"- {line}" for line in lines)
