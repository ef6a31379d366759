"""`tpv evaluate`."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tpv.cli.options import DataOptions, LengthOption, ModelOptions, Split, TaskOption, TaskOptions
from tpv.cli.show import load_prompt, load_vector, print_scores
from tpv.errors import TpvError

if TYPE_CHECKING:
    from tpv.outputs.scores import Scores

ORDER = 30


def command(
    prompts: Annotated[list[Path], typer.Argument(help="Prompt files.")],
    model: ModelOptions,
    source: TaskOptions,
    own: DataOptions,
    task: TaskOption = None,
    vector: Annotated[Path | None, typer.Option(help="Add this vector to every prompt first.")] = None,
    scale: Annotated[float, typer.Option(help="Factor of the vector, lambda.")] = 1.0,
    split: Annotated[Split, typer.Option(help="The rows to score.")] = Split.test,
    predictions: Annotated[Path | None, typer.Option(help="Write one row per example here (.parquet).")] = None,
    max_input_length: LengthOption = 256,
) -> None:
    """Score prompts on a task, all of them together.

    Example: `tpv evaluate runs/other/init.safetensors --vector runs/sst2/vector.safetensors --task mini/sst2`
    """
    from tpv.evaluation.score import evaluate
    from tpv.files import atomic_write
    from tpv.progress import counting_bar

    data = own.load(task, source)
    data.examples(split.value)
    loaded = [load_prompt(path) for path in prompts]
    if vector is not None:
        tau = load_vector(vector)
        loaded = [tau.apply(prompt, scale) for prompt in loaded]
    if predictions is not None and predictions.suffix != ".parquet":
        raise TpvError(f"predictions file {predictions}", expected="a name ending in .parquet")
    with atomic_write(predictions) if predictions else nullcontext() as part:  # refuses a bad place at once
        backbone = model.load()
        with counting_bar("scoring", len(loaded) * len(data.examples(split.value))) as advance:
            scores = evaluate(backbone, data, loaded, split.value, max_input_length=max_input_length, advance=advance)
        if part is not None:
            _write(part, prompts, scores)
    print_scores([str(path) for path in prompts], [data] * len(scores), scores, split.value)
    if predictions is not None:
        typer.echo(f"wrote {predictions}")


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
