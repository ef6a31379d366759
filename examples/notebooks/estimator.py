# %% [markdown]
# # With scikit-learn
#
# `tpv.PromptClassifier` is an estimator: it works in pipelines, in cross-validation and in a grid search.

# %%
import pandas as pd
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import tpv

rows = pd.read_csv("examples/data/reviews.csv")
texts, labels = rows["review"].tolist(), rows["feeling"].tolist()
classifier = tpv.PromptClassifier(model="mini", strategy="tune", num_tokens=8, steps=30, random_state=0)

# %% [markdown]
# ## Cross-validation

# %%
print(cross_val_score(classifier, texts, labels, cv=3))

# %% [markdown]
# ## In a pipeline

# %%
lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
pipeline = make_pipeline(lower, classifier).fit(texts, labels)
print(pipeline.predict(["A CLEVER COMEDY WITH A WARM CAST."]))

# %% [markdown]
# ## A grid search
#
# The model is loaded once; every candidate trains a prompt on it.

# %%
search = GridSearchCV(classifier, {"num_tokens": [4, 8]}, cv=2).fit(texts, labels)
print(search.best_params_, f"{search.best_score_:.2f}")

# %% [markdown]
# ## On rows that it has not seen

# %%
test = pd.read_csv("examples/data/reviews_test.csv")
display = ConfusionMatrixDisplay.from_estimator(
    search.best_estimator_, test["review"].tolist(), test["feeling"].tolist()
)
