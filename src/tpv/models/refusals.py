"""What `tpv` does not load, told before any weights are read."""

from collections.abc import Container, Mapping
from typing import Any

import torch

from tpv.errors import TpvError

BITSANDBYTES = "bitsandbytes"
METHODS = {"gptq": "GPTQ", "awq": "AWQ", "fp8": "FP8", "mxfp4": "MXFP4"}  # the others' names are as people write them


def refuse_other_kinds(config: Any, name: str, known: Container[type]) -> None:
    """Refuse a model that is no language model, or one that only fills gaps.

    Args:
        known: configurations of the models that can be loaded.

    Raises:
        TpvError: the model's configuration is none of them.
    """
    if type(config) not in known:
        raise TpvError(
            f"model {name!r} does not generate text",
            expected="a causal model (Llama, Qwen, GPT-2 …) or an encoder-decoder (T5, BART …)",
            got=f"model type {config.model_type!r}",
            fix="load a model of these kinds",
        )


def stored_quantization(config: Any, name: str) -> Any:
    """The quantisation that a model is stored in, if it is one by bitsandbytes; None for plain weights.

    Raises:
        TpvError: the configuration of the model, or of its text part, names another quantisation. Loaded as if they
            were plain numbers, the weights give another model, and most kernels for them have no backward pass.
    """
    for part in (config, config.get_text_config()):
        for key in ("quantization_config", "compression_config"):
            about = getattr(part, key, None)
            if about is not None and _method(about) == BITSANDBYTES:
                return about
            if about is not None:
                raise TpvError(
                    f"model {name!r} is quantized ({_method(about)}), which tpv does not support",
                    expected="weights in fp32, fp16 or bf16, quantized by bitsandbytes, or a GGUF file",
                    got=f"{key} in its configuration",
                    fix="load the model it was made from, with quantization 'bnb-4bit' if it is large; or dequantise "
                    "it with transformers and save_pretrained it",
                )
    return None


def _method(about: Any) -> str:
    """What a quantisation is called."""
    values = about if isinstance(about, Mapping) else about.to_dict()
    method = str(getattr(values.get("quant_method"), "value", values.get("quant_method") or "")).lower()
    if not method and (values.get("load_in_8bit") or values.get("load_in_4bit")):
        method = BITSANDBYTES
    return METHODS.get(method, method or "unknown method")


def usable_device(device: str) -> str:
    """The device, if a model can run on it.

    Raises:
        TpvError: not a device, or `meta`, which holds no numbers.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise TpvError(f"device {device!r} cannot be used", got=str(error).splitlines()[0]) from None
    if kind == "meta":
        raise TpvError("device 'meta' cannot be used", expected="cpu, cuda or mps", got="a device without memory")
    return device
