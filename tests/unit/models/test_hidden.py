"""Hidden states for probes, beside `transformers`' own, row by row."""

import pytest
import torch
from toys import CAUSAL

TEXTS = ["the film is good", "a man is eating an apple in the garden and it is not good", "no"]
DEPTHS = (0.5, 1.0)


@pytest.mark.parametrize("family", ["t5", *CAUSAL])
@pytest.mark.parametrize("length", [0, 4])
def test_hidden_states_are_the_models_own(random_t5, random_causal, family, length):
    backbone = random_t5() if family == "t5" else random_causal(family)
    model = backbone.model
    bank = torch.randn(2, length, backbone.identity.hidden_size, generator=torch.Generator().manual_seed(0))
    index = torch.tensor([1, 0, 1])
    sources = backbone.encode_sources(TEXTS, 64, ["label:"] * 3)
    found = backbone.hidden(bank, index, sources, DEPTHS)
    assert found.shape == (3, 2, 2, backbone.identity.hidden_size)
    for row, (k, source) in enumerate(zip(index.tolist(), sources, strict=True)):
        text = model.get_input_embeddings()(torch.tensor([source]))
        inputs = torch.cat([bank[k][None], text], dim=1)
        with torch.no_grad():
            if family == "t5":
                start = torch.tensor([[model.config.decoder_start_token_id]])
                out = model(inputs_embeds=inputs, decoder_input_ids=start, output_hidden_states=True)
                states, firsts = out.encoder_hidden_states, out.decoder_hidden_states
            else:
                states = firsts = model.base_model(
                    inputs_embeds=inputs, output_hidden_states=True, use_cache=False
                ).hidden_states
        for number, depth in enumerate(DEPTHS):
            layer = round(depth * (len(states) - 1))
            torch.testing.assert_close(found[row, number, 0], states[layer][0, length:].mean(0), atol=1e-4, rtol=1e-4)
            last = firsts[round(depth * (len(firsts) - 1))][0, -1]
            torch.testing.assert_close(found[row, number, 1], last, atol=1e-4, rtol=1e-4)
