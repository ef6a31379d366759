"""Training: the recipe, the order of rows, what trains, its state on disk, and the loop. Light to import."""
