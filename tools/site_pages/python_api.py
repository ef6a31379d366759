"""Pages of the Python API: which public name stands where. mkdocstrings fills them from docstrings."""

from __future__ import annotations

from collections.abc import Iterator

import tpv

FOLDER = "reference/python"
GROUPS = {
    "prompts": ("Prompts and vectors", ["SoftPrompt", "TaskPromptVector", "cosine_matrix", "merge", "Library", "port"]),
    "models": ("Models and tasks", ["load_backbone", "Backbone", "load_task", "Task", "Example"]),
    "training": ("Training", ["fit", "fit_vectors", "Recipe", "Progress", "search_scale", "cross_validate"]),
    "scoring": (
        "Scoring and prediction",
        ["evaluate", "Scores", "predict", "generate", "Decoding", "calibrate", "cross_calibrate", "Calibrator"],
    ),
    "transfer": ("Transfer, estimator, client", ["transfer", "PromptClassifier", "Client"]),
    "plot": ("Plots", ["plot"]),
    "errors": (
        "Errors and warnings",
        ["TpvError", "IncompatibleError", "DamagedFileError", "TrainingError", "TpvWarning", "CutWarning"],
    ),
    "register": ("Registering extensions", ["register"]),
}
PLACES = {  # of what a page shows under another name than `tpv.NAME`
    "merge": "tpv.merging.merge",
    "port": "tpv.porting.port",
    "transfer": "tpv.transfers.transfer",
    "register": "tpv.registry.Register",
}
FURTHER = {"transfer": ["tpv.transfers.result.TransferResult"], "register": ["tpv.registry.Registry"]}


def pages() -> Iterator[tuple[str, str]]:
    """Each page's place and text; the first lists all names."""
    groups = "".join(
        f"| [{title}]({name}.md) | {', '.join(f'`tpv.{one}`' for one in names)} |\n"
        for name, (title, names) in GROUPS.items()
    )
    yield (
        f"{FOLDER}/index.md",
        f"# Python\n\nEvery public name of `import tpv`.\n\n| page | names |\n| --- | --- |\n{groups}",
    )
    for name, (title, names) in GROUPS.items():
        places = [PLACES.get(one, f"tpv.{one}") for one in names] + FURTHER.get(name, [])
        yield f"{FOLDER}/{name}.md", f"# {title}\n\n" + "\n".join(f"::: {place}\n" for place in places)


def left_out() -> set[str]:
    """Public names that no page has."""
    grouped = {name for _, names in GROUPS.values() for name in names}
    return {*tpv.__all__, *tpv._HOME} - grouped
