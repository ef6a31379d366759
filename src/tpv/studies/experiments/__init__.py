"""Experiments: a file each, with its settings, its cells and its section of the report.

An experiment registers a class, `@tpv.register.experiment("name", parameters=Settings)`, where `Settings` is a pydantic
model that becomes the table `[name]` of a config. The class has

- `title`: the heading of its section;
- `cells(config)`: the jobs, and what their numbers are the numbers of; `config.table(Settings)` has its settings;

and may have

- `section(results)`: its part of the report, a `tpv.reporting.page.Chapter`; by default a table of all its scores;
- `mistakes(config)`: what its settings get wrong beyond what `Settings` itself refuses, a line each;
- `check(config, sizes)`: refuse what the data cannot do, before anything is run;
- `left_out(config)`: what is asked for and cannot be, in words;
- `compared`: False keeps its scores out of comparisons of two runs;
- `plan_split`: fields of a cell that a plan counts separately.
"""
