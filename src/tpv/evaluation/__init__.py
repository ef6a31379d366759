"""Score prompts, predict with them, and search for scales. Light to import: the modules bring torch."""

MAX_INPUT_LENGTH = 256  # tokens that an input text is truncated to, unless told otherwise
