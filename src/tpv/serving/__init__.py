"""A server of many prompts on one frozen model, and its client."""
