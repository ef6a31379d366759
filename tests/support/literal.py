"""Prompt tuning by a plain loop over torch, row by row: what methods are compared with."""

import torch

from tpv.outputs.label import label_tokens
from tpv.training.sampler import batches


def row_nll(backbone, prompt, source, target):
    """Negative log-likelihood of a target, summed over its tokens, by the model of `transformers` itself."""
    return states(backbone, prompt, source, target)[0]


def states(backbone, prompt, source, target):
    """That, the logits [L, V] of the target's tokens, and the states [L, H] that the output layer reads."""
    seen = []
    head = backbone.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, args, out: seen.append(args[0]))
    text = backbone.model.get_input_embeddings()(torch.tensor(source))
    embeds = torch.cat([prompt, text])[None]
    if backbone.model.config.is_encoder_decoder:
        logits = backbone.model(inputs_embeds=embeds, labels=torch.tensor([target])).logits[0]
        hidden = seen[0][0]
    else:
        after = backbone.model.get_input_embeddings()(torch.tensor(target[:-1], dtype=torch.long))
        logits = backbone.model(inputs_embeds=torch.cat([embeds, after[None]], dim=1)).logits[0, -len(target) :]
        hidden = seen[0][0, -len(target) :]
    handle.remove()
    gold = torch.tensor(target)[:, None]
    return -logits.log_softmax(-1).gather(1, gold).sum(), logits, hidden


class Rows:
    """The training rows of a task, in the order in which tpv visits them."""

    def __init__(self, backbone, task, recipe):
        rows, words = task.examples("train"), label_tokens(backbone, task)
        self.sources = backbone.encode_sources([row.source for row in rows], recipe.max_input_length)
        self.targets = [words[row.label] for row in rows]
        self._order = batches([len(source) for source in self.sources], recipe.batch_size, recipe.seed)

    def batch(self):
        return [(self.sources[i], self.targets[i]) for i in next(self._order)]


def descend(parameters, cost, rows, recipe):
    """Train by AdamW: `cost(source, target)` of each row, summed and divided by the batch's target tokens."""
    optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    for step in range(recipe.steps):
        batch = rows.batch()
        tokens = sum(len(target) for _, target in batch)
        (sum(cost(source, target) for source, target in batch) / tokens).backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr_at(step, recipe.steps)
        optimizer.step()
        optimizer.zero_grad()
