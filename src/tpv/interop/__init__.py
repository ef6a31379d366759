"""Prompts that other programs wrote, or shall read: PEFT adapters, and the paper's authors' released files."""
