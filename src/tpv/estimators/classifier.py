"""`PromptClassifier`: a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from tpv.estimators.inputs import InputError, checked, encoded, task_of, words_of
from tpv.evaluation import MAX_INPUT_LENGTH
from tpv.evaluation.calibrate import calibrate
from tpv.evaluation.predict import predict
from tpv.evaluation.tuned import PROMPT_FILE, RESULT_FILES, About, ModelChoice, Tuned
from tpv.files import staged_folder
from tpv.models import Backbone
from tpv.models.loading import EMBEDDED
from tpv.models.quantized import QUANTIZATIONS
from tpv.outputs.ranking import Calibrator
from tpv.progress import Callback, silent
from tpv.prompts.algebra import SoftPrompt
from tpv.tasks import Task
from tpv.tasks.splits import HELD_OUT_FRACTION, JUDGES, hold_out
from tpv.training.cross_calibrate import cross_calibrate
from tpv.training.fit import fit
from tpv.training.history import SCHEMA
from tpv.training.recipe import FEW_ROWS, Recipe, few_steps
from tpv.transfers import TOKENS, LibraryLike, transfer

FOLDS = 5
_lock = Lock()


@lru_cache(maxsize=2)
def _load(choice: ModelChoice, device: str | None) -> Backbone:
    return choice.load(device=device)


def loaded(choice: ModelChoice, device: str | None = None) -> Backbone:
    """A model, loaded once a process; the last two are kept."""
    with _lock:
        return _load(choice, device)


class PromptClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of texts on a frozen language model, for scikit-learn's tools.

    Args:
        model: `"mini"`, `"smollm2"`, a folder, a GGUF file or a hub name. A process loads it once, however many
            estimators use it; estimators hold its name only.
        library: vectors to start from, with `transfer`: a folder, a `tpv.Library`, a mapping or a list;
            None goes without.
        strategy: `transfer` chooses by cross-validation among what few rows and the library give (`tpv.transfer`);
            `tune` tunes one prompt (`tpv.fit`); `auto` transfers below 1,000 rows and tunes from there on.
        budget: of a transfer: `quick`, `standard` or `thorough`.
        num_tokens: tokens of the prompt; by default those of the library, or 20.
        steps: optimizer steps of `tune`; by default 5 √rows below 1,000 rows, else ten epochs.
        batch_size: rows a step of `tune`.
        lr: peak learning rate; `"auto"` fits it to the model.
        template: the input text with columns in braces, `"review: {text}"`; a list of texts is the column `text`.
        label_words: what the model says for each class, in the order of `classes_`, or by class; by default the
            classes themselves.
        max_input_length: texts are truncated to this many tokens, template included.
        precision: `fp32` or `bf16`.
        quantization: `bnb-4bit` or `bnb-8bit` loads the model in 4 or 8 bits with bitsandbytes.
        device: where the model runs; by default the best there is.
        revision: of a hub model.
        chat: put texts into the model's chat template.
        random_state: of initializations, folds and data order.
        verbose: print what is being done.

    Attributes:
        classes_: the classes, sorted.
        strategy_: `tune` or `transfer`.
        chosen_, reason_: what a transfer chose and why; None after `tune`.
        standings_: what a transfer tried, a dictionary each, the best first.
        history_: of the training, after `tune`; see `tpv.plot.loss`.
        tuned_: prompt (or probes), template and calibrator: what a folder of `tpv tune` holds.
        n_features_in_, feature_names_in_: of a table; a list of texts has none.
    """

    def __init__(
        self,
        model: str = "smollm2",
        library: LibraryLike = None,
        strategy: Literal["auto", "tune", "transfer"] = "auto",
        *,
        budget: str = "standard",
        num_tokens: int | None = None,
        steps: int | None = None,
        batch_size: int = 16,
        lr: float | Literal["auto"] = "auto",
        template: str | None = None,
        label_words: Sequence[str] | Mapping[Any, str] | None = None,
        max_input_length: int = MAX_INPUT_LENGTH,
        precision: Literal["fp32", "bf16"] = "fp32",
        device: str | None = None,
        revision: str | None = None,
        chat: bool = False,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
        quantization: Literal["bnb-4bit", "bnb-8bit"] | None = None,
    ) -> None:
        self.model = model
        self.library = library
        self.strategy = strategy
        self.budget = budget
        self.num_tokens = num_tokens
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.template = template
        self.label_words = label_words
        self.max_input_length = max_input_length
        self.precision = precision
        self.device = device
        self.revision = revision
        self.chat = chat
        self.random_state = random_state
        self.verbose = verbose
        self.quantization = quantization

    def fit(self, X: Any, y: Any = None, **unsupported: Any) -> Self:
        """Learn from labelled texts.

        Args:
            X: a list, array or Series of texts; or a table of texts or numbers, a DataFrame or an array.
            y: the class of each.

        Raises:
            TpvError: `sample_weight`; X, y or parameters that cannot be used; fewer than two rows of a class, in a
                transfer.
        """
        if unsupported:
            fix = "repeat rows that should count more" if "sample_weight" in unsupported else None
            raise InputError("PromptClassifier.fit", expected="X and y alone", got=", ".join(unsupported), fix=fix)
        if self.strategy not in ("auto", "tune", "transfer"):
            raise InputError("strategy", expected="'auto', 'tune' or 'transfer'", got=repr(self.strategy))
        choice = self._choice()
        rows, gold = checked(self, X, y, fit=True)
        assert gold is not None
        classes, place = encoded(gold)
        words = words_of(classes, self.label_words)
        task = task_of(rows, [words[i] for i in place], words, self.template)
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = int(check_random_state(seed).randint(2**31 - 1))
        strategy = self.strategy
        if strategy == "auto":
            strategy = "transfer" if len(rows) < FEW_ROWS else "tune"
        backbone = loaded(choice, self.device)
        work = self._transferred if strategy == "transfer" else self._tuned
        answerer, calibrator = work(backbone, task, int(seed))
        about = About(model=choice, max_input_length=self.max_input_length, calibrator=calibrator)
        self.tuned_ = Tuned(Task(task.spec, {}), answerer, about)
        self.classes_, self.strategy_ = classes, strategy
        return self

    def _choice(self) -> ModelChoice:
        """The model, as a tuned folder names it."""
        if not isinstance(self.model, str | Path):
            raise InputError(
                "model",
                expected="its name or path",
                got=type(self.model).__name__,
                fix="models are loaded once by name",
            )
        name = str(self.model)
        if self.precision not in ("fp32", "bf16"):
            raise InputError("precision", expected="'fp32' or 'bf16'", got=repr(self.precision))
        if self.quantization not in (None, *QUANTIZATIONS):
            raise InputError("quantization", expected="None, 'bnb-4bit' or 'bnb-8bit'", got=repr(self.quantization))
        here = name != EMBEDDED and Path(name).exists()
        path = str(Path(name).resolve()) if here else name
        return ModelChoice(
            name=path, precision=self.precision, revision=self.revision, chat=self.chat, quantization=self.quantization
        )

    def _transferred(self, backbone: Backbone, task: Task, seed: int) -> tuple[Any, Calibrator]:
        result = transfer(
            backbone,
            task,
            self.library,
            budget=self.budget,
            seed=seed,
            num_tokens=self.num_tokens,
            lr=None if self.lr == "auto" else self.lr,
            max_input_length=self.max_input_length,
            tell=(lambda what, _: print(what)) if self.verbose else None,
        )
        self.chosen_: str | None = result.chosen
        self.reason_: str | None = result.reason
        self.standings_, self.history_ = result.standings.to_pylist(), None
        return result.answerer, result.calibrator

    def _tuned(self, backbone: Backbone, task: Task, seed: int) -> tuple[Any, Calibrator]:
        """A tuned prompt, and a calibrator fitted to rows that it, or its like, did not learn from."""
        rows = list(task.examples("train"))
        enough = round(HELD_OUT_FRACTION * len(rows)) >= JUDGES
        if enough:
            kept, held = hold_out(rows, seed)
            task = Task(task.spec, {"train": tuple(kept), "validation": tuple(held)}, task.origin)
        recipe = Recipe(
            steps=self.steps,
            batch_size=self.batch_size,
            lr=self.lr,
            select="loss" if enough else "last",
            max_input_length=self.max_input_length,
            seed=seed,
        )
        count = len(task.examples("train"))
        if self.steps is None and count < FEW_ROWS:
            recipe = replace(recipe, steps=few_steps(count))
        init = SoftPrompt.sample(backbone, TOKENS if self.num_tokens is None else self.num_tokens, seed)
        told: Callback | None = None if self.verbose else silent
        prompt = fit(backbone, task, init, recipe, callback=told)
        if enough:
            calibrator = calibrate(backbone, task, prompt, max_input_length=self.max_input_length)
        else:
            folds = min(FOLDS, len(rows))
            calibrator = cross_calibrate(backbone, task, init, recipe, folds=folds, seed=seed, callback=told)
        self.chosen_ = self.reason_ = None
        self.standings_, self.history_ = [], prompt.history
        return prompt.with_history(None), calibrator

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The calibrated probability of each class, [N, C], in the order of `classes_`."""
        check_is_fitted(self, "tuned_")
        rows, _ = checked(self, X, fit=False)
        about = self.tuned_.about
        assert about.calibrator is not None
        table = predict(
            loaded(about.model, self.device),
            self.tuned_.task,
            self.tuned_.prompt,
            rows,
            max_input_length=about.max_input_length,
            calibrator=about.calibrator,
        )
        scores = np.asarray(table["log_probs"].combine_chunks().flatten(), np.float64).reshape(len(rows), -1)
        return about.calibrator.probabilities(scores)

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest class of each text."""
        probabilities = self.predict_proba(X)
        found: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return found

    def save(self, folder: str | Path) -> None:
        """Write a folder that `tpv predict FOLDER` works with; the model is not in it.

        Raises:
            TpvError: the folder cannot be written.
        """
        check_is_fitted(self, "tuned_")
        with staged_folder(folder, replaces=RESULT_FILES) as stage:
            _write(self.tuned_, stage)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        tags.classifier_tags.poor_score = True  # on numbers, which language models are not made for
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Plain content: what was learned as the files of a tuned folder, in bytes."""
        state: dict[str, Any] = dict(super().__getstate__())
        if "tuned_" in state:
            with TemporaryDirectory() as folder:
                _write(state.pop("tuned_"), Path(folder))
                state["files_"] = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
        history = state.get("history_")
        if history is not None:
            select = history.schema.metadata[b"select"].decode()
            state["history_"] = {"select": select, "columns": history.to_pydict()}
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        content = dict(state)
        files = content.pop("files_", None)
        if files is not None:
            with TemporaryDirectory() as folder:
                for name, data in files.items():
                    (Path(folder) / Path(name).name).write_bytes(data)
                content["tuned_"] = Tuned.load(folder)
        history = content.get("history_")
        if history is not None:
            table = pa.table(history["columns"], schema=SCHEMA)
            content["history_"] = table.replace_schema_metadata({"select": history["select"]})
        super().__setstate__(content)


def _write(tuned: Tuned, folder: Path) -> None:
    if isinstance(tuned.prompt, SoftPrompt):
        tuned.prompt.save(folder / PROMPT_FILE)
    tuned.save(folder)
