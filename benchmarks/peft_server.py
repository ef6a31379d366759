"""What `tpv serve` is compared with: a server of PEFT prompts as one would write it, for `benchmarks/serve.py`.

python benchmarks/peft_server.py --adapters DIR --model mini --port 8001 --new-tokens 4 [--batch]

A request switches to its adapter and generates. With --batch, requests that wait for the same adapter are generated
together, the adapter of the oldest first.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI
from peft import PeftModel
from pydantic import BaseModel
from serve import MOST_ROWS

import tpv


class Ask(BaseModel):
    """The request of `POST /v1/predict`."""

    prompt: str
    texts: list[str]


class Generator:
    """A model with an adapter for each prompt."""

    def __init__(self, model: str, precision: str, adapters: Path, new_tokens: int) -> None:
        backbone = tpv.load_backbone(model, device="cpu", precision=precision)
        self.tokenizer, self.new_tokens = backbone.tokenizer, new_tokens
        self.causal = not backbone.model.config.is_encoder_decoder
        if self.causal:
            self.tokenizer.padding_side = "left"
            self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        folders = sorted(adapters.iterdir())
        self.model = PeftModel.from_pretrained(backbone.model, folders[0], adapter_name=folders[0].name)
        for folder in folders[1:]:
            self.model.load_adapter(folder, adapter_name=folder.name)
        self.model.eval()

    def __call__(self, name: str, texts: list[str]) -> list[str]:
        """The label of each text."""
        self.model.set_adapter(name)
        given = [f"{text}\nlabel:" for text in texts] if self.causal else texts
        inputs = self.tokenizer(given, return_tensors="pt", padding=True, truncation=True, max_length=256)
        with torch.inference_mode():
            rows = self.model.generate(
                **inputs, max_new_tokens=self.new_tokens, do_sample=False, pad_token_id=self.tokenizer.pad_token_id
            )
        said = rows[:, inputs["input_ids"].shape[1] :] if self.causal else rows
        return self.tokenizer.batch_decode(said, skip_special_tokens=True)


def build(generator: Generator, batch: bool) -> FastAPI:
    waiting: OrderedDict[str, list[tuple[list[str], asyncio.Future[list[str]]]]] = OrderedDict()
    wake, thread = asyncio.Event(), ThreadPoolExecutor(1)

    async def work() -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not waiting:
                wake.clear()
                await wake.wait()
            name, asked = waiting.popitem(last=False)
            rows = 0
            taken = []
            while asked and (not taken or (batch and rows + len(asked[0][0]) <= MOST_ROWS)):
                rows += len(asked[0][0])
                taken.append(asked.pop(0))
            if asked:
                waiting[name] = asked
            said = await loop.run_in_executor(thread, generator, name, [text for texts, _ in taken for text in texts])
            for texts, answer in taken:
                answer.set_result([said.pop(0) for _ in texts])

    @asynccontextmanager
    async def life(_: FastAPI):
        task = asyncio.create_task(work())
        yield
        task.cancel()

    app = FastAPI(lifespan=life)

    @app.post("/v1/predict")
    async def predict(ask: Ask) -> dict[str, list[str]]:
        answer = asyncio.get_running_loop().create_future()
        waiting.setdefault(ask.prompt, []).append((ask.texts, answer))
        wake.set()
        return {"labels": await answer}

    @app.get("/readyz")
    async def ready() -> str:
        return "ok"

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--new-tokens", type=int, default=4)
    parser.add_argument("--batch", action="store_true")
    given = parser.parse_args()
    uvicorn.run(
        build(Generator(given.model, given.precision, given.adapters, given.new_tokens), given.batch),
        port=given.port,
        log_level="error",
    )
