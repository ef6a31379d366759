"""The page of a repository of prompts and vectors: a model card made from what the files themselves say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from tpv import __version__, metrics
from tpv.errors import DamagedFileError, TpvError
from tpv.interop.scored import CardScore, Items, card_scores
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.prompts.provenance import ModelIdentity
from tpv.registry import register
from tpv.tasks import task_specs

LIBRARY = "tpv"
OWN_KEYS = ("base_model", "library_name", "tags", LIBRARY)  # in the front matter; everything else there is kept
SCORED = ("file", "added to", "task", "split", "n", "exact match")  # heads of the first columns of scores
LOADABLE = ("mini", "smollm2")  # models that every tpv knows by a name which is no hub name


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
        scores = card_scores.validate_python(own.get("scores", []) if isinstance(own, dict) else [])
    except ValidationError as error:
        raise DamagedFileError(
            f"the scores in the front matter of {called} do not read",
            got=f"{error.error_count()} errors",
            fix="mend them on the hub",
        ) from None
    tags = data.get("tags")
    kept = {key: value for key, value in data.items() if isinstance(key, str) and key not in OWN_KEYS}
    return kept | {"tags": [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []}, scores


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
        own["scores"] = [score.values() for score in scores]
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
    parts += ["## Use", _use(repo_id, items, hub_models), "## Limits", _limits(items, scores)]
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
    how = f", {model.quantization}" if model.quantization else ""
    return f"{model.name} {model.fingerprint[:8]}{how}"


def _models(items: Items) -> str:
    models = {(item.model.fingerprint, item.model.name): item.model for item in items.values()}
    few_bits = any(model.quantization for model in models.values())
    rows = [
        (one.name, one.architecture, *([one.quantization or "none"] if few_bits else []), one.hidden_size, key[0])
        for key, one in sorted(models.items(), key=lambda item: item[0])
    ]
    table = _table(["model", "architecture", *["quantization"] * few_bits, "H", "fingerprint"], rows)
    of = "the input embeddings" + " and the quantization" * few_bits
    return f"{table}\n\nThe fingerprint is the sha256 of {of}; it decides, the name does not."


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
    """A table of the scores on tasks of labels, one of those on tasks of text, and what their columns mean."""
    labels, texts = [score for score in scores if not score.text], [score for score in scores if score.text]
    parts, said = [], "Calculated from stored predictions, one an example."
    if labels:
        rows = [
            (*_scored(score), *map(_share, (score.f1, score.macro_f1, score.invalid_rate, score.majority)))
            for score in labels
        ]
        parts.append(_table([*SCORED, "F1", "macro-F1", "invalid", "majority"], rows))
        said += (
            " *Exact match*: greedy decoding says exactly the label word. *Invalid*: it says no label word. "
            "*Majority*: what always saying the commonest label gets."
        )
    if texts:
        every = {name for score in texts for name in score.text}
        names = [*(name for name in metrics.names() if name in every), *sorted(every - set(metrics.names()))]
        titles = [escape(metrics.title(name) if name in register.metric else name) for name in names]
        rows = [
            (*_scored(score), *(_share(score.text.get(name)) for name in names), _share(score.majority))
            for score in texts
        ]
        parts.append(_table([*SCORED, *titles, "majority"], rows))
        said += (
            f" Of text, exact match, {', '.join(titles)}: what greedy decoding writes beside the nearest gold text, as "
            "shares; exact match after SQuAD's normalization. *Majority*: what always writing the commonest gold text "
            "gets."
        )
    return "\n\n".join([*parts, said])


def _scored(score: CardScore) -> tuple[object, ...]:
    """The cells below `SCORED`."""
    start = score.start or "as it is"
    return f"{score.file}.safetensors", start, score.task, score.split, score.n, _share(score.exact_match)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


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


def _limits(items: Items, scores: Sequence[CardScore]) -> str:
    answers = "the label words or the text" if any(score.text for score in scores) else "the label words"
    lines = [
        "A prompt or a vector works with the weights of its model only, which the fingerprint tells apart; tpv refuses "
        "any other.",
        f"The model answers with {answers} of the task it was trained on, and needs the "
        "task's template around the text.",
    ]
    if any(isinstance(item, TaskPromptVector) for item in items.values()):
        doubt = "A vector may do less, or nothing, on another initialization than its own, and in a sum with others: "
        lines.insert(1, f"{doubt}score it there before relying on it.")
    return "\n".join(f"- {line}" for line in lines)
