"""The pages of the reference, from the code: names, types and defaults from objects, meanings from docstrings."""
