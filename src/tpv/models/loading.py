"""Models by name: embedded, on the hub, in a folder or a GGUF file; read from safetensors, without remote code."""

import warnings
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from tpv import mini
from tpv.errors import TpvError, TpvWarning, scrub
from tpv.hub import hub_answers
from tpv.models.causal import CausalBackbone
from tpv.models.gguf import SMOLLM2, converted, smollm2_file
from tpv.models.placement import DeviceMap, check_tied, checked_map, placed
from tpv.models.protocol import Backbone
from tpv.models.quantized import Quantization, prepare, quantization_options
from tpv.models.quiet import quiet
from tpv.models.refusals import refuse_other_kinds, stored_quantization, usable_device
from tpv.models.seq2seq import Seq2SeqBackbone

EMBEDDED = "mini"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")


def _default_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _read(loader: Any, source: str, name: str, what: str, **options: Any) -> Any:
    """Call a `from_pretrained`, its many ways to fail turned into one line."""
    try:
        return loader.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:  # each architecture has its own ways to fail
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if Path(source).is_dir():
            pickled = sorted(path.name for pattern in PICKLED for path in Path(source).glob(pattern))
            if what == WEIGHTS and pickled and not list(Path(source).glob("*.safetensors")):
                raise TpvError(
                    f"model folder {name!r} has pickled weights only, which can run code when they are read",
                    expected="*.safetensors",
                    got=", ".join(pickled[:3]),
                    fix="load it with transformers where you trust it, and save_pretrained it again",
                ) from None
            if "device_map" in options:
                fix = "quantized layers cannot be kept in memory or on the disk" if "quantization" in first else None
                raise TpvError(f"model {name!r} cannot be loaded onto these devices", got=first, fix=fix) from None
            raise TpvError(f"model folder {name!r} has no usable {what}", got=first) from None
        if options["local_files_only"]:
            matches = get_close_matches(name, (EMBEDDED, SMOLLM2), n=1)
            near = f"did you mean {matches[0]!r}? " if matches else ""
            raise TpvError(
                f"model {name!r} is not on this machine and the Hugging Face hub cannot be reached",
                fix=f"{near}without a network, the embedded model 'mini', local folders, GGUF files, 'smollm2' once it "
                "is installed, and models in the hub's cache work",
            ) from None
        fix = "check the name and the revision; weights are read from safetensors only"
        raise TpvError(f"model {name!r} has no usable {what} on the hub", got=first, fix=fix) from None


WEIGHTS = "safetensors weights"


def _source(name: str) -> str:
    """The folder or hub name that a model's name stands for."""
    if name == EMBEDDED:
        return str(mini.model_folder())
    if name == SMOLLM2 and not Path(name).is_dir():
        return str(converted(smollm2_file()))
    try:
        path = Path(name).expanduser()
        if name.endswith(".gguf"):
            return str(converted(path))
        if not path.is_dir() and (path.is_absolute() or name.startswith((".", "~")) or "\0" in name):
            raise TpvError(f"model folder {name!r} does not exist", fix="check the path")
    except (ValueError, RuntimeError, OSError) as error:  # a NUL, the home of nobody, a name too long
        raise TpvError(f"model name {name[:60]!r} is no path", got=str(error)) from None
    return str(path)


def load_backbone(
    name: str | Path,
    *,
    device: str | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    revision: str | None = None,
    chat: bool = False,
    gradient_checkpointing: bool = False,
    device_map: DeviceMap | None = None,
    quantization: Quantization | None = None,
) -> Backbone:
    """Load a frozen model with its tokenizer: an encoder-decoder (T5, BART …) or a causal one (Llama, Qwen …).

    Args:
        name: `"mini"` (the embedded model), `"smollm2"` (SmolLM2-135M-Instruct, once the package that carries it
            is installed), a local folder in `transformers` format, a `.gguf` file, or a name on the Hugging Face
            hub. Weights are read from safetensors (or GGUF) only, and no remote code is run.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`; by default the best available one.
        precision: what the model runs in. Prompts and vectors are fp32 either way. bf16 is faster on GPUs and on
            processors with bf16 instructions; on others it is several times slower than fp32, and a warning says so.
        revision: branch, tag or commit of a hub model.
        chat: for causal models, put each text into the tokenizer's chat template as the user's turn.
        gradient_checkpointing: calculate activations again in the backward pass instead of keeping them.
        device_map: spread the model over devices with accelerate: `"auto"`, which fills the GPUs first, then memory,
            then the disk (also `"balanced"`, `"balanced_low_0"`, `"sequential"`); or a dict from the name of a module
            to a GPU's number, `"cpu"` or `"disk"`. Not together with `device`.
        quantization: load the linear layers with bitsandbytes in 4 bits (`"bnb-4bit"`: NF4, double quantization) or 8
            (`"bnb-8bit"`). A model that was saved quantized by bitsandbytes loads as it is, without this. A quantized
            model has a fingerprint of its own.

    Raises:
        TpvError: unknown name or no network, a folder without model or tokenizer, pickled weights, weights quantized
            by anything but bitsandbytes, a precision other than these two, a device that cannot be used, `chat`
            without a chat template; accelerate or bitsandbytes is missing where it is needed; a model that generates
            no text, reads in both directions, or cannot read a prompt at all.
    """
    from transformers import AutoConfig

    if precision not in DTYPES:
        raise TpvError(
            "precision",
            expected="'fp32' or 'bf16'",
            got=repr(precision),
            fix="fp16 is left out because its range is too small: activations of T5 overflow in it",
        )
    label = scrub(str(name))  # which prompts of it will carry
    source = _source(str(name))
    local = Path(source).is_dir()
    if local and revision is not None:
        raise TpvError(f"revision {revision!r} of model {label!r}", expected="a hub name", got="a local model")
    here = local or not hub_answers()
    where = {"local_files_only": here, "revision": revision or "main"}
    config = _read(AutoConfig, source, label, "configuration", **where)
    spread = None if device_map is None else checked_map(device_map, device)
    kept = stored_quantization(config, label)
    few_bits = quantization_options(quantization, kept, label)
    if chat and config.is_encoder_decoder:
        raise TpvError(f"model {label!r} is an encoder-decoder", expected="a causal model, for chat", fix="drop chat")
    tokenizer = _tokenizer(source, label, where)
    dtype: torch.dtype | None = DTYPES[precision]
    if spread is not None or few_bits or kept is not None:
        load = partial(_model, config, source, label, **where, **few_bits, dtype=dtype)
        model = placed(load, spread or {"": usable_device(device or _default_device())})
        check_tied(model, label)
        if few_bits or kept is not None:
            prepare(model, DTYPES[precision])
        dtype = None
    else:
        model = _model(config, source, label, **where, dtype="auto" if precision == "bf16" else torch.float32)
        try:
            model = model.to(usable_device(device or _default_device()))
        except (RuntimeError, AssertionError) as error:
            raise TpvError(f"device {device!r} cannot be used", got=str(error).splitlines()[0]) from None
    more: dict[str, Any] = {"recompute": gradient_checkpointing}
    backbone: Backbone = (
        Seq2SeqBackbone(model, tokenizer, label, dtype, **more)
        if config.is_encoder_decoder
        else CausalBackbone(model, tokenizer, label, dtype, chat=chat, **more)
    )
    if precision == "bf16" and backbone.device_type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        said = "bf16 is slower than fp32 on this processor, which has no instructions for it; use precision fp32"
        warnings.warn(said, TpvWarning, stacklevel=2)
    return backbone


def _tokenizer(source: str, label: str, where: dict[str, Any]) -> Any:
    """The tokenizer of a model, not an empty one."""
    from transformers import AutoTokenizer

    tokenizer = _read(AutoTokenizer, source, label, "tokenizer", **where)
    files = sorted({"tokenizer.json", *type(tokenizer).vocab_files_names.values()})
    if Path(source).is_dir() and not any((Path(source) / file).is_file() for file in files):
        # transformers makes an empty tokenizer then, to which every word is unknown
        raise TpvError(f"model folder {label!r} has no usable tokenizer", expected=f"one of {', '.join(files)}")
    return tokenizer


def _model(config: Any, source: str, label: str, **options: Any) -> Any:
    """A model with all its weights, on the CPU unless the options place it.

    Args:
        options: of `from_pretrained`.
    """
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
    )

    encoder_decoder = config.is_encoder_decoder
    known = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING if encoder_decoder else MODEL_FOR_CAUSAL_LM_MAPPING
    refuse_other_kinds(config, label, known)
    loader = AutoModelForSeq2SeqLM if encoder_decoder else AutoModelForCausalLM
    with quiet(bars=not options["local_files_only"]):
        model, report = _read(loader, source, label, WEIGHTS, use_safetensors=True, output_loading_info=True, **options)
    for what in ("missing_keys", "mismatched_keys"):
        if report[what]:
            names = sorted(str(key) for key in report[what])
            raise TpvError(
                f"the weights of model {label!r} do not fit its configuration",
                got=f"{what.replace('_', ' ')}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}",
            )
    return model
