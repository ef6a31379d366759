"""Tasks and models small enough to make on the spot."""

from pathlib import Path

import torch

import tpv
from tpv.models import Seq2SeqBackbone

CAUSAL = {
    "llama": ("Llama", {"num_key_value_heads": 1}),
    "qwen2": ("Qwen2", {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3", {"num_key_value_heads": 1, "head_dim": 16}),
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}),
    "gemma2": ("Gemma2", {"num_key_value_heads": 1, "head_dim": 16, "sliding_window": 8}),
    "gemma3": ("Gemma3Text", {"num_key_value_heads": 1, "head_dim": 16, "sliding_window": 8}),
    "mistral": ("Mistral", {"num_key_value_heads": 1, "sliding_window": 8}),
}
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_rating(folder: Path, name: str = "rating") -> Path:
    """A task file whose label words are numbers, with rows whose own numbers lie between them."""
    words = ["the", "man", "is", "eating", "an", "apple", "in", "a", "garden", "and", "not", "good"]
    rows = [f"{' '.join(words[i % 12 :][:4])},{(i * 7 % 12) / 3}" for i in range(36)]
    (folder / f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    path = folder / f"{name}.toml"
    path.write_text(
        f'name = "{name}"\nfields = ["text"]\ntemplate = "{{text}}"\nlabels = ["0", "1", "2", "3", "4"]\n'
        f'metric = "pearson"\n[source]\nkind = "files"\ntrain = "{name}.csv"\ntest = "{name}.csv"\n'
    )
    return path


def teach(backbone: Seq2SeqBackbone, task: tpv.Task, steps: int = 60) -> None:
    """Train the *model* a little on a task, so that it says label words, right and wrong ones."""
    model = backbone.model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rows = task.examples("train")
    inputs = backbone.tokenizer([row.source for row in rows], return_tensors="pt", padding=True)
    targets = backbone.tokenizer([row.target for row in rows], return_tensors="pt", padding=True)["input_ids"]
    for _ in range(steps):
        model(**inputs, labels=targets.masked_fill(targets == 0, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.requires_grad_(False)
