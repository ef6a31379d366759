"""Rows of data sets on the Hugging Face hub, or of local copies of them."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tpv.errors import TpvError
from tpv.hub import hub_answers
from tpv.tasks.formats import SUFFIXES, read_all
from tpv.tasks.local import find_split
from tpv.tasks.rows import Place, examples_from_rows
from tpv.tasks.spec import HubSource, LocalSource, TaskSpec
from tpv.tasks.splits import PAPER_LARGE, PAPER_VALIDATION, apply_split_rule
from tpv.tasks.task import SPLITS, Example, Task

DATA_DIR = "TPV_DATA_DIR"
BATCH = 10_000  # rows made into examples at a time: whole data sets as Python objects would double the memory


@contextmanager
def _settled(online: bool, bars: bool) -> Iterator[None]:
    """Keep `datasets` from printing, and without a network from trying anything but its cache.

    Args:
        bars: leave its progress bars on, for downloads.
    """
    import datasets

    verbosity, shown = datasets.logging.get_verbosity(), datasets.is_progress_bar_enabled()
    offline = datasets.config.HF_HUB_OFFLINE
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.config.HF_HUB_OFFLINE = offline or not online
    if not bars:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        datasets.config.HF_HUB_OFFLINE = offline
        if shown:
            datasets.enable_progress_bars()


def _read_hub(
    spec: TaskSpec, source: HubSource, splits: Sequence[str]
) -> tuple[dict[str, list[Example]], dict[str, str]]:
    """Examples of the hub's splits, by the hub's own names, and where they come from."""
    here = Path(source.path).is_dir()
    online = here or hub_answers()
    with _settled(online, bars=online and not here):
        from datasets import load_dataset

        try:
            # the data files themselves, never code: `datasets` has no loading scripts any more
            loaded = load_dataset(source.path, source.name, split=list(splits), revision=source.revision)
        except Exception as error:  # it raises its own errors, pyarrow's and those of whichever HTTP library is used
            if not online:
                raise TpvError(
                    f"task {spec.name!r} needs data set {source.path!r}, which is not in the cache, and the Hugging "
                    "Face hub cannot be reached",
                    fix=f"without a network, the mini tasks (mini/sst2 …), local files, and a local copy of the data "
                    f"set ({DATA_DIR}, or data_dir in a config) work",
                ) from None
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise TpvError(f"data set {source.path!r} of task {spec.name!r} does not load", got=first) from None
    examples = {
        split: [
            example
            for number, batch in enumerate(dataset.iter(batch_size=BATCH))
            for example in examples_from_rows(_rows(batch), spec, _place(source, split), start=number * BATCH)
        ]
        for split, dataset in zip(splits, loaded, strict=True)
    }
    return examples, _origin(source, loaded[0].info)


def _origin(source: HubSource, info: Any) -> dict[str, str]:
    """The data set, its configuration, and the commit that was read where what `datasets` downloaded says it."""
    origin = {"hub data set": source.path, "revision": source.revision or "main"}
    if source.name:
        origin["configuration"] = source.name
    commits = {found[1] for url in info.download_checksums or () if (found := re.search(r"@([0-9a-f]{40})/", url))}
    if len(commits) == 1:
        origin["commit"] = commits.pop()
    return origin


def _place(source: HubSource, split: str) -> Place:
    where = Path(source.path) / split
    return Place(f"data file {where}", str(where), split)


def _rows(batch: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def task_from_hub(spec: TaskSpec, *, seed: int = 0, authors_splits: bool = False) -> Task:
    """Load a task whose source is `hub`; the task's rule makes the splits.

    Args:
        seed: of the rule's draws.
        authors_splits: the splits of the authors' code where it differs from their paper (MNLI validates on
            mismatched and tests on matched).

    Raises:
        TpvError: the hub cannot be reached, no such data set, split or column, a label outside the list.
    """
    source = spec.source
    assert isinstance(source, HubSource)
    names = dict(source.splits)
    if spec.splits == "paper" and "validation" in names:
        names.pop("test", None)  # the rule takes it only where there is no validation split
    authors = source.authors_validation if authors_splits else None
    rows, origin = _read_hub(spec, source, [*names.values(), *filter(None, [authors])])
    splits: dict[str, list[Example]] = {split: rows[name] for split, name in names.items()}
    for split, examples in splits.items():
        if not examples:
            raise TpvError(
                f"the {split} split of task {spec.name!r} has no labelled rows", got=f"data set {source.path!r}"
            )
    if authors:
        chosen = {"train": splits["train"], "validation": rows[authors], "test": splits["validation"]}
        return Task(spec, {split: tuple(examples) for split, examples in chosen.items()}, origin)
    return apply_split_rule(spec, splits, seed, origin)


def task_from_data_dir(spec: TaskSpec, data_dir: Path) -> Task:
    """Load a task whose source is `hub` or `local` from `data_dir/<task>/{train,validation,test}.*`, with these splits.

    Raises:
        TpvError: a split without a file; also see `read_all` and `examples_from_rows`.
    """
    source = spec.source
    assert isinstance(source, HubSource | LocalSource)
    folder = data_dir / spec.name
    columns = (
        f"the columns of {source.path!r}" if isinstance(source, HubSource) else f"columns {', '.join(spec.fields)}"
    )
    splits = {}
    for split in SPLITS:
        path = find_split(folder, split)
        if path is None:
            raise TpvError(
                f"no {split} data of task {spec.name!r} in {folder}",
                expected=f"{folder / split}{{{', '.join(SUFFIXES)}}} in {columns}",
            )
        rows = read_all(path)
        if not rows:
            raise TpvError(f"data file {path} has no rows", expected=f"the {split} examples of {spec.name!r}")
        optional = source.optional if isinstance(source, HubSource) else ()
        named = source.columns if isinstance(source, HubSource) else {}
        for column in {named.get(field, field) for field in optional} - set(rows[0]):
            for row in rows:
                row[column] = None
        place = Place(f"data file {path}", str(path), path.name)
        splits[split] = tuple(examples_from_rows(rows, spec, place))
    of = {"of hub data set": source.path} if isinstance(source, HubSource) else {"from": source.origin}
    return Task(spec, splits, {"local copy": str(folder.resolve()), **of})


def split_sizes(spec: TaskSpec, *, authors_splits: bool = False) -> dict[str, int]:
    """How many rows each split has once loaded from the hub, known without loading it.

    Raises:
        TpvError: a task whose data file does not say.
    """
    source = spec.source
    complete = isinstance(source, HubSource) and {*source.splits} == {*SPLITS}
    if not isinstance(source, HubSource) or not source.sizes or not (spec.splits == "paper" or complete):
        raise TpvError(f"the sizes of task {spec.name!r} are not known before it is loaded", fix="load it")
    labelled = {split: rows - source.unlabelled.get(split, 0) for split, rows in source.sizes.items()}
    if spec.splits == "given":
        return {split: labelled[name] for split, name in source.splits.items()}
    train, other = labelled[source.splits["train"]], labelled[source.splits.get("validation") or source.splits["test"]]
    if authors_splits and source.authors_validation:
        return {"train": train, "validation": labelled[source.authors_validation], "test": other}
    if train > PAPER_LARGE:
        return {"train": train - PAPER_VALIDATION, "validation": PAPER_VALIDATION, "test": other}
    return {"train": train, "validation": other // 2, "test": other - other // 2}
