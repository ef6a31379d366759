"""Metrics of generated text. `gold` holds the acceptable answers of each example, `said` what was generated.

Those that are means over examples say so with `per_example`, the function of one example that they are the mean of.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import zip_longest
from typing import Any

from tpv.errors import TpvError
from tpv.registry import register

Golds = Sequence[Sequence[str]]
ARTICLES = re.compile(r"\b(a|an|the)\b")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


def normalize_answer(text: str) -> str:
    """Lower case, without punctuation and articles, white space collapsed: as SQuAD's evaluation script has it."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(ARTICLES.sub(" ", bare).split())


def exact_of(gold: Sequence[str], said: str) -> float:
    """Whether the text is one of the answers, after SQuAD's normalization."""
    return float(normalize_answer(said) in {normalize_answer(answer) for answer in gold})


def token_f1_of(gold: Sequence[str], said: str) -> float:
    """Best F1 of the words shared with one of the answers; where either has no words, whether neither has any."""
    return max(_f1(normalize_answer(answer).split(), normalize_answer(said).split()) for answer in gold)


def _f1(gold: list[str], said: list[str]) -> float:
    if not gold or not said:
        return float(gold == said)
    shared = sum((Counter(gold) & Counter(said)).values())
    return 2 * shared / (len(gold) + len(said))


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # brings nltk

    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def _rouge_of(kind: str) -> Callable[[Sequence[str], str], float]:
    def of(gold: Sequence[str], said: str) -> float:
        return float(_rouge().score_multi(list(gold), said)[kind].fmeasure)

    return of


def final_answer(text: str) -> str | None:
    r"""The final answer in a solution: what the last `\boxed{}` holds, or else what follows the last `####`."""
    start = max(text.rfind(r"\boxed{"), text.rfind(r"\fbox{"))
    if start >= 0:
        begin = text.index("{", start) + 1
        depth = 1
        for place in range(begin, len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                return text[begin:place].strip()
        return text[begin:].strip()
    _, mark, after = text.rpartition("####")
    return after.strip().partition("\n")[0].strip() if mark else None


def final_answer_of(gold: Sequence[str], said: str) -> float:
    """Whether the final answer is right: equal as numbers, or else as text without spaces.

    An output that marks no answer is judged by its last number, as is usual for models that were not told how.
    """
    numbers = NUMBER.findall(said)
    answer = final_answer(said) or (numbers[-1] if numbers else said)
    return float(any(_same(final_answer(one) or one, answer) for one in gold))


def _same(one: str, other: str) -> bool:
    a, b = _bare(one), _bare(other)
    x, y = _number(a), _number(b)
    return a == b if x is None or y is None else abs(x - y) <= 1e-6 * max(1.0, abs(x))


def _bare(text: str) -> str:
    """An answer without what is written in one way or another: spaces, dollars, thousands commas, a final stop."""
    text = re.sub(r"\\left|\\right|\\!|\\,|\\;|\\ |\s|\$|\\%|%|\\text\{[^{}]*\}$", "", text)
    text = text.replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")
    return re.sub(r"(?<=\d),(?=\d{3})", "", text).rstrip(".")


def _number(text: str) -> float | None:
    fraction = re.fullmatch(r"(-?)\\frac\{(-?\d+)\}\{(\d+)\}|(-?\d+)/(\d+)", text)
    try:
        if fraction:
            sign, top, bottom, left, right = fraction.groups()
            value = float(top or left) / float(bottom or right)
            return -value if sign else value
        return float(text)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None


def mean_of(of: Callable[[Sequence[str], str], float], gold: Golds, said: Sequence[str]) -> float:
    """The mean over examples of what `of` says of each."""
    if not len(gold) or len(gold) != len(said):
        raise TpvError("texts to score", expected="as many as gold texts, at least one", got=len(said))
    return sum(of(answers, text) for answers, text in zip(gold, said, strict=True)) / len(gold)


def text_exact_match(gold: Golds, said: Sequence[str]) -> float:
    """Share of examples whose text is one of the answers, after SQuAD's normalization (Rajpurkar et al., 2016)."""
    return mean_of(exact_of, gold, said)


def text_majority(gold: Golds) -> float:
    """Exact match of always saying the most frequent gold text."""
    common, _ = Counter(normalize_answer(answers[0]) for answers in gold).most_common(1)[0]
    return mean_of(exact_of, gold, [common] * len(gold))


@register.metric("token_f1", order=20, scope="text", field="token_f1", title="token F1", per_example=token_f1_of)
def token_f1(gold: Golds, said: Sequence[str]) -> float:
    """Mean F1 of the words shared with the nearest answer, after SQuAD's normalization; v2's rule for no answer."""
    return mean_of(token_f1_of, gold, said)


@register.metric("rouge1", order=21, scope="text", field="rouge1", title="ROUGE-1", per_example=_rouge_of("rouge1"))
def rouge1(gold: Golds, said: Sequence[str]) -> float:
    """Mean ROUGE-1 F-measure (rouge-score, with its stemmer), the best over answers."""
    return mean_of(_rouge_of("rouge1"), gold, said)


@register.metric("rouge2", order=22, scope="text", field="rouge2", title="ROUGE-2", per_example=_rouge_of("rouge2"))
def rouge2(gold: Golds, said: Sequence[str]) -> float:
    """Mean ROUGE-2 F-measure (rouge-score, with its stemmer), the best over answers."""
    return mean_of(_rouge_of("rouge2"), gold, said)


@register.metric("rouge_l", order=23, scope="text", field="rouge_l", title="ROUGE-L", per_example=_rouge_of("rougeL"))
def rouge_l(gold: Golds, said: Sequence[str]) -> float:
    """Mean ROUGE-L F-measure (rouge-score, with its stemmer), the best over answers."""
    return mean_of(_rouge_of("rougeL"), gold, said)


def _references(gold: Golds) -> Any:
    """The answers as sacrebleu takes them: a list for the first of each example, one for the second, ..."""
    return [list(column) for column in zip_longest(*gold)]


@register.metric("bleu", order=24, scope="text", field="bleu", title="BLEU")
def bleu(gold: Golds, said: Sequence[str]) -> float:
    """Corpus BLEU (sacrebleu's default), as a share: 0.3 is what papers call 30."""
    from sacrebleu import corpus_bleu

    return float(corpus_bleu(list(said), _references(gold)).score) / 100


@register.metric("chrf", order=25, scope="text", field="chrf", title="chrF")
def chrf(gold: Golds, said: Sequence[str]) -> float:
    """Corpus chrF2 (sacrebleu's default), as a share."""
    from sacrebleu import corpus_chrf

    return float(corpus_chrf(list(said), _references(gold)).score) / 100


def has_final_answers(gold: Golds) -> bool:
    """Whether every example marks a final answer."""
    return all(final_answer(answers[0]) is not None for answers in gold)


@register.metric(
    "final_answer",
    order=26,
    scope="text",
    field="final_answer",
    title="final answer",
    applies=has_final_answers,
    per_example=final_answer_of,
)
def final_answer_accuracy(gold: Golds, said: Sequence[str]) -> float:
    r"""Share of examples whose final answer (`\boxed{}` or `####`) is right; only where gold texts mark one."""
    return mean_of(final_answer_of, gold, said)
