"""Words the generated tasks are written with.

Tasks of one family draw on the same lists, so that what a prompt learns on one can serve another;
families share almost nothing but function words.
"""

# --- sentiment -----------------------------------------------------------------------------------
MILD = (
    ("bad", "weak", "dull", "poor", "cold", "silly", "bland", "slow", "messy", "flat"),
    ("good", "nice", "fresh", "warm", "clever", "funny", "sweet", "solid", "neat", "kind"),
)
STRONG = (
    ("awful", "terrible", "horrible", "dreadful", "hopeless", "disgusting"),
    ("brilliant", "superb", "perfect", "wonderful", "amazing", "delightful"),
)
OPINION = (MILD[0] + STRONG[0], MILD[1] + STRONG[1])  # indexed by label: 0 negative, 1 positive
INTENSIFIERS = ("very", "really", "truly", "extremely", "so")
SOFTENERS = ("rather", "fairly", "slightly")
NEGATORS = ("not", "never", "hardly")
FILM_PARTS = ("acting", "plot", "story", "script", "ending", "cast", "dialogue", "music", "scene", "humor")
FILM_WORDS = ("movie", "film", "drama", "comedy", "thriller")
PLACE_PARTS = ("food", "service", "staff", "soup", "coffee", "room", "pasta", "burger", "waiter", "dessert")
PLACE_WORDS = ("restaurant", "hotel", "cafe", "bar", "place")
COMPANIONS = ("sister", "brother", "friend", "mother", "neighbor")

# --- language inference --------------------------------------------------------------------------
PEOPLE = ("man", "woman", "boy", "girl", "farmer", "nurse", "pilot", "singer")
ANIMALS = ("dog", "cat", "horse", "goat", "duck", "bear")
# verb: (objects, their hypernym); verbs exclude one another
ACTIONS = {
    "eating": (("apple", "cake", "sandwich", "banana"), "food"),
    "driving": (("car", "truck", "bus", "van"), "vehicle"),
    "playing": (("guitar", "piano", "drum", "violin"), "instrument"),
    "wearing": (("hat", "coat", "shirt", "dress"), "clothing"),
    "holding": (("hammer", "rope", "knife", "shovel"), "tool"),
}
INDOORS = ("kitchen", "office", "library", "cellar")
OUTDOORS = ("garden", "park", "street", "field")
COLORS = ("red", "blue", "green", "black", "white", "yellow")
MOODS = ("tired", "hungry", "happy", "famous", "rich", "lonely")
# science facts for scitail: kind -> (members, hypernym)
SCIENCE_KINDS = {
    "plant": ("moss", "fern", "oak", "corn"),
    "mineral": ("iron", "copper", "salt", "quartz"),
    "star": ("sun", "pulsar", "giant", "dwarf"),
    "insect": ("bee", "ant", "moth", "wasp"),
}
SCIENCE_VERBS = {
    "absorbs": ("light", "water", "heat"),
    "contains": ("carbon", "oxygen", "sugar"),
    "produces": ("energy", "gas", "acid"),
    "reflects": ("radiation", "sound", "color"),
}

# --- topics --------------------------------------------------------------------------------------
TOPICS = {
    "politics": ("president", "minister", "election", "treaty", "army", "border", "parliament"),
    "sports": ("team", "coach", "goal", "league", "player", "tournament", "stadium"),
    "business": ("market", "stock", "profit", "bank", "merger", "investor", "salary"),
    "technology": ("software", "computer", "internet", "satellite", "robot", "browser", "laptop"),
    "science": ("physics", "chemistry", "molecule", "equation", "gravity", "telescope", "atom"),
    "health": ("medicine", "doctor", "fever", "diet", "hospital", "vitamin", "headache"),
    "education": ("exam", "college", "homework", "professor", "essay", "diploma", "lecture"),
    "entertainment": ("concert", "celebrity", "album", "television", "actor", "poster", "band"),
    "family": ("husband", "wife", "wedding", "parents", "divorce", "cousin", "marriage"),
    "society": ("religion", "tradition", "culture", "church", "holiday", "prayer", "customs"),
}
NAMES = (
    "arlen",
    "bodmin",
    "carver",
    "dalia",
    "elwood",
    "fenton",
    "galway",
    "hollis",
    "ivers",
    "jarrow",
    "kelso",
    "lorne",
    "marlow",
    "norwood",
    "orrin",
    "penrose",
    "quincy",
    "rowan",
    "selby",
    "tamsin",
)
COUNTRIES = ("norway", "peru", "kenya", "japan", "canada", "poland")
YEARS = ("1901", "1924", "1957", "1968", "1983", "1999", "2006")
