"""Training methods: what trains, which prompt a row reads, which loss. A file each; each registers itself.

A method is a frozen dataclass whose fields are its parameters. Its `kind` says what it trains:

- `prompt`: prompts one by one; `begin` gives what trains of each (`tpv.training.fit.PromptMethod`). Used by `tpv.fit`,
  `tpv tune --method`, and `[vectors] modes` of a config, where its vectors are tuned minus init.
- `vectors`: the vectors of several tasks together; `fit` gives them (`tpv.methods.vectors.VectorMethod`). Used by
  `tpv.fit_vectors` and `[vectors] modes` of a config.
- `sources`: a prompt for a new task, from those of source tasks (`tpv.methods.sources.SourceMethod`). Used by
  `tpv.methods.sources.adapt` and `[transfer] methods` of a config, where those of kind `prompt` are rows as well.
- `mixture`: what several target tasks share (ATTEMPT), or one has alone (`single_target`).
"""
