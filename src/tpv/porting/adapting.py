"""A few steps on the target, on labelled rows or on what the source model says to unlabelled ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor

from tpv.errors import TpvError
from tpv.evaluation.bank import check_bank, paired
from tpv.evaluation.each import each_on_all
from tpv.evaluation.encode import check_texts
from tpv.evaluation.predict import rendered
from tpv.models import Backbone
from tpv.porting.distilled import Answers, Distilled
from tpv.progress import Callback
from tpv.prompts.algebra import SoftPrompt
from tpv.prompts.provenance import Adaptation
from tpv.tasks import Example, Task
from tpv.training.fit import PromptMethod, fit
from tpv.training.recipe import FEW_ROWS, Recipe, few_rows

Teacher = Literal["labels", "source"]
Texts = Sequence[str] | Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class Lessons:
    """What the prompts train on after they were ported.

    Attributes:
        tasks: one for each prompt.
        teacher: what rows teach, see `tpv.port`.
        recipe: how to train; by default what suits the number of rows.
    """

    tasks: Sequence[Task]
    teacher: Teacher
    recipe: Recipe | None


def lessons_of(
    data: Task | Sequence[Task] | None, texts: Texts | None, teacher: Teacher, recipe: Recipe | None, count: int
) -> Lessons | None:
    """The lessons of `count` prompts, None where there are none.

    Raises:
        TpvError: an unknown teacher; texts or a recipe without tasks; texts without the source as a teacher; a text
            task with it, since its answers are not a few label words.
    """
    if teacher not in get_args(Teacher):
        raise TpvError("teacher", expected=" or ".join(map(repr, get_args(Teacher))), got=f"{teacher!r:.40}")
    if data is None:
        unused = [
            name for name, value in (("texts", texts), ("recipe", recipe), ("teacher", teacher != "labels")) if value
        ]
        if unused:
            raise TpvError(f"{', '.join(unused)} without data", fix="give a task as data, which has the label words")
        return None
    tasks = paired(data, count)
    if texts is not None and teacher != "source":
        raise TpvError("texts have no labels to learn from", expected="teacher='source'", got=f"teacher={teacher!r}")
    for task in tasks:
        if teacher == "source" and not task.labels:
            raise TpvError(f"task {task.name!r} has no label words", expected="a label task, for teacher='source'")
    return Lessons(tasks if texts is None else [unlabelled(task, texts) for task in tasks], teacher, recipe)


def unlabelled(task: Task, texts: Texts) -> Task:
    """A task whose only rows are training rows without labels.

    Raises:
        TpvError: no texts, an empty text, a row without a field of the task.
    """
    whole = rendered(task, texts)
    check_texts(whole)
    rows = tuple(Example(str(number), text, "", 0, task.spec.cue) for number, text in enumerate(whole))
    return replace(task, splits={"train": rows})


def adapted(
    backbone: Backbone,
    starts: Sequence[SoftPrompt],
    lessons: Lessons,
    teach: Callable[[], tuple[Backbone, Sequence[SoftPrompt]]],
    callback: Callback | None,
) -> list[tuple[Tensor, Adaptation]]:
    """The tuned values [P, H] of each start, and what they were tuned on.

    Args:
        teach: gives the source model and the old prompts; called where the source is the teacher.
    """
    check_bank(backbone, starts)
    tasks = list(lessons.tasks)
    method: PromptMethod | str = "prompt_tuning"
    if lessons.teacher == "source":
        source, old = teach()
        check_bank(source, old)
        length = (lessons.recipe or Recipe()).max_input_length
        answers: dict[tuple[str, str], Answers] = {}
        for number, (task, prompt, start) in enumerate(zip(lessons.tasks, old, starts, strict=True)):
            tasks[number], answered = _answered(source, task, prompt, length)
            answers[start.digest, tasks[number].fingerprint] = answered
        method = Distilled(answers)
    recipes = [_recipe(lessons, task) for task in tasks]
    if len(set(recipes)) == 1:
        tuned = fit(backbone, tasks, starts, recipes[0], method=method, callback=callback)
    else:
        tuned = [
            fit(backbone, task, start, recipe, method=method, callback=callback)
            for task, start, recipe in zip(tasks, starts, recipes, strict=True)
        ]
    return [
        (prompt.tensor, _record(task, recipe, lessons.teacher))
        for prompt, task, recipe in zip(tuned, tasks, recipes, strict=True)
    ]


def _recipe(lessons: Lessons, task: Task) -> Recipe:
    """How to train on a task; nothing is chosen by labels where the source teaches."""
    rows = len(task.examples("train"))
    judging = len(task.splits.get("validation", ())) if lessons.teacher == "labels" else 0
    recipe = lessons.recipe
    if recipe is None:
        recipe = Recipe(**few_rows(rows, judging)) if rows < FEW_ROWS and task.labels else Recipe()
    return recipe if judging else replace(recipe, select="last")


def _record(task: Task, recipe: Recipe, teacher: Teacher) -> Adaptation:
    rows = len(task.examples("train"))
    return Adaptation(task=task.name, data=task.fingerprint, rows=rows, steps=recipe.total_steps(rows), teacher=teacher)


def _answered(source: Backbone, task: Task, prompt: SoftPrompt, max_input_length: int) -> tuple[Task, Answers]:
    """A task whose only rows are its training rows with the source's likeliest labels; the probabilities of all."""
    rows = task.examples("train")
    (said,) = each_on_all(source, task, [prompt], rows, max_input_length)
    labelled = tuple(
        replace(row, label=label, target=task.labels[label], value=None)
        for row, label in zip(rows, said.argmax(1).tolist(), strict=True)
    )
    return replace(task, splits={"train": labelled}), dict(zip(labelled, said.tolist(), strict=True))
