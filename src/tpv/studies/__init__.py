"""The paper's protocol: what is to be calculated, and the numbers that come of it."""
