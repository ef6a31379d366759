"""Label new texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import pyarrow as pa

from tpv.errors import TpvError
from tpv.evaluation import MAX_INPUT_LENGTH
from tpv.evaluation.answers import label_answers
from tpv.evaluation.bank import SharedPrompt, check_bank
from tpv.evaluation.encode import encode_texts
from tpv.evaluation.ensemble import Ensemble
from tpv.models import Backbone
from tpv.outputs.label import answer_columns, table_of
from tpv.outputs.ranking import Calibrator
from tpv.prompts.algebra import SoftPrompt
from tpv.tasks import Task


def predict(
    backbone: Backbone,
    task: Task,
    prompt: SoftPrompt | Ensemble,
    texts: Sequence[str] | Sequence[Mapping[str, object]],
    *,
    max_input_length: int = MAX_INPUT_LENGTH,
    normalize: str | None = None,
    calibrator: Calibrator | None = None,
    advance: Callable[[int], object] | None = None,
) -> pa.Table:
    """Label new texts.

    Returns:
        A table with a row per text: `source`, `predicted` (the likeliest of the task's label words), `probability` (of
        it, among them), `said` (what greedy decoding says, null where that is no label word) and `log_probs` (one per
        label word, nats, in the order of the schema metadata's `labels`).

    Args:
        task: gives the label words.
        prompt: a prompt, or an ensemble that `tpv.transfer` chose; greedy decoding says nothing for one of those.
        texts: whole inputs, read as they are; or rows, mappings of the task's fields, which go through its template.
        normalize: see `tpv.evaluate`.
        calibrator: makes the probabilities, see `tpv.calibrate`; without one they are a softmax over the label words.
        advance: called with the number of rows done, for a progress bar.

    Raises:
        TpvError: no texts, an empty text, a row without a field, or a prompt of another model.
    """
    if not isinstance(task, Task):
        raise TpvError(
            "task to predict",
            expected="a Task",
            got=type(task).__name__,
            fix="the order is predict(backbone, task, prompt, texts)",
        )
    whole = rendered(task, texts)
    if isinstance(prompt, Ensemble):
        sources = encode_texts(backbone, whole, task, max_input_length)
        said = prompt.answers(backbone, task, sources, calibrator, normalize)
        return table_of({"source": whole, **answer_columns(said, task)}, said, task)
    bank = check_bank(backbone, [prompt])
    sources = encode_texts(backbone, whole, task, max_input_length)
    (said,) = label_answers(
        backbone, task, [SharedPrompt(bank[0])], sources, normalize=normalize, calibrator=calibrator, advance=advance
    )
    return table_of({"source": whole, **answer_columns(said, task)}, said, task)


def rendered(task: Task, texts: Sequence[str] | Sequence[Mapping[str, object]]) -> list[str]:
    """Whole input texts: those given as rows put through the task's template.

    Raises:
        TpvError: one text instead of a sequence, or a row without a field.
    """
    if not isinstance(texts, Iterable):
        raise TpvError("texts to label", expected="a sequence of texts", got=type(texts).__name__)
    if isinstance(texts, str | Mapping):
        raise TpvError("texts to label", expected="a sequence of texts", got="one text", fix="put it in a list")
    return [task.render(text) if isinstance(text, Mapping) else text for text in texts]
