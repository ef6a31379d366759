# %% [markdown]
# # Few labels to a classifier
#
# Sixty labelled reviews, a frozen model, and a classifier with probabilities. The reviews are made up, and the model is
# the small one that comes with tpv, so that this runs anywhere in a minute.

# %%
import pandas as pd

import tpv

rows = pd.read_csv("examples/data/reviews.csv")
rows.head()

# %% [markdown]
# `load_task` takes a DataFrame. `hold_out=False` keeps all rows for training: sixty are too few to put some aside.

# %%
backbone = tpv.load_backbone("mini")
task = tpv.load_task(rows, text="review", label="feeling", hold_out=False)
print(task.labels, len(task.examples("train")))

# %% [markdown]
# ## Cross-validate a prompt
#
# Five prompts are tuned, each without a fifth of the rows, all in one bank. Each judges the rows that it did not see.

# %%
init = tpv.SoftPrompt.sample(backbone, num_tokens=8, seed=0)
recipe = tpv.Recipe(steps=40, batch_size=16, select="last", warmup_steps=4)
checked = tpv.cross_validate(backbone, task, init, recipe, folds=5, callback=lambda _: None)
low, high = checked.scores.interval("accuracy")
print(f"accuracy {checked.scores.accuracy:.2f}, 95 % interval {low:.2f} to {high:.2f}")

# %% [markdown]
# ## Tune on all rows and label new texts

# %%
prompt = tpv.fit(backbone, task, init, recipe, callback=lambda _: None)
new = pd.read_csv("examples/data/reviews_new.csv")["review"].tolist()
table = tpv.predict(backbone, task, prompt, new[:5], calibrator=checked.calibrator)
table.to_pandas()[["source", "predicted", "probability"]]

# %% [markdown]
# ## Was the estimate honest?
#
# Here we do have more labelled rows, which nothing above has seen.

# %%
test = tpv.load_task(
    {"test": pd.read_csv("examples/data/reviews_test.csv"), "train": rows}, text="review", label="feeling"
)
scores = tpv.evaluate(backbone, test, prompt, split="test", calibrator=checked.calibrator)
print(f"accuracy {scores.accuracy:.2f} on {scores.n} rows, majority {scores.majority:.2f}")

# %%
axes = tpv.plot.confusion(scores)
