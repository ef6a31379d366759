"""Soft prompts and task prompt vectors: the algebra, where they come from, how they are stored and compared."""
