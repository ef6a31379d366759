"""A plain instruction in words, nothing trained."""

from dataclasses import dataclass

from tpv.prompts.algebra import SoftPrompt
from tpv.registry import register
from tpv.transfers.candidates import Entrant
from tpv.transfers.members import FixedMember
from tpv.transfers.problem import Problem


@register.candidate("instruction", order=10, budgets=("quick", "standard", "thorough"))
@dataclass(frozen=True, kw_only=True)
class InstructionCandidate:
    """The task said in words: nothing is trained, probabilities are calibrated on the rows.

    Attributes:
        text: the instruction; by default one that lists the label words.
    """

    text: str = ""

    def entrants(self, problem: Problem) -> list[Entrant]:
        words = ", ".join(problem.task.labels)
        text = self.text or f"Classify the text. Answer with one of: {words}.\n"
        prompt = SoftPrompt.from_text(problem.backbone, text)
        return [Entrant("instruction", (FixedMember(f"fixed text {text}", prompt),))]
