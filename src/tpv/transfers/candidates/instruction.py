"""A plain instruction in words, nothing trained."""

from dataclasses import dataclass

from tpv.prompts.algebra import SoftPrompt
from tpv.registry import register
from tpv.transfers.candidates import Entrant
from tpv.transfers.contest import Contest
from tpv.transfers.members import FixedMember


@register.candidate("instruction", order=10, budgets=("quick", "standard", "thorough"))
@dataclass(frozen=True, kw_only=True)
class Instruction:
    """The task said in words: nothing is trained, probabilities are calibrated on the rows."""

    text: str = ""

    def entrants(self, contest: Contest) -> list[Entrant]:
        words = ", ".join(contest.task.labels)
        text = self.text or f"Classify the text. Answer with one of: {words}.\n"
        prompt = SoftPrompt.from_text(contest.backbone, text)
        return [Entrant("instruction", (FixedMember(f"fixed text {text}", prompt),))]
