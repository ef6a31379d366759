"""Parts of every config: families of tasks, limits, the authors' quirks, and how to run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tpv.studies.tables import Count, Distinct, Name, Settings, Switch, Whole


class Limits(Settings):
    """At most so many examples of a task in each split, class distribution kept.

    Attributes:
        train: at most so many training rows.
        validation: at most so many validation rows.
        test: at most so many test rows.
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
    """How to run; none of it but `bank` and `cpus` can change a number, and those only in the last bits.

    Attributes:
        bank: how many prompts train together at most.
        cpus: cores of a worker, the threads it calculates with; 0 for all there are, which only one worker can have.
        gpus: what a worker takes of a GPU; 0 leaves it to a single worker to use what is there.
        trackers: where training is logged, through accelerate.
        energy: measure energy where codecarbon is installed.
        country: yours, as three letters; without it energy is kept and emissions are not.
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
        name: of the family.
        sources: tasks whose prompts and vectors are trained.
        targets: new tasks that they initialize.
        min_shots: few-shot samples are no smaller than this (the paper's topic tasks start at 10).
    """

    name: Name
    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    targets: tuple[str, ...] = ()
    min_shots: Whole = 0
