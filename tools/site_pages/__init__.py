"""The generated pages of the site: the reference, from the code, and the examples, executed."""
