"""Generators of the sentiment family: sst2, yelp (sources), imdb, sst5 (targets)."""

from random import Random

from tpv.mini import lexicon as lex

Row = tuple[dict[str, str], int]
NEGATIVE, NEUTRAL, POSITIVE = 0, 2, 1


def _opinion(rng: Random, parts: tuple[str, ...], label: int) -> str:
    """A clause that says `label` of a part: plainly, intensified, or by negating the opposite."""
    part = rng.choice(parts)
    kind = rng.randrange(8)
    if kind < 3:
        return f"the {part} is {rng.choice(lex.OPINION[label])}"
    if kind < 5:
        return f"the {part} is {rng.choice(lex.INTENSIFIERS)} {rng.choice(lex.OPINION[label])}"
    if kind == 5:
        return f"the {part} is {rng.choice(lex.NEGATORS)} {rng.choice(lex.OPINION[1 - label])}"
    return f"i found the {part} {rng.choice(lex.OPINION[label])}"


def sst2(rng: Random) -> Row:
    label = rng.randrange(2)
    same, other = rng.choice(lex.OPINION[label]), rng.choice(lex.OPINION[1 - label])
    first, second = rng.sample(lex.FILM_PARTS, 2)
    word = rng.choice(lex.FILM_WORDS)
    kind = rng.randrange(10)
    if kind < 3:
        text = f"a {same} {word} with a {rng.choice(lex.OPINION[label])} {first}."
    elif kind == 3:
        text = f"the {first} looks {other}, but {_opinion(rng, lex.FILM_PARTS, label)}."
    elif kind == 4:
        text = f"despite the {other} {first}, {_opinion(rng, lex.FILM_PARTS, label)}."
    elif kind == 5:
        text = f"critics called this {word} {other}, but they are wrong about the {first}."
    elif kind == 6:
        text = f"nothing in the {first} or the {second} is {other}."
    else:
        text = f"{_opinion(rng, lex.FILM_PARTS, label)} and {_opinion(rng, lex.FILM_PARTS, label)}."
    return {"sentence": text}, label


def yelp(rng: Random) -> Row:
    label = rng.randrange(2)
    place, other_place = rng.sample(lex.PLACE_WORDS, 2)
    companion = rng.choice(lex.COMPANIONS)
    opinion = f"{_opinion(rng, lex.PLACE_PARTS, label)}."
    verdict = rng.choice(
        (
            ("i will never come back.", "we left early.", "a waste of money.", "i want a refund."),
            ("i will come back soon.", "we stayed late.", "worth the money.", "i want to return."),
        )[label]
    )
    distractor = rng.choice(
        (
            f"the {other_place} next door is {rng.choice(lex.OPINION[1 - label])}.",
            f"my {companion} told me it would be {rng.choice(lex.OPINION[1 - label])}.",
            f"we ordered {rng.choice(lex.PLACE_PARTS)} at this {place}.",
        )
    )
    sentences = [distractor, opinion]
    if rng.random() < 0.5:
        sentences.append(verdict)
    return {"text": " ".join(sentences)}, label


def imdb(rng: Random) -> Row:
    label = rng.randrange(2)
    word = rng.choice(lex.FILM_WORDS)
    opening = rng.choice(
        (
            f"i watched this {word} with my {rng.choice(lex.COMPANIONS)}.",
            f"this {word} is about a {rng.choice(lex.PEOPLE)} in a {rng.choice(lex.OUTDOORS)}.",
            f"my {rng.choice(lex.COMPANIONS)} thinks this {word} is {rng.choice(lex.OPINION[1 - label])}.",
        )
    )
    closing = rng.choice(
        (f"{_opinion(rng, lex.FILM_PARTS, label)}.", f"overall it is a {rng.choice(lex.OPINION[label])} {word}.")
    )
    return {"text": f"{opening} {_opinion(rng, lex.FILM_PARTS, label)}. {closing}"}, label


def _graded(rng: Random, part: str, grade: int) -> str:
    """A clause on the five-point scale: 0 very negative .. 4 very positive."""
    side = 0 if grade < 2 else 1
    if grade in (0, 4):
        if rng.random() < 0.5:
            return f"the {part} is {rng.choice(lex.STRONG[side])}"
        return f"the {part} is {rng.choice(lex.INTENSIFIERS)} {rng.choice(lex.MILD[side])}"
    kind = rng.randrange(3)
    if kind == 0:
        return f"the {part} is {rng.choice(lex.MILD[side])}"
    if kind == 1:
        return f"the {part} is {rng.choice(lex.SOFTENERS)} {rng.choice(lex.MILD[side])}"
    return f"the {part} is not {rng.choice(lex.MILD[1 - side])}"


def graded_text(rng: Random, grade: int, parts: tuple[str, ...], word: str) -> str:
    """One sentence whose opinion has `grade` 0..4; grade 2 is factual or balanced."""
    part, other = rng.sample(parts, 2)
    if grade == 2:
        if rng.random() < 0.5:
            return f"the {word} has a {part} and a {other} from {rng.choice(lex.COUNTRIES)}."
        good, bad = _graded(rng, part, 3), _graded(rng, other, 1)
        return f"{good} while {bad}." if rng.random() < 0.5 else f"{bad} while {good}."
    if rng.random() < 0.5:
        return f"in this {word} {_graded(rng, part, grade)}."
    return f"{_graded(rng, part, grade)} and so {_graded(rng, other, grade)}."


def sst5(rng: Random) -> Row:
    grade = rng.randrange(5)
    return {"text": graded_text(rng, grade, lex.FILM_PARTS, rng.choice(lex.FILM_WORDS))}, grade
