"""Prompts as embeddings: what vLLM is given is what the model reads here, and what PEFT reads."""

import base64
import io
import json

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

import tpv
from tpv.interop.serving import prompt_embeds
from tpv.tasks import labels_only

TEXTS = ["the film is good", "a <b>man</b> \"says\" 'no'\tin the garden", "nein, zu süß"]


@pytest.fixture
def served(random_causal, tmp_path):
    made = random_causal("llama")
    made.model.save_pretrained(tmp_path / "model")
    made.tokenizer.save_pretrained(tmp_path / "model")
    prompt = tpv.SoftPrompt.normal(made, 5, 0, std=0.5)
    prompt.save(tmp_path / "prompt.safetensors")
    return made, prompt, tmp_path


def as_vllm_reads_it(line):
    tensor = torch.load(io.BytesIO(base64.b64decode(line["prompt_embeds"], validate=True)), weights_only=True)
    assert tensor.ndim == 2
    assert tensor.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return tensor


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_hidden_states_are_those_of_the_prompt_in_peft(served, run):
    made, prompt, folder = served
    out = folder / "embeds.jsonl"
    code, said, _ = run(
        "export", folder / "prompt.safetensors", *TEXTS, "--prompt-embeds", out, "--model", folder / "model"
    )
    assert code == 0
    assert "3 texts" in said
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["text"] for line in lines] == TEXTS
    prompt.to_peft(folder / "adapter")
    stock = AutoModelForCausalLM.from_pretrained(folder / "model")
    wrapped = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder / "model"), folder / "adapter")
    for text, line in zip(TEXTS, lines, strict=True):
        tensor = as_vllm_reads_it(line)
        ids = made.tokenizer(f"{text}\nlabel:", return_tensors="pt")["input_ids"]
        assert tensor.shape == (5 + ids.shape[1], 32)
        assert len(line["prompt_embeds"]) < 4 * tensor.numel() * 2 + 4000  # this row, and not all it is a view of
        with torch.no_grad():
            ours = stock(inputs_embeds=tensor[None], output_hidden_states=True).hidden_states
            theirs = wrapped(input_ids=ids, output_hidden_states=True).hidden_states
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_next_token_is_what_predict_scores(served):
    made, prompt, _ = served
    task = labels_only(["good", "bad", "dull"])
    scored = tpv.predict(made, task, prompt, TEXTS)["log_probs"].to_pylist()
    for tensor, row in zip(prompt_embeds(made, prompt, task, TEXTS), scored, strict=True):
        for word, expected in zip(task.labels, row, strict=True):
            tokens = made.encode_target(word)
            text = made.model.get_input_embeddings()(torch.tensor(tokens))
            logits = made.model(inputs_embeds=torch.cat([tensor, text])[None]).logits[0].log_softmax(-1)
            total = sum(float(logits[len(tensor) - 1 + i, token]) for i, token in enumerate(tokens))
            assert total == pytest.approx(expected, abs=1e-4)


def test_what_cannot_be_exported_is_refused(served, run, backbone):
    _, _, folder = served
    prompt, model = folder / "prompt.safetensors", folder / "model"
    tpv.SoftPrompt.sample(backbone, 4).save(folder / "t5.safetensors")
    cases = [
        ([prompt], "got neither"),
        ([prompt, "--peft", folder / "a", "--prompt-embeds", folder / "a.jsonl"], "got both"),
        ([folder / "t5.safetensors", "x", "--prompt-embeds", folder / "a.jsonl"], "is an encoder-decoder"),
        ([folder / "t5.safetensors", "x", "--prompt-embeds", folder / "a.jsonl", "--model", model], "another model"),
        ([prompt, "x", "--prompt-embeds", folder / "a.txt", "--model", model], "ending in .jsonl"),
        ([prompt, " ", "--prompt-embeds", folder / "a.jsonl", "--model", model], "text 1 is empty"),
        (
            [prompt, "x " * 200, "--prompt-embeds", folder / "a.jsonl", "--model", model, "--max-input-length", "999"],
            "at most 128 positions",
        ),
    ]
    for args, words in cases:
        code, _, error = run("export", *args)
        assert (code, words in error, error.count("\n")) == (2, True, 1), error
        assert not (folder / "a.jsonl").exists()
        assert not (folder / "a").exists()
