"""Run a study: configs, plans, artifacts that outlive a kill, and the loop that makes them."""
