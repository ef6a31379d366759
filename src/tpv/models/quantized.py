"""Models whose linear layers hold 4 or 8 bits a weight, by bitsandbytes; prompts and their gradients stay exact."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from tpv.errors import TpvError, need

Quantization = Literal["bnb-4bit", "bnb-8bit"]
QUANTIZATIONS = ("bnb-4bit", "bnb-8bit")
# of a bitsandbytes configuration: what decides which numbers the layers hold
DECIDES = ("bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "llm_int8_threshold", "llm_int8_skip_modules")


def quantization_options(quantization: Quantization | None, stored: Any, name: str) -> dict[str, Any]:
    """What `from_pretrained` takes to quantise a model, or to read one that is stored quantised.

    Args:
        stored: the quantisation that the model's own configuration names, if it does.

    Raises:
        TpvError: a quantisation that is none of ours, one of a model that is quantised already, or bitsandbytes is
            missing.
    """
    if quantization is not None and quantization not in QUANTIZATIONS:
        raise TpvError("quantization", expected=" or ".join(map(repr, QUANTIZATIONS)), got=repr(quantization))
    if quantization is not None and stored is not None:
        raise TpvError(f"model {name!r} is quantized already", got=f"quantization {quantization!r}", fix="leave it out")
    if quantization is None and stored is None:
        return {}
    need(f"model {name!r} in 4 or 8 bits", "bitsandbytes", "accelerate", extra="big")
    _hush()
    if quantization is None:
        return {}
    from transformers import BitsAndBytesConfig

    if quantization == "bnb-8bit":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    # as QLoRA does it (Dettmers et al. 2023, section 3)
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
        )
    }


def _hush() -> None:
    """Import bitsandbytes without its remarks on kernels that it could use, and on every fp32 input it rounds."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import bitsandbytes  # noqa: F401


def prepare(model: nn.Module, dtype: torch.dtype) -> None:
    """Let quantised layers calculate in `dtype`, and in a way that has a gradient.

    bitsandbytes packs 4-bit weights anew for processors with bf16 instructions at the first pass in evaluation mode
    without a gradient; what it packed has no backward pass.
    """
    from bitsandbytes.nn import Linear4bit

    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.compute_dtype, layer.compute_type_is_set = dtype, True
            layer.support_avx512bf16_for_cpu = False


def quantization_of(model: Any) -> tuple[str, str]:
    """How a model is quantised, in words and as what tells it from others; both are empty for one that is not."""
    about = getattr(model.config, "quantization_config", None)
    if about is None:
        return "", ""
    values: Mapping[str, Any] = about if isinstance(about, Mapping) else about.to_dict()
    decides: tuple[str, ...] = DECIDES[2:]
    if values.get("load_in_8bit"):
        words = "bitsandbytes int8"
    else:
        double = ", double quantization" if values.get("bnb_4bit_use_double_quant") else ""
        words, decides = f"bitsandbytes {values['bnb_4bit_quant_type']}{double}", (*DECIDES[:2], DECIDES[3])
    return words, json.dumps([words, {key: values.get(key) for key in decides}], sort_keys=True)
