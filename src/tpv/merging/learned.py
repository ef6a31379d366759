"""A weighted sum whose weights are learned from a few labelled rows (LoraHub, Huang et al., 2023, for prompts)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from tpv.errors import TpvError
from tpv.merging.parts import Seed
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.registry import register


@register.merge("learned", order=80, learns=True)
def learned(
    vectors: Sequence[TaskPromptVector],
    *,
    backbone: Any,
    task: Any,
    init: Any = None,
    steps: Annotated[int, Field(ge=1)] = 40,
    seed: Seed = 0,
    max_input_length: Annotated[int, Field(ge=1)] = 256,
    way: Literal["gradient", "search"] = "gradient",
    per_token: bool = False,
    penalty: Annotated[float, Field(ge=0)] = 0.01,
) -> Tensor:
    """Learned weights: from the training rows of a task, by gradient through the frozen model or by a search.

    Args:
        backbone: the model of the vectors; on the command line, `--model`.
        task: the task with the training rows to learn from; on the command line, `--task` or `--train`.
        init: the initialization that the sum is added to in learning; by default a random one.
        steps: steps of learning, 16 rows each; with a search, its generations.
        seed: seed of the initialization, the order of rows and the search.
        max_input_length: texts are truncated to this many tokens.
        way: `gradient`, or `search`: CMA-ES on the likelihood of the labels, which takes no gradients.
        per_token: one weight for each vector and token, by gradient only.
        penalty: L1 penalty, so that vectors that do not help get weights near 0.

    Returns:
        The weights, [N] or [N, P].
    """
    from tpv.tasks import Task
    from tpv.training.coefficients import learn_coefficients
    from tpv.training.recipe import BATCH, Recipe

    if not hasattr(backbone, "identity"):
        raise TpvError("backbone of a learned merge", expected="a model", got=f"{backbone!r:.40}", fix="load_backbone")
    if not isinstance(task, Task) or not task.splits.get("train"):
        raise TpvError("task of a learned merge", expected="a Task with training rows", got=f"{task!r:.40}")
    if not isinstance(init, SoftPrompt | None):
        raise TpvError("init of a learned merge", expected="a SoftPrompt", got=type(init).__name__)
    recipe = Recipe(
        steps=steps,
        batch_size=min(BATCH, len(task.examples("train"))),
        warmup_steps=steps // 10,
        select="last",
        max_input_length=max_input_length,
        seed=seed,
    )
    start = init or SoftPrompt.sample(backbone, vectors[0].num_tokens, seed=seed)
    (weights,) = learn_coefficients(
        backbone, [task], vectors, start, recipe, way=way, per_token=per_token, penalty=penalty
    )
    return weights
