"""A DataFrame in, a DataFrame with labels and probabilities out."""

import pandas as pd

import tpv

rows = pd.read_csv("examples/data/reviews.csv")
new = pd.read_csv("examples/data/reviews_new.csv")
classifier = tpv.PromptClassifier(model="mini", strategy="tune", num_tokens=8, steps=30, random_state=0)
classifier.fit(rows["review"], rows["feeling"])
probabilities = classifier.predict_proba(new["review"])
new["label"] = classifier.classes_[probabilities.argmax(1)]
new["probability"] = probabilities.max(1)
print(new.sort_values("probability").head())  # the least certain, to look at
new.to_csv("labelled.csv", index=False)
