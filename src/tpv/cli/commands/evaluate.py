"""`tpv evaluate`."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tpv.cli.options import DataOptions, ModelOptions, NormalizeOption, Split, TaskOption, TaskOptions, UsedLengthOption
from tpv.cli.show import load_prompt, load_vector, print_scores
from tpv.cli.tuned import load_tuned
from tpv.errors import TpvError

if TYPE_CHECKING:
    from tpv.evaluation.tuned import Tuned
    from tpv.outputs.scores import Scores
    from tpv.tasks import Task

ORDER = 30


def command(
    prompts: Annotated[list[Path], typer.Argument(help="Folders that `tpv tune` wrote, or prompt files.")],
    model: ModelOptions,
    source: TaskOptions,
    own: DataOptions,
    task: TaskOption = None,
    vector: Annotated[Path | None, typer.Option(help="Add this vector to every prompt first.")] = None,
    scale: Annotated[float, typer.Option(help="Factor of the vector, lambda.")] = 1.0,
    split: Annotated[Split, typer.Option(help="The rows to score.")] = Split.test,
    predictions: Annotated[Path | None, typer.Option(help="Write one row per example here (.parquet).")] = None,
    normalize: NormalizeOption = None,
    max_input_length: UsedLengthOption = None,
) -> None:
    """Score prompts on a task, all of them together.

    A folder that `tpv tune` wrote knows its template, labels, model and calibrator: give it rows with `--test FILE`.

    Examples: `tpv evaluate runs/stars --test new.csv`

    `tpv evaluate runs/other/init.safetensors --vector runs/sst2/vector.safetensors --task mini/sst2`
    """
    from tpv.evaluation import MAX_INPUT_LENGTH
    from tpv.evaluation.score import evaluate
    from tpv.files import atomic_write
    from tpv.progress import counting_bar
    from tpv.prompts.algebra import SoftPrompt

    missing = next((path for path in prompts if not path.exists()), None)
    if missing is not None:
        raise TpvError(f"{missing} does not exist", fix="check the path")
    folders = [load_tuned(path) if path.is_dir() else None for path in prompts]
    tuned = folders[0] if task is None and own.train is None else None
    data = own.load(task, source) if tuned is None else _task_of(tuned, own, split.value)
    data.examples(split.value)
    about = tuned.about if tuned else None
    length = max_input_length or (about.max_input_length if about else MAX_INPUT_LENGTH)
    calibrator = about.calibrator if about and len(prompts) == 1 and vector is None else None
    loaded = [folder.prompt if folder else load_prompt(path) for folder, path in zip(folders, prompts, strict=True)]
    ensemble = next((each for each in loaded if not isinstance(each, SoftPrompt)), None)
    if ensemble is not None and (len(loaded) > 1 or vector is not None):
        raise TpvError(
            "a folder of tpv transfer that answers with a probe or an average",
            expected="one folder and no vector",
            got="a vector to add" if vector is not None else f"{len(loaded)} prompts",
            fix="evaluate it by itself",
        )
    bank = [each for each in loaded if isinstance(each, SoftPrompt)]
    if vector is not None:
        tau = load_vector(vector)
        bank = [tau.apply(prompt, scale) for prompt in bank]
    if predictions is not None and predictions.suffix != ".parquet":
        raise TpvError(f"predictions file {predictions}", expected="a name ending in .parquet")
    with atomic_write(predictions) if predictions else nullcontext() as part:  # refuses a bad place at once
        backbone = model.load(tuned=about.model if about else None)
        with counting_bar("scoring", len(loaded) * len(data.examples(split.value))) as advance:
            found = evaluate(
                backbone,
                data,
                bank if ensemble is None else ensemble,
                split.value,
                max_input_length=length,
                normalize=normalize.value if normalize else None,
                calibrator=calibrator,
                advance=advance,
            )
            scores = found if isinstance(found, list) else [found]
        if part is not None:
            _write(part, prompts, scores)
    print_scores([str(path) for path in prompts], [data] * len(scores), scores, split.value, says=ensemble is None)
    if predictions is not None:
        typer.echo(f"wrote {predictions}")


def _task_of(tuned: Tuned, own: DataOptions, split: str) -> Task:
    """The task of a tuned folder, with the rows that were named."""
    given = {"--text": own.text, "--template": own.template, "--labels": own.labels, "--name": own.name}
    if any(given.values()):
        raise TpvError(
            "a tuned folder knows its task",
            got=f"options for own data: {', '.join(name for name, value in given.items() if value)}",
            fix="drop them, or give --train or --task",
        )
    files = {"validation": own.validation, "test": own.test}
    data = tuned.with_rows(label=None if own.label == "label" else own.label, encoding=own.encoding, **files)
    if not data.splits.get(split):
        raise TpvError(f"rows of split {split!r}", expected=f"--{split} FILE", got="none")
    return data


def _write(file: Path, prompts: list[Path], scores: list[Scores]) -> None:
    """The predictions of every prompt; the metadata says what was scored, which `tpv push --scores` reads."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [
        score.predictions.add_column(0, "prompt", pa.array([str(path)] * score.n))
        for path, score in zip(prompts, scores, strict=True)
    ]
    about = dict(tables[0].schema.metadata)
    scored = {
        str(path): json.loads(score.predictions.schema.metadata[b"scored"])
        for path, score in zip(prompts, scores, strict=True)
    }
    about[b"scored"] = json.dumps(scored).encode()
    pq.write_table(pa.concat_tables(tables).replace_schema_metadata(about), file)
