"""Metrics of text against rouge-score, sacrebleu, SQuAD's rules worked by hand, and answers of GSM8K's and MATH's form."""

import collections
import re
import string

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

import tpv
from tpv.metrics import text


def squad_tokens(s):
    """SQuAD's evaluation, said again: lower, no punctuation, no articles, split."""
    s = "".join(c for c in s.lower() if c not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", s).split()


def squad_f1(gold, said):
    a, b = squad_tokens(gold), squad_tokens(said)
    if not a or not b:
        return float(a == b)
    same = sum((collections.Counter(a) & collections.Counter(b)).values())
    if not same:
        return 0.0
    precision, recall = same / len(b), same / len(a)
    return 2 * precision * recall / (precision + recall)


words = st.lists(st.sampled_from(["the", "a", "cat", "Cat,", "dog", "runs", "fast.", "", "é"]), max_size=6).map(
    " ".join
)


@given(st.lists(st.tuples(st.lists(words, min_size=1, max_size=3), words), min_size=1, max_size=8))
def test_squad_against_the_rules_said_again(rows):
    gold, said = [answers for answers, _ in rows], [output for _, output in rows]
    exact = [max(squad_tokens(g) == squad_tokens(s) for g in answers) for answers, s in rows]
    assert text.text_exact_match(gold, said) == pytest.approx(sum(exact) / len(rows))
    f1 = [max(squad_f1(g, s) for g in answers) for answers, s in rows]
    assert text.token_f1(gold, said) == pytest.approx(sum(f1) / len(rows))


@pytest.mark.parametrize(
    ("gold", "said", "exact", "f1"),
    [
        (["Denver Broncos"], "the Denver Broncos!", 1, 1),
        (["Denver Broncos"], "Broncos", 0, 2 / 3),
        (["10th and 11th centuries", "in the 10th and 11th centuries"], "In the 10th and 11th centuries.", 1, 1),
        (["gold anniversary", "golden anniversary"], "50th gold anniversary", 0, 0.8),
        (["unanswerable"], "unanswerable", 1, 1),  # how a task says that there is no answer
        (["unanswerable"], "1976", 0, 0),
        (["the"], "a", 1, 1),  # nothing is left of either: SQuAD v2's rule for no answer
        (["the"], "cat", 0, 0),
    ],
)
def test_squad_by_hand(gold, said, exact, f1):
    assert text.text_exact_match([gold], [said]) == exact
    assert text.token_f1([gold], [said]) == pytest.approx(f1)


GOLD = [["the cat sat on the mat", "a cat is sitting there"], ["dogs run fast"], ["it rains and rains"], ["we left"]]
SAID = ["a cat sat on a mat", "the dogs are running", "", "we left"]


def test_rouge_is_rouge_scores():
    for name, of in (("rouge1", text.rouge1), ("rouge2", text.rouge2), ("rougeL", text.rouge_l)):
        scorer = rouge_scorer.RougeScorer([name], use_stemmer=True)
        best = [max(scorer.score(g, s)[name].fmeasure for g in golds) for golds, s in zip(GOLD, SAID, strict=True)]
        assert of(GOLD, SAID) == pytest.approx(sum(best) / len(best))


def test_bleu_and_chrf_are_sacrebleus():
    references = [[golds[0] for golds in GOLD], [golds[1] if len(golds) > 1 else None for golds in GOLD]]
    assert text.bleu(GOLD, SAID) == pytest.approx(sacrebleu.corpus_bleu(SAID, references).score / 100)
    assert text.chrf(GOLD, SAID) == pytest.approx(sacrebleu.corpus_chrf(SAID, references).score / 100)
    single = [[golds[0]] for golds in GOLD]
    expected = sacrebleu.corpus_bleu(SAID, [[golds[0] for golds in GOLD]]).score / 100
    assert text.bleu(single, SAID) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("gold", "said", "right"),
    [
        ("3 * 4 = 12\n#### 12", "so it is 12 apples\n#### 12", True),
        ("#### 1,200", "The answer is $1200.", True),
        ("#### 1,200", "#### 1,201", False),
        ("#### 18", "9 + 9 = 18", True),
        ("#### 18", "18 - 9 = 9", False),
        ("#### 0.5", r"thus \boxed{\frac{1}{2}}", True),
        (r"so \boxed{\frac{3}{4}}", r"\boxed{\dfrac{3}{4}}", True),
        (r"so \boxed{x^{2} + 1}", r"we get \boxed{x^{2}+1}.", True),
        (r"so \boxed{x^{2} + 1}", r"\boxed{x^{2}}", False),
        (r"first \boxed{1}, then \boxed{-2}", "#### -2", True),
        ("#### 5", "", False),
        (r"\boxed{12\%}", r"\boxed{12}", True),
    ],
)
def test_final_answers(gold, said, right):
    assert text.final_answer_accuracy([[gold]], [said]) == float(right)


def test_final_answer_is_only_where_gold_texts_mark_one():
    assert [entry.name for entry in tpv.metrics.of_text([["#### 5"], ["no answer"]])] == [
        "token_f1",
        "rouge1",
        "rouge2",
        "rouge_l",
        "bleu",
        "chrf",
    ]
    assert "final_answer" in [entry.name for entry in tpv.metrics.of_text([["#### 5"], [r"\boxed{1}"]])]


def test_majority_and_refusals():
    assert text.text_majority([["Yes"], ["yes."], ["no"]]) == pytest.approx(2 / 3)
    with pytest.raises(tpv.TpvError, match="at least one"):
        text.token_f1([], [])
