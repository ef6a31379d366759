"""Keep vectors in a folder, and see what is in it."""

ORDER = 65
