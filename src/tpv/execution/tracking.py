"""Experiment trackers through accelerate, and energy through codecarbon: both optional, neither changes a number."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tpv.errors import TpvError
from tpv.files import atomic_write
from tpv.studies.settings import Config

ENERGY = "energy.json"
Log = Callable[[dict[str, float], int], object]


@contextmanager
def trackers(config: Config, folder: Path) -> Iterator[Log]:
    """A function that logs values at a step to the config's trackers; does nothing without any."""
    if not config.run.trackers:
        yield lambda values, step: None
        return
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, log_with=list(config.run.trackers), project_dir=folder / "trackers")
    about = {"model": config.model.name, "prompt_tokens": config.prompt.tokens, "starts": len(config.seeds.starts)}
    # trackers make folders of it
    accelerator.init_trackers(re.sub(r"[^\w .-]", "_", config.name)[:60].strip(" .") or "run", config=about)
    try:
        yield lambda values, step: accelerator.log(values, step=step)
    finally:
        accelerator.end_training()


def check_trackers(config: Config) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        TpvError: naming it.
    """
    if not config.run.trackers:
        return
    from accelerate.tracking import get_available_trackers

    available = {str(getattr(tracker, "value", tracker)) for tracker in get_available_trackers()}
    missing = [name for name in config.run.trackers if name not in available]
    if missing:
        raise TpvError(
            f"tracker{'s' * (len(missing) > 1)} {', '.join(missing)}",
            expected="an installed package",
            got="none of that name",
            fix=f"pip install {' '.join(missing)}, or drop run.trackers",
        )


@contextmanager
def energy(config: Config, folder: Path) -> Iterator[None]:
    """Measure the energy of what happens inside and add it to `energy.json`, where codecarbon is installed."""
    if not config.run.energy or find_spec("codecarbon") is None:
        yield
        return
    from codecarbon import OfflineEmissionsTracker

    country = config.run.country
    meter = OfflineEmissionsTracker(
        country_iso_code=country or "USA",  # it insists on one; without the user's only the energy is kept
        save_to_file=False,
        log_level="error",
        allow_multiple_runs=True,
    )
    meter.start()
    try:
        yield
    finally:
        emissions = meter.stop()
        data = meter.final_emissions_data
        row = {"seconds": data.duration, "kwh": data.energy_consumed}
        if country:
            row |= {"country": country, "kg_co2eq": emissions}
        with atomic_write(folder / ENERGY) as part:
            part.write_text(json.dumps([*read_energy(folder), row], indent=1))


def read_energy(folder: Path) -> list[dict[str, float]]:
    """What was measured so far, one entry a `tpv run` that ended by itself or by Ctrl-C."""
    try:
        rows: list[dict[str, float]] = json.loads((folder / ENERGY).read_text())
        return [row for row in rows if all(isinstance(row[key], int | float) for key in ("kwh", "seconds"))]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []
