"""Models on several devices: `accelerate` moves activations from layer to layer, and loads weights that are kept aside.

What a layer calculates does not depend on where it lies. Here is where inputs go, and where weights are.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tpv.errors import TpvError, need
from tpv.models.refusals import usable_device

Strategy = Literal["auto", "balanced", "balanced_low_0", "sequential"]
DeviceMap = Strategy | Mapping[str, int | str]
STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
ASIDE = ("cpu", "disk")  # where weights may be kept that run on another device


def checked_map(device_map: DeviceMap, device: str | None) -> DeviceMap:
    """The map, if `accelerate` is there and a model can be placed by it.

    Raises:
        TpvError: `accelerate` is missing, a device is named as well, or the map is none.
    """
    need("device_map", "accelerate", extra="big")
    if device is not None:
        raise TpvError("device and device_map", expected="one of them", got=f"device {device!r} and a device_map")
    if isinstance(device_map, str):
        if device_map not in STRATEGIES:
            raise TpvError("device_map", expected=f"{', '.join(STRATEGIES)}, or a dict", got=repr(device_map))
        return device_map
    if not isinstance(device_map, Mapping) or not device_map:
        raise TpvError("device_map", expected="'auto', or a dict from module to device", got=f"{device_map!r:.80}")
    for name, place in device_map.items():
        if isinstance(name, bool | int) or not isinstance(name, str):
            raise TpvError("device_map", expected="names of modules as keys", got=f"{name!r:.80}")
        _check_place(name, place)
    return dict(device_map)


def _check_place(module: str, place: int | str) -> None:
    """Refuse a place that is no device here."""
    if isinstance(place, bool) or not isinstance(place, int | str):
        raise TpvError(f"device_map, module {module!r}", expected="a GPU's number, 'cpu' or 'disk'", got=repr(place))
    if place == "disk":
        return
    kind = torch.device(usable_device(f"cuda:{place}" if isinstance(place, int) else place))
    there = torch.cuda.device_count()
    if kind.type == "cuda" and (kind.index or 0) >= there:
        known = ", ".join(str(number) for number in range(there)) or "none"
        raise TpvError(
            f"device_map, module {module!r}", expected=f"a device of this machine (GPUs: {known})", got=repr(place)
        )


def placed(load: Callable[..., Any], device_map: DeviceMap) -> Any:
    """A model spread by a map.

    Args:
        load: `from_pretrained` but for the options of the placing.
    """
    folder = tempfile.mkdtemp(prefix="tpv-weights-")  # for weights that cannot be read as the model's files have them
    try:
        model = load(device_map=device_map, offload_folder=folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
    return model


def check_tied(model: Any, name: str) -> None:
    """Refuse a map that keeps one of two tied weights on disk: a model's files have them once, under one name.

    Raises:
        TpvError: there are such weights.
    """
    device_map = getattr(model, "hf_device_map", {})
    for one, other in getattr(model, "all_tied_weights_keys", {}).items():
        if (_place_of(one, device_map) == "disk") != (_place_of(other, device_map) == "disk"):
            raise TpvError(
                f"model {name!r} cannot be spread by this device_map",
                expected=f"one place for {one} and {other}, which are the same weights",
                got="one of them on disk",
                fix="map the layers of a stack one by one, or give 'auto'",
            )


def _place_of(name: str, device_map: Mapping[str, Any]) -> Any:
    """Where a map puts a weight: where it puts the nearest module around it."""
    while name and name not in device_map:
        name = name.rpartition(".")[0]
    return device_map.get(name)


def places(model: nn.Module) -> list[str]:
    """The devices a model was spread over, `disk` among them; empty for a model on one device."""
    found = {str(place) for place in getattr(model, "hf_device_map", {}).values()}
    return sorted(found) if len(found) > 1 or "disk" in found else []


def home(model: Any, embed: nn.Module) -> torch.device:
    """The device that a model takes its inputs on: that of its embeddings, which need not lie there."""
    hook = getattr(embed, "_hf_hook", None)
    for one in getattr(hook, "hooks", [hook]):
        device = getattr(one, "execution_device", None)
        if device is not None:
            return torch.device(device)
    found: torch.device = model.device
    return found


def free_memory(model: nn.Module) -> int:
    """Bytes that are free on the fullest GPU that a model was spread over."""
    numbers = {place.index for place in map(torch.device, _gpus(model))}
    return min(torch.cuda.mem_get_info(number)[0] for number in numbers)


def _gpus(model: nn.Module) -> list[str]:
    return [f"cuda:{place}" if place.isdigit() else place for place in places(model) if place not in ASIDE]


def stored(model: Any, name: str, value: Tensor) -> Tensor:
    """A value of a model's state, on the CPU; read from where it is kept if it is not on any device.

    Args:
        name: its key in the state.
        value: as the state has it.
    """
    if value.device.type != "meta":
        return value.detach().cpu()
    from transformers.integrations.accelerate import load_offloaded_parameter

    kept: Tensor = load_offloaded_parameter(model, name)
    return kept.detach().to("cpu", value.dtype)
