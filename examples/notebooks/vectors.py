# %% [markdown]
# # Tune, subtract, move, add
#
# The paper's method on the embedded model: prompts for three tasks, their vectors, and what one can do with them.

# %%
import tpv

backbone = tpv.load_backbone("mini")
tasks = [tpv.load_task(f"mini/{name}") for name in ("sst2", "yelp", "trec")]
init = tpv.SoftPrompt.sample(backbone, num_tokens=10, seed=0)
recipe = tpv.Recipe(steps=100, batch_size=16, select="last", warmup_steps=10)
tuned = tpv.fit(backbone, tasks, [init] * 3, recipe, callback=lambda _: None)
vectors = {task.name: prompt - init for task, prompt in zip(tasks, tuned, strict=True)}

# %%
axes = tpv.plot.loss(tuned[0])

# %% [markdown]
# ## Which vectors are alike?
#
# SST-2 and Yelp are both about feelings; TREC asks what a question is about.

# %%
axes = tpv.plot.cosine(vectors)

# %% [markdown]
# ## Move a vector to another initialization

# %%
sst2 = tasks[0]
other = tpv.SoftPrompt.sample(backbone, num_tokens=10, seed=1)
untuned, moved = tpv.evaluate(backbone, sst2, [other, other + vectors["mini/sst2"]], split="validation")
print(f"untuned {untuned.accuracy:.2f}, moved {moved.accuracy:.2f}")

# %% [markdown]
# ## Add two vectors and search for the factor

# %%
both = vectors["mini/sst2"] + vectors["mini/trec"]
search = tpv.search_scale(backbone, init, both, [tasks[0], tasks[2]], [0, 0.25, 0.5, 0.75, 1])
axes = tpv.plot.lambda_curve(search)

# %% [markdown]
# ## Merge

# %%
merged = tpv.merge([vectors["mini/sst2"], vectors["mini/trec"]], method="ties", density=0.5)
for task in (tasks[0], tasks[2]):
    print(task.name, f"{tpv.evaluate(backbone, task, init + merged, split='validation').accuracy:.2f}")
