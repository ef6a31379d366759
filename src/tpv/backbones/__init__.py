"""Frozen language models behind one protocol. Only this package touches `transformers` models."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from tpv import mini
from tpv.backbones.protocol import Backbone, LabelScores, Tokens
from tpv.backbones.seq2seq import Seq2SeqBackbone
from tpv.errors import TpvError
from tpv.hub import hub_answers

__all__ = ["Backbone", "LabelScores", "Seq2SeqBackbone", "Tokens", "load_backbone"]

EMBEDDED = "mini"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def _default_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@contextmanager
def _quiet(bars: bool) -> Iterator[None]:
    """Keep transformers from printing: what is wrong we refuse ourselves, in one line.

    Args:
        bars: leave its progress bars on, for downloads; local weights load at once.
    """
    from transformers.utils import logging

    verbosity, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def _read(loader: Any, source: str, name: str, what: str, **options: Any) -> Any:
    """Call a `from_pretrained`, its many ways to fail turned into one line."""
    try:
        return loader.from_pretrained(source, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if Path(source).is_dir():
            raise TpvError(f"model folder {name!r} has no usable {what}", got=first) from None
        if options["local_files_only"]:
            raise TpvError(
                f"model {name!r} is not on this machine and the Hugging Face hub cannot be reached",
                fix="without a network, the embedded model 'mini', local folders and models in the hub's cache work",
            ) from None
        raise TpvError(f"model {name!r} has no usable {what} on the hub", got=first, fix="check the name") from None


def load_backbone(
    name: str | Path, *, device: str | None = None, precision: Literal["fp32", "bf16"] = "fp32"
) -> Backbone:
    """Load a frozen model with its tokenizer.

    Args:
        name: `"mini"` (the embedded model), a local folder in `transformers` format, or a name on the
            Hugging Face hub. Weights are read from safetensors only, and no remote code is run.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`; by default the best there is.
        precision: what the model runs in. Prompts and vectors are fp32 either way.

    Raises:
        TpvError: unknown name or no network, a folder without model or tokenizer, a decoder-only
            model, a precision other than these two.
    """
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

    if precision not in DTYPES:
        raise TpvError("precision", expected="'fp32' or 'bf16' (fp16 overflows in T5)", got=repr(precision))
    label = str(name)
    source = str(mini.model_folder()) if label == EMBEDDED else str(Path(label).expanduser())
    if not Path(source).is_dir() and (Path(source).is_absolute() or label.startswith((".", "~"))):
        raise TpvError(f"model folder {label!r} does not exist", fix="check the path")
    here = Path(source).is_dir() or not hub_answers()
    config = _read(AutoConfig, source, label, "configuration", local_files_only=here)
    if not config.is_encoder_decoder:
        raise TpvError(
            f"model {label!r} is decoder-only ({config.model_type})", expected="an encoder-decoder model such as T5"
        )
    tokenizer = _read(AutoTokenizer, source, label, "tokenizer", local_files_only=here)
    files = sorted({"tokenizer.json", *type(tokenizer).vocab_files_names.values()})
    if Path(source).is_dir() and not any((Path(source) / file).is_file() for file in files):
        # transformers makes an empty tokenizer then, to which every word is unknown
        raise TpvError(f"model folder {label!r} has no usable tokenizer", expected=f"one of {', '.join(files)}")
    with _quiet(bars=not here):
        model, report = _read(
            AutoModelForSeq2SeqLM, source, label, "safetensors weights", local_files_only=here,
            dtype="auto" if precision == "bf16" else torch.float32, use_safetensors=True, output_loading_info=True,
        )  # fmt: skip
    for what in ("missing_keys", "mismatched_keys"):
        if report[what]:
            names = sorted(str(key) for key in report[what])
            raise TpvError(
                f"the weights of model {label!r} do not fit its configuration",
                got=f"{what.replace('_', ' ')}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}",
            )
    try:
        model = model.to(device or _default_device())
    except (RuntimeError, AssertionError) as error:
        raise TpvError(f"device {device!r} cannot be used", got=str(error).splitlines()[0]) from None
    return Seq2SeqBackbone(model, tokenizer, label, DTYPES[precision])
