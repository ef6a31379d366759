"""Generators of the topic family: dbpedia, trec (sources), ag_news, yahoo (targets)."""

from random import Random

from tpv.mini import lexicon as lex
from tpv.mini.inference import Row, with_article

# class -> (head nouns that decide it, tails); tails mention other classes' nouns as distractors
_DBPEDIA = (
    (("company", "firm", "manufacturer"), ("that sells {animal} food", "founded in {year}")),
    (("school", "university", "academy"), ("for young artists", "founded in {year}")),
    (("painter", "sculptor", "musician"), ("who lived in a village", "born in {year}")),
    (("footballer", "swimmer", "cyclist"), ("who went to school in {country}", "born in {year}")),
    (("governor", "senator", "mayor"), ("who wrote a novel", "elected in {year}")),
    (("ship", "locomotive", "aircraft"), ("named after a river", "built in {year}")),
    (("church", "castle", "tower"), ("beside a lake in {country}", "built in {year}")),
    (("river", "mountain", "lake"), ("near a castle in {country}", "known for its flowers")),
    (("village", "hamlet", "settlement"), ("on a river in {country}", "with a small school")),
    (("beetle", "spider", "lizard"), ("found on a mountain in {country}", "living on flowers")),
    (("herb", "shrub", "orchid"), ("eaten by a beetle", "found near a lake in {country}")),
    (("record", "soundtrack", "mixtape"), ("by a painter from {country}", "released in {year}")),
    (("documentary", "western", "cartoon"), ("about a senator", "released in {year}")),
    (("novel", "magazine", "poem"), ("about a ship", "published in {year}")),
)

KINDS = ("animal", "food", "instrument", "vehicle", "color")


def dbpedia(rng: Random) -> Row:
    label = rng.randrange(len(_DBPEDIA))
    heads, tails = _DBPEDIA[label]
    title = " ".join(rng.sample(lex.NAMES, rng.choice((1, 2))))
    tail = rng.choice(tails).format(
        animal=rng.choice(lex.ANIMALS), year=rng.choice(lex.YEARS), country=rng.choice(lex.COUNTRIES)
    )
    size = rng.choice(("", "small ", "famous ", "local "))
    return {"title": title, "content": f"{title} is a {size}{rng.choice(heads)} {tail}."}, label


def _topic_word(rng: Random) -> str:
    return rng.choice(lex.TOPICS[rng.choice(tuple(lex.TOPICS))])


def trec(rng: Random) -> Row:
    label = rng.randrange(6)
    name, country = rng.choice(lex.NAMES), rng.choice(lex.COUNTRIES)
    one, two = _topic_word(rng), _topic_word(rng)
    letters = " ".join(rng.sample("abcdeghlmnpqrstuvw", 3))
    text = rng.choice(
        (
            (
                f"what does {letters} stand for in {one}?",
                f"what is the short form of {one} {two}?",
                f"what does the abbreviation {letters} mean to the {one}?",
            ),
            (
                f"what {rng.choice(KINDS)} did the {one} of {name} have?",
                f"what kind of {rng.choice(('animal', 'food', 'clothing', 'tool'))} does the {one} need?",
                f"name a {rng.choice(('tool', 'vehicle', 'color', 'food'))} of the {one} in {country}.",
            ),
            (
                f"what is the {one} of a {two}?",
                f"why did {name} need the {one}?",
                f"how does the {one} help {name}?",
                f"what caused the {one} in {country}?",
            ),
            (
                f"who found the {one} in {country}?",
                f"what is the name of the {one} in {country}?",
                f"which person was the first {one} of {name}?",
            ),
            (
                f"where is the {one} of {name}?",
                f"what country has the {one} of {name}?",
                f"which city near {name} has {with_article(one)}?",
            ),
            (
                f"how many {one} records did {name} have?",
                f"what year did {name} see the {one}?",
                f"how much does the {one} of {name} cost?",
            ),
        )[label]
    )
    return {"text": text}, label


def topical(rng: Random, topic: str) -> list[str]:
    """Three nouns: two of `topic`, one distractor of another, the topic's first."""
    first, second = rng.sample(lex.TOPICS[topic], 2)
    other = rng.choice([name for name in lex.TOPICS if name != topic])
    return [first, second, rng.choice(lex.TOPICS[other])]


AG_NEWS_TOPICS = ("politics", "sports", "business", "technology")
YAHOO_TOPICS = (
    "society",
    "science",
    "health",
    "education",
    "technology",
    "sports",
    "business",
    "entertainment",
    "family",
    "politics",
)


def ag_news(rng: Random) -> Row:
    label = rng.randrange(4)
    one, two, other = topical(rng, AG_NEWS_TOPICS[label])
    name, country = rng.choice(lex.NAMES), rng.choice(lex.COUNTRIES)
    text = rng.choice(
        (
            f"{one} news from {country}: the {two} of {name} met {with_article(other)}.",
            f"{name} {two} waits for {one}. {with_article(other)} in {country} agrees.",
            f"new {one} shakes {country}. the {two} and the {other} said no.",
        )
    )
    return {"text": text}, label


def yahoo(rng: Random) -> Row:
    label = rng.randrange(10)
    one, two, other = topical(rng, YAHOO_TOPICS[label])
    title = rng.choice(
        (f"how do i get a better {one}?", f"is {with_article(one)} good for you?", f"what do you think of my {one}?")
    )
    content = rng.choice((f"i read about {two} and {with_article(other)}.", f"my {other} told me about {two}."))
    answer = rng.choice(
        (f"ask {with_article(two)} in {rng.choice(lex.COUNTRIES)}.", "i do not know.", f"look at the {one}.")
    )
    return {"title": title, "content": content, "answer": answer}, label
