"""Generation under eight prompts: one call of tpv beside PEFT switching adapters, and beside one prompt of tpv.

python benchmarks/generation.py --data ../shared/data [--rounds 3] [--precision fp32] [--tokens 12] [--prompt-tokens 20]

200 rows of `relations` on SmolLM2-135M, greedy, the same prompts and the same number of new tokens. PEFT generates a
batch of 25 rows for each adapter. Every round does all three, one after the other; prints seconds, ratios (medians over
rounds) and how many texts are the same.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
from peft import PeftModel

import tpv
from tpv.models import CausalBackbone


def peft_model(backbone: CausalBackbone, prompts: dict[str, tpv.SoftPrompt], folder: Path) -> PeftModel:
    """The same model with an adapter for each prompt."""
    model = None
    for name, prompt in prompts.items():
        prompt.to_peft(folder / name)
        if model is None:
            model = PeftModel.from_pretrained(backbone.model, folder / name, adapter_name=name)
        else:
            model.load_adapter(folder / name, adapter_name=name)
    assert model is not None
    return model.eval()


def with_peft(
    model: PeftModel, backbone: CausalBackbone, names: list[str], texts: list[str], cue: str, tokens: int
) -> list[str]:
    """A batch for each adapter, padded in front as generation needs it."""
    found = [""] * len(texts)
    for name in dict.fromkeys(names):
        model.set_adapter(name)
        part = [i for i, other in enumerate(names) if other == name]
        sources = backbone.encode_sources([texts[i] for i in part], 256, [cue] * len(part))
        width = max(map(len, sources))
        ids = torch.tensor([[backbone.pad_id] * (width - len(row)) + list(row) for row in sources])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in sources])
        with torch.inference_mode():
            rows = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=backbone.pad_id,
                repetition_penalty=1.0,
            )
        for i, row in zip(part, rows[:, width:].tolist(), strict=True):
            found[i] = backbone.tokenizer.decode(row, skip_special_tokens=True).strip()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--prompt-tokens", type=int, default=20)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    backbone = tpv.load_backbone("smollm2", precision=options.precision)
    assert isinstance(backbone, CausalBackbone)
    task = tpv.load_task("text/relations", data_dir=options.data)
    texts = [row.source for row in task.examples("train")[:200]]
    prompts = {f"p{seed}": tpv.SoftPrompt.sample(backbone, options.prompt_tokens, seed=seed) for seed in range(8)}
    names = [f"p{i // 25}" for i in range(200)]
    seconds: dict[str, list[float]] = {"PEFT": [], "tpv, eight prompts": [], "tpv, one prompt": []}
    with tempfile.TemporaryDirectory() as folder:
        model = peft_model(backbone, prompts, Path(folder))
        for _ in range(options.rounds):
            start = time.perf_counter()
            theirs = with_peft(model, backbone, names, texts, task.spec.cue, options.tokens)
            seconds["PEFT"].append(time.perf_counter() - start)
            for kind, many in (("tpv, eight prompts", True), ("tpv, one prompt", False)):
                start = time.perf_counter()
                table = tpv.generate(
                    backbone,
                    task,
                    prompts if many else prompts["p0"],
                    texts,
                    reads=names if many else None,
                    max_new_tokens=options.tokens,
                )
                seconds[kind].append(time.perf_counter() - start)
                if many:
                    ours = table["generated"].to_pylist()
    same = sum(a == b for a, b in zip(theirs, ours, strict=True))
    for kind, values in seconds.items():
        print(f"{kind}: {statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})")
    rounds = list(zip(*seconds.values(), strict=True))
    print(f"PEFT over eight prompts: {statistics.median(a / b for a, b, _ in rounds):.2f}")
    print(f"eight prompts over one: {statistics.median(b / c for _, b, c in rounds):.2f}")
    print(f"the same text: {same} of {len(texts)}")


if __name__ == "__main__":
    main()
