# %% [markdown]
# # A library of vectors, and the best start for a new task
#
# Two vectors of old tasks, sixteen rows of a new one. Which start is best, and do the rows tell?

# %%
import tpv

backbone = tpv.load_backbone("mini")
old = [tpv.load_task(f"mini/{name}") for name in ("sst2", "trec")]
recipe = tpv.Recipe(steps=150, batch_size=16, select="last", warmup_steps=15)
vectors = tpv.fit_vectors(backbone, old, recipe, num_tokens=10, portable=True, callback=lambda _: None)
library = {"sst2": vectors[0], "trec": vectors[1]}

# %% [markdown]
# `tpv.transfer` ranks the vectors by how likely they make the rows, races candidates by cross-validation, and weighs
# them.

# %%
new = tpv.load_task("mini/imdb")
result = tpv.transfer(backbone, new, library, shots=16, budget="quick", seed=0)
print(result.reason)

# %%
result.sources.to_pandas()

# %%
result.table.to_pandas()[["entrant", "log_loss", "accuracy", "weight", "chosen"]]

# %% [markdown]
# ## Label new texts

# %%
result.predict(["the plot is clever and i love the cast."]).to_pandas()[["predicted", "probability"]]

# %% [markdown]
# The race never saw the test split, so that we can ask it now.

# %%
scores = tpv.evaluate(backbone, new, result.answerer, "test", calibrator=result.calibrator)
print(f"accuracy {scores.accuracy:.2f} on {scores.n} rows, majority {scores.majority:.2f}")
axes = tpv.plot.reliability(scores)
