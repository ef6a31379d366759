"""Generators of the inference family: mnli, qnli (sources), snli, scitail (targets)."""

from random import Random

from tpv.mini import lexicon as lex

Row = tuple[dict[str, str], int]
ENTAILMENT, NEUTRAL, CONTRADICTION = 0, 1, 2


def with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeio" else f"a {noun}"


def _other(rng: Random, options: tuple[str, ...], this: str) -> str:
    return rng.choice([option for option in options if option != this])


def mnli(rng: Random) -> Row:
    label = rng.randrange(3)
    who = rng.choice(lex.PEOPLE)
    verb = rng.choice(tuple(lex.ACTIONS))
    objects, hypernym = lex.ACTIONS[verb]
    thing = rng.choice(objects)
    inside = rng.random() < 0.5
    place = rng.choice(lex.INDOORS if inside else lex.OUTDOORS)
    negated = rng.random() < 0.2
    is_, is_not = ("is not", "is") if negated else ("is", "is not")
    premise = f"the {who} {is_} {verb} {with_article(thing)} in the {place}."
    # statements that hold, and ones that cannot; a negated premise only speaks of its own action
    if negated:
        holds = [f"the {who} {is_} {verb} {with_article(thing)}.", f"the {who} {is_} {verb} that {thing}."]
        fails = [f"the {who} {is_not} {verb} {with_article(thing)}.", f"the {who} {is_not} {verb} that {thing}."]
    else:
        other_verb = _other(rng, tuple(lex.ACTIONS), verb)
        holds = [
            f"a person is {verb} something.",
            f"the {who} is {verb} {hypernym}.",
            f"the {who} is {'inside' if inside else 'outside'}.",
            f"there is {with_article(thing)} in the {place}.",
        ]
        fails = [
            f"nobody is {verb} something.",
            f"the {who} is {other_verb} {lex.ACTIONS[other_verb][1]}.",
            f"the {who} is {'outside' if inside else 'inside'}.",
            f"there is no {thing} in the {place}.",
        ]
    unknown = [
        f"the {who} is {rng.choice(lex.MOODS)}.",
        f"the {who} likes the {rng.choice((place, thing))}.",
        f"the {thing} is {rng.choice(lex.COLORS)}.",
        f"the {who} will leave the {place} soon.",
    ]
    return {"premise": premise, "hypothesis": rng.choice((holds, unknown, fails)[label])}, label


def snli(rng: Random) -> Row:
    label = rng.randrange(3)
    who = rng.choice(lex.PEOPLE + lex.ANIMALS)
    kind = "animal" if who in lex.ANIMALS else "person"
    verb = rng.choice(tuple(lex.ACTIONS))
    objects, hypernym = lex.ACTIONS[verb]
    thing, color = rng.choice(objects), rng.choice(lex.COLORS)
    inside = rng.random() < 0.5
    place = rng.choice(lex.INDOORS if inside else lex.OUTDOORS)
    other_verb = _other(rng, tuple(lex.ACTIONS), verb)
    premise = f"{with_article(who)} {verb} a {color} {thing} near a {place}."
    options = (
        (
            f"there is {with_article(kind)} with {with_article(thing)}.",
            f"{with_article(who)} is {verb} {hypernym}.",
            f"the {thing} is {color}.",
            f"someone is {verb} something.",
        ),
        (
            f"{with_article(who)} is {rng.choice(lex.MOODS)}.",
            f"{with_article(who)} likes the {thing}.",
            f"{with_article(who)} will leave the {place} soon.",
        ),
        (
            f"there is no {kind} near a {place}.",
            f"{with_article(who)} is {other_verb} {lex.ACTIONS[other_verb][1]}.",
            f"the {thing} is {_other(rng, lex.COLORS, color)}.",
            f"nobody is {verb} something.",
        ),
    )
    return {"premise": premise, "hypothesis": rng.choice(options[label])}, label


def scitail(rng: Random) -> Row:
    label = rng.randrange(2)
    kind = rng.choice(tuple(lex.SCIENCE_KINDS))
    member = rng.choice(lex.SCIENCE_KINDS[kind])
    verb = rng.choice(tuple(lex.SCIENCE_VERBS))
    thing = rng.choice(lex.SCIENCE_VERBS[verb])
    other_verb = _other(rng, tuple(lex.SCIENCE_VERBS), verb)
    premise = f"the {member} is {with_article(kind)} that {verb} {thing} in {rng.choice(lex.COUNTRIES)}."
    options = (
        (
            f"the {member} {verb} {thing}.",
            f"{with_article(kind)} {verb} {thing}.",
            f"the {member} is {with_article(kind)}.",
        ),
        (
            f"the {member} {other_verb} {rng.choice(lex.SCIENCE_VERBS[other_verb])}.",
            f"the {member} {verb} {_other(rng, lex.SCIENCE_VERBS[verb], thing)}.",
            f"the {thing} is {rng.choice(lex.COLORS)}.",
        ),
    )
    return {"premise": premise, "hypothesis": rng.choice(options[label])}, label


def qnli(rng: Random) -> Row:
    label = rng.randrange(2)  # 0 entailment (the sentence answers), 1 not_entailment
    who, someone = rng.sample(lex.PEOPLE, 2)
    verb = rng.choice(tuple(lex.ACTIONS))
    thing = rng.choice(lex.ACTIONS[verb][0])
    place = rng.choice(lex.INDOORS + lex.OUTDOORS)
    mood = rng.choice(lex.MOODS)
    asked = rng.choice(("where", "what", "how", "who"))
    says = {
        "where": f"the {who} is in the {place}",
        "what": f"the {who} is {verb} {with_article(thing)}",
        "how": f"the {who} looks {mood}",
        "who": f"the {who} is {verb} {with_article(thing)}",
    }
    question = {
        "where": f"where is the {who}?",
        "what": f"what is the {who} {verb}?",
        "how": f"how does the {who} look?",
        "who": f"who is {verb} {with_article(thing)}?",
    }[asked]
    if label == 0:
        return {"question": question, "sentence": f"{says[asked]}."}, label
    elsewhere = rng.choice([aspect for aspect in ("where", "what", "how") if aspect != asked])
    if asked == "who":  # another act, or the same person without the act
        other_verb = _other(rng, tuple(lex.ACTIONS), verb)
        wrong = f"the {who} is {other_verb} {with_article(rng.choice(lex.ACTIONS[other_verb][0]))}"
        wrong = rng.choice((wrong, says["where"], says["how"]))
    else:  # the asked aspect of somebody else, or another aspect of the right person
        wrong = rng.choice((says[asked].replace(f"the {who}", f"the {someone}"), says[elsewhere]))
    return {"question": question, "sentence": f"{wrong}."}, label
