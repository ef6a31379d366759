"""A merge of your own, registered in a script: the elementwise median of several vectors."""

import tpv


@tpv.register.merge("median")
def median(vectors, *, shrink: float = 1.0):
    """The elementwise median, times `shrink`."""
    return shrink * vectors.median(dim=0).values


backbone = tpv.load_backbone("mini")
tasks = [tpv.load_task(f"mini/{name}") for name in ("sst2", "yelp", "imdb")]
init = tpv.SoftPrompt.sample(backbone, num_tokens=8, seed=0)
recipe = tpv.Recipe(steps=30, batch_size=16, select="last")
vectors = [prompt - init for prompt in tpv.fit(backbone, tasks, [init] * 3, recipe)]
merged = tpv.merge(vectors, method="median", shrink=0.9)
for task in tasks:
    print(task.name, tpv.evaluate(backbone, task, init + merged, split="validation").accuracy)
