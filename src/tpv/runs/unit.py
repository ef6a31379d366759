"""Calculate one unit of jobs in a run directory and publish what came of it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tpv.errors import TpvError, TrainingError
from tpv.experiments.jobs import Job, tasks_of
from tpv.experiments.settings import Config
from tpv.progress import Progress
from tpv.runs.artifacts import Store, describe
from tpv.runs.directory import Manifest, RunDirectory, differing_splits, open_run
