"""Job kinds: what a study calculates. A file a kind; each registers itself with `@tpv.register.job("train")`.

A job is a frozen dataclass, a subclass of `tpv.studies.jobs.base.Job`. Its file says what it is (its fields decide its
value, and nothing else does), what it needs, how it runs, what it costs, and the rows that its artifact gives.

| kind | files of its artifact |
|---|---|
| train | `prompt.safetensors`, a `tpv.SoftPrompt` |
| vectors | `vector-<i>.safetensors`, a `tpv.TaskPromptVector`, in the order of tasks |
| attempt | `state.safetensors`: target prompts and attention |
| score | `predictions.parquet`: one row per example |
| search | `grid.parquet`: predictions at every scale; `test-<i>.parquet`: at the best |
| compare | `cosines.parquet`; `norms.parquet`: of each initialization and its vector |
| prepare | `prepared.safetensors`: what a method learned from the sources |
| adapt | `prompt.safetensors`, a `tpv.SoftPrompt` |
| measure | `trainings.json`: optimizer steps needed, seconds per step |
"""
