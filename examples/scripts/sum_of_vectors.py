"""One prompt for two tasks: the sum of two composable vectors, on an initialization that neither was trained with."""

import tpv

backbone = tpv.load_backbone("mini")
tasks = [tpv.load_task(f"mini/{name}") for name in ("sst2", "trec")]
recipe = tpv.Recipe(steps=60, batch_size=16, select="last")
vectors = tpv.fit_vectors(backbone, tasks, recipe, num_tokens=10, composable=True)
both = tpv.SoftPrompt.sample(backbone, num_tokens=10, seed=99) + vectors[0] + vectors[1]
for task, scores in zip(tasks, tpv.evaluate(backbone, tasks, [both, both], split="validation"), strict=True):
    print(task.name, f"{scores.accuracy:.2f}, majority {scores.majority:.2f}")
for task, vector in zip(tasks, vectors, strict=True):
    vector.save(f"vectors/{task.name.replace('/', '-')}.safetensors")
