"""tpv: tune soft prompts, subtract their start, and move, add and scale what is left.

The names below are the public interface. They load on first use, so that `import tpv` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tpv.backbones import Backbone, load_backbone
    from tpv.errors import CutWarning, DamagedFileError, IncompatibleError, TpvError, TpvWarning, TrainingError
    from tpv.evaluation import Scores, evaluate, predict
    from tpv.portable import fit_vectors
    from tpv.progress import Progress
    from tpv.recipe import Recipe
    from tpv.search import search_scale
    from tpv.similarity import cosine_matrix
    from tpv.tasks import Example, Task, load_task
    from tpv.training import fit
    from tpv.vectors import SoftPrompt, TaskPromptVector

_HOME = {
    "Backbone": "backbones",
    "CutWarning": "errors",
    "DamagedFileError": "errors",
    "Example": "tasks",
    "IncompatibleError": "errors",
    "Progress": "progress",
    "Recipe": "recipe",
    "Scores": "evaluation",
    "SoftPrompt": "vectors",
    "Task": "tasks",
    "TaskPromptVector": "vectors",
    "TpvError": "errors",
    "TpvWarning": "errors",
    "TrainingError": "errors",
    "cosine_matrix": "similarity",
    "evaluate": "evaluation",
    "fit": "training",
    "fit_vectors": "portable",
    "load_backbone": "backbones",
    "load_task": "tasks",
    "predict": "evaluation",
    "search_scale": "search",
}

__version__ = "0.1.0"
__all__ = [
    "Backbone", "CutWarning", "DamagedFileError", "Example", "IncompatibleError", "Progress", "Recipe", "Scores",
    "SoftPrompt", "Task", "TaskPromptVector", "TpvError", "TpvWarning", "TrainingError", "cosine_matrix", "evaluate",
    "fit", "fit_vectors", "load_backbone", "load_task", "predict", "search_scale",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"tpv.{_HOME[name]}"), name)
    raise AttributeError(f"module 'tpv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
