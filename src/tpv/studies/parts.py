"""Parts of every config: families of tasks, limits, the authors' quirks, and how to run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tpv.studies.tables import Count, Distinct, Name, Settings, Switch, Whole


class Limits(Settings):
    """Caps on the rows of a task in each split; the class distribution is kept.

    Attributes:
        train: at most this many training rows; all by default.
        validation: at most this many validation rows.
        test: at most this many test rows.
    """

    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None


class Quirks(Settings):
    """What the authors' code does and the paper does not say; numbers as in docs/quirks.md. All off by default.

    Attributes:
        doubled_prompt: (1) only the first half of a prompt's rows is read.
        first_5000: (2) initializations are sampled from token ids below 5,000.
        label_padding: (3) the padding of label words enters the loss.
        sst5_is_sst2: (4) the target called sst5 has the rows and label words of sst2.
        authors_f1: (5) F1 of the positive class for binary tasks, words compared on 16 characters.
        few_shot_validation: (6) 250 validation examples for few-shot runs, one sample for all initializations.
        select_by_loss: (7) the best checkpoint is the one of lowest validation loss.
        authors_splits: (8) MNLI validates on mismatched, TREC halves its test split.
        model_dropout: (16) the frozen model's dropout stays on in training.
        trainer_defaults: (17) linear decay, clipping at 1.0, seed 42 for splits and order.
    """

    doubled_prompt: Switch = False
    first_5000: Switch = False
    label_padding: Switch = False
    sst5_is_sst2: Switch = False
    authors_f1: Switch = False
    few_shot_validation: Switch = False
    select_by_loss: Switch = False
    authors_splits: Switch = False
    model_dropout: Switch = False
    trainer_defaults: Switch = False


class Execution(Settings):
    """How to run. Only `bank` and `cpus` can change a number, and only in its last bits.

    Attributes:
        bank: prompts that train together; each bank is one unit of work for a worker.
        cpus: cores per worker, which is also its number of threads; 0 for all cores, with one worker only.
        gpus: share of a GPU per worker; 0 lets a single worker use what is there.
        trackers: experiment trackers that get losses and scores, through accelerate.
        energy: measure the energy a run uses, where codecarbon is installed (`tpv[energy]`).
        country: ISO code of the country whose electricity mix is assumed, such as `DEU`.
    """

    bank: Count = 32
    cpus: Whole = 0
    gpus: Annotated[float, Field(ge=0, le=1, strict=True)] = 0
    trackers: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], Distinct] = ()
    energy: Switch = True
    country: Annotated[str, Field(pattern="^[A-Z]{3}$")] | None = None


class Family(Settings):
    """Source tasks and the target tasks that their prompts and the sum of their vectors initialize.

    Attributes:
        name: what the family is called.
        sources: tasks to tune prompts on.
        targets: tasks that the sources' prompts and the sum of their vectors initialize.
        min_shots: few-shot samples are no smaller than this (the paper's topic tasks start at 10).
    """

    name: Name
    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    targets: tuple[str, ...] = ()
    min_shots: Whole = 0
