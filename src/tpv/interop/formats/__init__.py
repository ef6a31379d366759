"""Formats of other programs that prompts are read from and written to. A file a format; each registers itself."""
