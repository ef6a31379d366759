"""Generate text after one prompt, or after several at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from tpv.errors import TpvError
from tpv.evaluation import MAX_INPUT_LENGTH
from tpv.evaluation.answers import generate_rows
from tpv.evaluation.bank import SharedPrompt, check_bank
from tpv.evaluation.encode import encode_texts
from tpv.evaluation.predict import rendered
from tpv.models import Backbone
from tpv.models.generation import Decoding
from tpv.prompts.algebra import SoftPrompt
from tpv.tasks import Task


def generate(
    backbone: Backbone,
    task: Task,
    prompts: SoftPrompt | Sequence[SoftPrompt] | Mapping[str, SoftPrompt],
    texts: Sequence[str] | Sequence[Mapping[str, object]],
    *,
    reads: Sequence[str] | Sequence[int] | None = None,
    max_new_tokens: int | None = None,
    num_beams: int = 1,
    do_sample: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
    max_input_length: int = MAX_INPUT_LENGTH,
    advance: Callable[[int], object] | None = None,
    tell: Callable[[str], object] | None = None,
) -> pa.Table:
    """What the model writes after a prompt and each text; rows that read different prompts are generated together.

    Greedy decoding and beam search give, token by token, what `transformers`' `generate()` gives for one row at a time.

    Returns:
        A table with a row per text: `source`, `generated`; of several prompts also `prompt`, the name or position of
        the prompt, each text after every prompt (prompt by prompt) unless `reads` says which.

    Args:
        task: gives the template of rows, and the cue that a decoder-only model reads before it answers.
        prompts: a prompt; or several of one shape, in a sequence or by name.
        texts: whole inputs, read as they are; or rows, mappings of the task's fields, which go through its template.
        reads: the prompt that each text is read after, by name or position.
        max_new_tokens: at most so many tokens; by default the task's `max_target_length`.
        num_beams: 1 is greedy decoding, more is beam search.
        do_sample: draw each token from the model's distribution at this `temperature`.
        seed: of the draws, for the whole call.
        advance: called with the number of rows done, for a progress bar.
        tell: called with pieces of text as they come, where there is one text and one prompt.

    Raises:
        TpvError: no texts, an empty text, a prompt of another model, a number that does not fit.
    """
    if not isinstance(task, Task):
        raise TpvError("task to generate for", expected="a Task", got=type(task).__name__)
    named = _named(prompts)
    bank = check_bank(backbone, list(named.values()))
    whole = rendered(task, texts)
    most = task.spec.max_target_length if max_new_tokens is None else max_new_tokens
    decoding = Decoding(most, num_beams, do_sample, temperature, seed)
    sources = encode_texts(backbone, whole, task, max_input_length)
    index = _index(list(named), reads, len(whole))
    repeated = len(index) // len(whole)
    readers = [SharedPrompt(tensor) for tensor in bank]
    found = generate_rows(backbone, readers, index, sources * repeated, decoding, advance, tell)
    columns = {"source": whole * repeated, "generated": pa.array(found, pa.string())}
    if not isinstance(prompts, SoftPrompt):
        names = list(named)
        columns = {"prompt": [names[k] for k in index], **columns}
    return pa.table(columns).replace_schema_metadata({"task": task.name})


def _named(prompts: SoftPrompt | Sequence[SoftPrompt] | Mapping[str, SoftPrompt]) -> dict[str, SoftPrompt]:
    """The prompts by name; those of a sequence by position."""
    if isinstance(prompts, SoftPrompt):
        return {"0": prompts}
    if isinstance(prompts, Mapping):
        found = {str(name): prompt for name, prompt in prompts.items()}
    else:
        found = {str(place): prompt for place, prompt in enumerate(prompts)}
    if not found:
        raise TpvError("prompts to generate after", expected="at least one", got="none")
    return found


def _index(names: Sequence[str], reads: Sequence[str] | Sequence[int] | None, texts: int) -> list[int]:
    """The prompt of each row: as asked, or every text after every prompt."""
    if reads is None:
        return [k for k in range(len(names)) for _ in range(texts)]
    known = {name: place for place, name in enumerate(names)}
    index = [known.get(str(name), -1) for name in reads]
    if len(index) != texts or -1 in index:
        got = f"{len(index)} names" if len(index) != texts else repr(reads[index.index(-1)])
        raise TpvError("reads", expected=f"the name of a prompt for each of {texts} texts: {', '.join(names)}", got=got)
    return index
