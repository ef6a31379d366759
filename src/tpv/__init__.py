"""tpv: tune soft prompts, subtract their initialization, and move, add and scale the difference.

The names below are the public interface. They load on first use, so that `import tpv` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tpv import plot
    from tpv.errors import CutWarning, DamagedFileError, IncompatibleError, TpvError, TpvWarning, TrainingError
    from tpv.estimators.classifier import PromptClassifier
    from tpv.evaluation.calibrate import calibrate
    from tpv.evaluation.generate import generate
    from tpv.evaluation.predict import predict
    from tpv.evaluation.score import evaluate
    from tpv.evaluation.search import search_scale
    from tpv.methods.vectors import fit_vectors
    from tpv.models import Backbone, load_backbone
    from tpv.models.generation import Decoding
    from tpv.outputs.ranking import Calibrator
    from tpv.outputs.scores import Scores
    from tpv.porting import port
    from tpv.progress import Progress
    from tpv.prompts.algebra import SoftPrompt, TaskPromptVector, cosine_matrix
    from tpv.prompts.library import Library
    from tpv.serving.client import Client
    from tpv.tasks import Example, Task, load_task
    from tpv.training.cross_calibrate import cross_calibrate
    from tpv.training.cross_validate import cross_validate
    from tpv.training.fit import fit
    from tpv.training.recipe import Recipe
    from tpv.transfers import transfer

_HOME = {
    "Backbone": "models",
    "Calibrator": "outputs.ranking",
    "Client": "serving.client",
    "CutWarning": "errors",
    "DamagedFileError": "errors",
    "Decoding": "models.generation",
    "Example": "tasks",
    "IncompatibleError": "errors",
    "Library": "prompts.library",
    "Progress": "progress",
    "PromptClassifier": "estimators.classifier",
    "Recipe": "training.recipe",
    "Scores": "outputs.scores",
    "SoftPrompt": "prompts.algebra",
    "Task": "tasks",
    "TaskPromptVector": "prompts.algebra",
    "TpvError": "errors",
    "TpvWarning": "errors",
    "TrainingError": "errors",
    "calibrate": "evaluation.calibrate",
    "cosine_matrix": "prompts.algebra",
    "cross_calibrate": "training.cross_calibrate",
    "cross_validate": "training.cross_validate",
    "evaluate": "evaluation.score",
    "fit": "training.fit",
    "fit_vectors": "methods.vectors",
    "generate": "evaluation.generate",
    "load_backbone": "models",
    "load_task": "tasks",
    "merge": "merging",
    "port": "porting",
    "predict": "evaluation.predict",
    "register": "registry",
    "search_scale": "evaluation.search",
    "transfer": "transfers",
}

__version__ = "0.2.0"
__all__ = [
    "Backbone",
    "Calibrator",
    "Client",
    "CutWarning",
    "DamagedFileError",
    "Decoding",
    "Example",
    "IncompatibleError",
    "Library",
    "Progress",
    "PromptClassifier",
    "Recipe",
    "Scores",
    "SoftPrompt",
    "Task",
    "TaskPromptVector",
    "TpvError",
    "TpvWarning",
    "TrainingError",
    "calibrate",
    "cosine_matrix",
    "cross_calibrate",
    "cross_validate",
    "evaluate",
    "fit",
    "fit_vectors",
    "generate",
    "load_backbone",
    "load_task",
    "plot",
    "port",
    "predict",
    "search_scale",
    "transfer",
]


def __getattr__(name: str) -> Any:
    if name == "plot":
        return import_module("tpv.plot")
    if name in _HOME:
        return getattr(import_module(f"tpv.{_HOME[name]}"), name)
    raise AttributeError(f"module 'tpv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, "plot"})
