"""Prompts from elsewhere, or for elsewhere: PEFT adapters, the paper's authors' released files, the hub."""
