"""A T5 that computes what another does in a rotated space: a second model whose map to the first is known."""

import torch

from tpv.models import Seq2SeqBackbone


def rotated(backbone, rotation, scale=1.0):
    """The embedded model with its residual stream rotated, and its embeddings `scale` times as large.

    The weights of each RMS norm go into the layer behind it; after that a norm commutes with a rotation, and what a
    norm reads may have any scale as long as all that is added to the stream has it too.
    """
    from copy import deepcopy

    model = deepcopy(backbone.model)
    table = model.shared.weight.detach().clone()

    def reads(layer, norm):  # [out, H]
        layer.weight.copy_(layer.weight * norm @ rotation)

    def writes(layer):  # [H, out]
        layer.weight.copy_(scale * rotation.T @ layer.weight)

    with torch.no_grad():
        final = {stack: stack.final_layer_norm.weight.clone() for stack in (model.encoder, model.decoder)}
        for stack in (model.encoder, model.decoder):
            for block in stack.block:
                for part in block.layer:
                    norm = part.layer_norm.weight.clone()
                    if hasattr(part, "SelfAttention"):
                        attention = part.SelfAttention
                        for name in "qkv":
                            reads(getattr(attention, name), norm)
                        writes(attention.o)
                    elif hasattr(part, "EncDecAttention"):
                        attention = part.EncDecAttention
                        reads(attention.q, norm)
                        reads(attention.k, final[model.encoder])
                        reads(attention.v, final[model.encoder])
                        writes(attention.o)
                    else:
                        reads(part.DenseReluDense.wi, norm)
                        writes(part.DenseReluDense.wo)
                    part.layer_norm.weight.fill_(1.0)
                    part.layer_norm.variance_epsilon *= scale**2
            stack.final_layer_norm.weight.fill_(1.0)
            stack.final_layer_norm.variance_epsilon *= scale**2
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(table * final[model.decoder] @ rotation)
        model.shared.weight = torch.nn.Parameter(scale * table @ rotation)
        model.encoder.embed_tokens.weight = model.decoder.embed_tokens.weight = model.shared.weight
    return Seq2SeqBackbone(model, backbone.tokenizer, f"{backbone.identity.name}, rotated")
