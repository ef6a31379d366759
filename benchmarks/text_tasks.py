"""Tune a prompt for each text task of the shared data on SmolLM2-135M; write a table with intervals.

python benchmarks/text_tasks.py --data ../shared/data [--tasks relations,outcomes] [--out runs/text]

Each task: a random initialization of 20 tokens, tuned in bf16, the checkpoint of the lowest validation loss kept; then
untuned, tuned, and the vector moved to another initialization, scored on the test rows by greedy decoding. What is done
already is read from the output folder, so that a call resumes. Writes results.json and table.md.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import tpv
from tpv.outputs.text import per_example
from tpv.reporting.stats import bootstrap_mean

# input columns, steps, rows a step, tokens of an input, and the task's usual metric
TASKS = {
    "relations": (["input"], 150, 16, 64, "exact_match"),
    "outcomes": (["input"], 120, 16, 192, "token_f1"),
    "sciq": (["input"], 80, 16, 64, "token_f1"),
    "samsum": (["input"], 60, 8, 256, "rouge_l"),
    "quoref": (["context", "question"], 60, 8, 384, "token_f1"),
}
TEMPLATES = {"quoref": "question: {question} context: {context}"}
METRICS = ("exact_match", "token_f1", "rouge_l")
HEAD = "| task | prompt | rows | exact match | token F1 | ROUGE-L | loss | seconds |"


def run(backbone: tpv.Backbone, data: Path, name: str) -> dict[str, object]:
    """Tune and score one task."""
    columns, steps, batch, length, _ = TASKS[name]
    task = tpv.load_task(data / "text" / name, text=columns, target="target", template=TEMPLATES.get(name, "{input}"))
    init, other = (tpv.SoftPrompt.sample(backbone, 20, seed=seed) for seed in (0, 1))
    recipe = tpv.Recipe(steps=steps, batch_size=batch, max_input_length=length, eval_every=max(1, steps // 3))
    started = time.perf_counter()
    tuned = tpv.fit(backbone, task, init, recipe, callback=lambda _: None)
    seconds = time.perf_counter() - started
    rows: dict[str, object] = {}
    prompts = {"untuned": init, "tuned": tuned, "moved": other + (tuned - init)}
    for kind, prompt in prompts.items():
        scores = tpv.evaluate(backbone, task, prompt, max_input_length=length)
        row: dict[str, object] = {"n": scores.n, "loss": scores.loss}
        for metric in METRICS:
            interval = bootstrap_mean(per_example(scores.predictions, metric))
            row[metric] = [interval.score, interval.low, interval.high]
        rows[kind] = row
    return {"rows": rows, "seconds": seconds, "steps": steps}


def table(results: dict[str, dict[str, object]]) -> str:
    """The results as Markdown."""
    lines = [HEAD, "|---|---|---|---|---|---|---|---|"]
    for name, result in results.items():
        for kind, row in result["rows"].items():
            cells = [f"{100 * v:.1f} ({100 * low:.1f} to {100 * high:.1f})" for v, low, high in map(row.get, METRICS)]
            seconds = f"{result['seconds']:.0f}" if kind == "tuned" else ""
            lines.append(f"| {name} | {kind} | {row['n']} | {' | '.join(cells)} | {row['loss']:.2f} | {seconds} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--out", type=Path, default=Path("runs/text"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "results.json"
    results = json.loads(file.read_text()) if file.is_file() else {}
    backbone = tpv.load_backbone("smollm2", precision="bf16")
    for name in options.tasks.split(","):
        if name not in results:
            results[name] = run(backbone, options.data, name)
            file.write_text(json.dumps(results, indent=1))
        print(table({name: results[name]}), flush=True)
    (options.out / "table.md").write_text(table(results) + "\n")


if __name__ == "__main__":
    main()
