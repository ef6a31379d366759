"""Configs: what is read, what extends what, and that every mistake is told at once."""

import pytest
from places import CONFIGS

import tpv
from tpv.studies.cells import cells
from tpv.studies.config import build_config, read_config
from tpv.studies.experiments.transfer import attempt_recipe, few_shot_recipe, few_shot_validation, shots_of
from tpv.studies.expressions import Blend, Initial
from tpv.studies.jobs.attempt import Attend
from tpv.studies.jobs.base import in_order
from tpv.studies.jobs.score import Score
from tpv.studies.jobs.search import Search
from tpv.studies.jobs.train import Train
from tpv.studies.jobs.vectors import Vectors

SMALL = {
    "name": "small",
    "model": {"name": "mini"},
    "seeds": {"inits": 2},
    "families": [{"name": "f", "sources": ["mini/mnli", "mini/qnli"], "targets": ["mini/snli"]}],
}


def small(**changes):
    return build_config(SMALL | changes, where="config")


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.toml")))
def test_the_shipped_configs_hold(name):
    config = read_config(CONFIGS / f"{name}.toml")
    assert config.name == name
    assert {cell.experiment for cell in cells(config)} == set(config.experiments)


def test_the_paper_config_says_what_the_paper_says():
    """Section 4.1 and appendix A."""
    config = read_config(CONFIGS / "paper.toml")
    assert config.model.name.endswith("t5-base")
    assert config.prompt.tokens == 100
    assert len(config.seeds.starts) == 10
    assert config.transfer.baseline_inits == 3
    recipes = {task: config.source_recipe(task) for task in config.source_tasks}
    for task, recipe in recipes.items():
        assert recipe.epochs == (50 if task == "trec" else 10)
        values = (recipe.lr, recipe.weight_decay, recipe.warmup_steps, recipe.batch_size, recipe.eval_every)
        assert values == (0.3, 1e-5, 500, 32, 100)
        assert recipe.max_input_length == 256
        assert not recipe.dropout
    rows = {shots: few_shot_recipe(config, shots).batch_size for shots in config.transfer.shots if shots}
    assert rows == {5: 2, 10: 2, 25: 2, 50: 8, 100: 8, 250: 8, 500: 16, 750: 16, 1000: 16}
    assert {few_shot_recipe(config, shots).steps for shots in rows} == {1000}
    schedule = {
        shots: (attempt_recipe(config, shots).epochs, attempt_recipe(config, shots).batch_size) for shots in rows
    }
    assert schedule == {
        5: (30, 2),
        10: (30, 2),
        25: (30, 2),
        50: (20, 8),
        100: (20, 8),
        250: (20, 8),
        500: (10, 16),
        750: (10, 16),
        1000: (10, 16),
    }
    assert config.combination.scales == tuple(round(0.05 * i, 2) for i in range(21))
    by_name = {family.name: shots_of(config, family) for family in config.families}
    assert 5 in by_name["inference"]
    assert by_name["topic"][:2] == (0, 10)
    assert not any(config.quirks.model_dump().values())


def test_the_compat_config_differs_by_its_quirks_alone():
    paper, compat = (read_config(CONFIGS / f"{name}.toml") for name in ("paper", "paper_compat"))
    differing = {key for key in type(paper).model_fields if getattr(paper, key) != getattr(compat, key)}
    assert differing == {"name", "quirks"}
    assert all(compat.quirks.model_dump().values())
    recipe = few_shot_recipe(compat, 5)
    assert recipe.dropout
    assert (recipe.seed, recipe.select, recipe.schedule, recipe.max_grad_norm) == (42, "loss", "linear", 1.0)
    assert (compat.live_rows, compat.vocabulary_limit) == (50, 5000)
    assert (few_shot_validation(compat), compat.split_seed) == (250, 42)


def test_each_quirk_is_a_switch_of_its_own():
    seen = set()
    plain = small()
    whole = {"tokens": 4, "vocabulary_limit": 0}

    def view(config):
        return (
            config.live_rows,
            config.vocabulary_limit,
            config.quirks.authors_f1,
            config.quirks.label_padding,
            few_shot_validation(config),
            config.split_seed,
            few_shot_recipe(config, 100),
            config.quirks.sst5_is_sst2,
            config.quirks.authors_splits,
        )

    for name in type(plain.quirks).model_fields:
        changed = view(
            small(
                prompt=whole,
                quirks={name: True},
                transfer={"training": {"select": "exact_match", "schedule": "constant"}},
            )
        )
        base = view(small(prompt=whole, transfer={"training": {"select": "exact_match", "schedule": "constant"}}))
        assert changed != base, name
        seen.add(changed)
    assert len(seen) == len(type(plain.quirks).model_fields)


def test_a_config_can_extend_another(tmp_path):
    (tmp_path / "base.toml").write_text(
        (CONFIGS / "mini.toml").read_text().replace('"paper.toml"', f'"{CONFIGS}/paper.toml"')
    )
    (tmp_path / "mine.toml").write_text('extends = "base.toml"\nname = "mine"\n[sources.training]\nlr = 0.1\n')
    mine, base = read_config(tmp_path / "mine.toml"), read_config(CONFIGS / "mini.toml")
    assert mine.sources.training == base.sources.training | {"lr": 0.1}
    assert mine.transfer == base.transfer
    (tmp_path / "clear.toml").write_text('extends = "mine.toml"\n[sources]\ntraining = {}\n')
    assert read_config(tmp_path / "clear.toml").sources.training == {}
    (tmp_path / "base.toml").write_text('extends = "mine.toml"\n')
    with pytest.raises(tpv.TpvError, match="extends itself"):
        read_config(tmp_path / "mine.toml")


def test_steps_take_the_place_of_epochs(tmp_path):
    (tmp_path / "mine.toml").write_text(f'extends = "{CONFIGS}/paper.toml"\n[sources.training]\nsteps = 7\n')
    config = read_config(tmp_path / "mine.toml")
    assert config.source_recipe("mnli").total_steps(10**6) == 7
    assert config.source_recipe("trec").epochs == 50


def test_a_mode_of_vectors_has_a_training_of_its_own():
    vectors = {
        "modes": ["portable", "composable"],
        "training": {"lr": 0.1, "epochs": 2.0},
        "per_mode": {"composable": {"steps": 7}},
    }
    config = small(vectors=vectors)
    portable, composable = map(config.vector_recipe, ("portable", "composable"))
    assert (portable.lr, portable.steps, portable.epochs) == (0.1, None, 2.0)
    assert (composable.lr, composable.steps, composable.epochs) == (0.1, 7, None)
    with pytest.raises(tpv.TpvError, match=r"vectors\.per_mode\.fixed: is not among the modes"):
        small(vectors=vectors | {"per_mode": {"fixed": {"steps": 7}}})
    with pytest.raises(tpv.TpvError, match=r"composable: give steps or epochs"):
        small(vectors=vectors | {"per_mode": {"composable": {"steps": 7, "epochs": 1.0}}})


def test_vectors_and_sums_can_keep_to_some_of_the_starts():
    config = small(seeds={"inits": [4, 5, 6]}, vectors={"modes": ["portable"], "inits": 2}, combination={"inits": 1})
    every = cells(config)
    trained = {job.seed for job in in_order(cell.job for cell in every) if isinstance(job, Vectors)}
    moved = {(cell.vector_seed, cell.init_seed) for cell in every if cell.method == "moved" and cell.mode == "portable"}
    assert trained == {4, 5}
    assert moved == {(4, 5), (4, 6), (5, 4), (5, 6)}
    assert {cell.init_seed for cell in every if isinstance(cell.job, Search)} == {4}
    assert {cell.vector_seed for cell in every if cell.method == "plain_sum"} == {4}
    assert {cell.init_seed for cell in every if cell.method == "tuned"} == {4, 5, 6}
    assert {cell.init_seed for cell in every if (cell.method, cell.mode) == ("sum", "portable")} == {4, 5}


def test_every_mistake_is_told_at_once_with_its_key(tmp_path):
    text = """
    name = "x"
    [model]
    name = "mini"
    precison = "fp32"
    [seeds]
    inits = 0
    [[families]]
    name = "f"
    sources = ["mini/mnly", "mini/qnli"]
    targets = ["mini/sst2"]
    [sources.training]
    stepps = 5
    lr = -1
    [sources.per_task."mini/sst2"]
    lr = 0.2
    [transfer]
    shots = [0, 2000]
    methods = ["spott"]
    [negation]
    scales = []
    [kuirks]
    """
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(tpv.TpvError) as caught:
        read_config(path)
    message = str(caught.value)
    assert message.count("\n") == 0
    for part in (
        "wrong.toml",
        "model.precison: unknown key, did you mean 'precision'",
        "seeds.inits",
        "unknown task 'mini/mnly'; did you mean 'mini/mnli'",
        "sources.training: unknown key 'stepps', did you mean 'steps'",
        "transfer.methods.0",
        "negation.scales",
        "kuirks: unknown key, did you mean 'quirks'",
    ):
        assert part in message, part


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"families": []}, "families"),
        ({"families": [{"name": "f", "sources": ["mini/mnli", "mini/mnli"]}]}, "occurs twice"),
        ({"combination": {"scale_step": 0.3}}, "must divide 1"),
        ({"combination": {"sizes": [2, 2]}}, "combination.sizes: repeats itself"),
        ({"combination": {"scale_step": 1e-9}}, "combination.scale_step"),
        ({"negation": {"scales": [1, 1]}}, "negation.scales: repeats itself"),
        ({"cost": {"pools": [1, 1]}}, "cost.pools: repeats itself"),
        ({"prompt": {"tokens": True}}, "prompt.tokens"),
        ({"prompt": {"tokens": "4"}}, "prompt.tokens"),
        ({"prompt": 4}, "prompt: should be a table, is 4"),
        ({"seeds": {"inits": 10**12}}, "from 1 to 10000"),
        ({"seeds": {"inits": True}}, "seeds.inits: must be a number of initializations"),
        ({"quirks": {"first_5000": "yes"}}, "quirks.first_5000"),
        ({"transfer": {"temperature": float("inf")}}, "transfer.temperature"),
        ({"transfer": {"training": {"batch_size": 7}}}, "transfer.training: unknown key 'batch_size'"),
        ({"transfer": {"attempt_training": {"steps": 7}}}, "transfer.attempt_training: unknown key 'steps'"),
        ({"transfer": {"methods": ["spott"]}}, "transfer.methods.0: unknown value 'spott', did you mean 'spot'"),
        ({"data_dir": "x", "quirks": {"authors_splits": True}}, "splits of a local copy"),
        ({"families": [{"name": "f", "sources": ["mini/mnli"], "targets": ["mini/mnli"]}]}, "sources and targets"),
        ({"families": [{"name": "f", "sources": [s]} for s in ("mini/mnli", "mini/qnli")]}, "names repeat"),
        ({"name": "a\nb"}, "name"),
        ({"task_files": {"a": "b"}}, "is filled in by tpv"),
        ({"transfer": {"shots": [0, 2000]}}, "up to 2000"),
        ({"transfer": {"shots": [5, 5]}}, "transfer.shots: repeats itself"),
        ({"transfer": {"batch_size": [[100, 8], [10, 2]]}}, "ascending"),
        ({"sources": {"training": {"epochs": 1, "steps": 2}}}, "steps or epochs, not both"),
        ({"sources": {"per_task": {"mini/snli": {"lr": 1.0}}}}, "no such source task"),
        ({"seeds": {"inits": [1, 1]}}, "distinct"),
        ({"quirks": {"doubled_prompt": True}, "prompt": {"tokens": 5}}, "even number"),
        ({"run": {"trackers": ["tensorbored"]}}, "run.trackers.0"),
        ({"experiments": ["transfers"]}, "experiments: unknown value 'transfers', did you mean 'transfer'"),
    ],
)
def test_values_that_do_not_fit(changes, message):
    with pytest.raises(tpv.TpvError, match=message):
        small(**changes)


def test_files_that_do_not_read(tmp_path):
    with pytest.raises(tpv.TpvError, match="cannot be read"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("name = \nx")
    with pytest.raises(tpv.TpvError, match="line 1"):
        read_config(tmp_path / "bad.toml")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 5000)
    with pytest.raises(tpv.TpvError, match="is not TOML"):
        read_config(tmp_path / "deep.toml")
    (tmp_path / "nul.toml").write_text('data_dir = "a\\u0000b"')
    with pytest.raises(tpv.TpvError, match="is no path"):
        read_config(tmp_path / "nul.toml")
    (tmp_path / "mark.toml").write_bytes(b"\xef\xbb\xbf" + (CONFIGS / "paper.toml").read_bytes())
    assert read_config(tmp_path / "mark.toml") == read_config(CONFIGS / "paper.toml")
    (tmp_path / "odd.toml").write_text("extends = 3")
    with pytest.raises(tpv.TpvError, match="name of another config"):
        read_config(tmp_path / "odd.toml")


def test_a_task_file_is_taken_from_the_folder_of_its_config(tmp_path):
    (tmp_path / "own.csv").write_text("text,label\n" + "good,yes\nbad,no\n" * 20)
    (tmp_path / "own.toml").write_text(
        'name = "own"\nfields = ["text"]\ntemplate = "{text}"\nlabels = ["no", "yes"]\n'
        '[source]\nkind = "files"\ntrain = "own.csv"\n'
    )
    (tmp_path / "c.toml").write_text(
        'name = "c"\n[model]\nname = "mini"\n[[families]]\nname = "f"\nsources = ["own.toml"]\n'
    )
    config = read_config(tmp_path / "c.toml")
    assert config.source_tasks == ("own",)
    assert config.task_files == {"own": str(tmp_path / "own.toml")}
    (tmp_path / "c.toml").write_text((tmp_path / "c.toml").read_text() + 'targets = ["twin.toml"]\n')
    (tmp_path / "twin.toml").write_text((tmp_path / "own.toml").read_text())
    with pytest.raises(tpv.TpvError, match="has the name of another task, 'own'"):
        read_config(tmp_path / "c.toml")


def test_what_there_are_too_few_sources_for_is_left_out_and_said():
    config = small(combination={"sizes": [2, 6]}, cost={"pools": [1, 5]})
    assert config.left_out == ["sums of 6 vectors", "cost at a pool of 5"]
    jobs = [cell.job for cell in cells(config)]
    assert {len(job.vectors) for job in jobs if isinstance(job, Search)} == {2}


# --- cells and jobs -------------------------------------------------------------------------------
def test_every_vector_goes_on_every_other_start():
    config = small(seeds={"inits": [3, 5, 8]})
    part = [cell for cell in cells(config) if cell.experiment == "cross_initialization" and cell.task == "mini/mnli"]
    pairs = {(cell.vector_seed, cell.init_seed): cell for cell in part}
    assert set(pairs) == {(a, b) for a in (3, 5, 8) for b in (3, 5, 8)}
    for (home, seed), cell in pairs.items():
        assert cell.method == ("tuned" if home == seed else "moved")
        prompt = cell.job.of
        if home == seed:
            assert isinstance(prompt, Train)
            assert prompt.init == Initial(seed)
        else:
            assert prompt == Blend(Initial(seed), ((1.0, pairs[home, home].job.of),))


def test_transfer_starts_where_its_methods_say():
    config = small(
        transfer={"shots": [0, 100], "baseline_inits": 1, "vary_sample": True}, seeds={"inits": [4, 9], "sample": 50}
    )
    part = {
        (cell.method, *(cell.sources if cell.method == "spot" else ()), cell.shots, cell.init_seed): cell.job.of
        for cell in cells(config)
        if cell.experiment == "transfer"
    }
    one, two = (Train(config_data, Initial(9), config.source_recipe("mini/mnli")) for config_data in _data(config))
    assert part["random", 0, 9] == Initial(9)
    assert part["spot", "mini/mnli", 0, 9] == one
    assert part["sum", 0, 9] == Blend(Initial(9), ((1.0, one), (1.0, two)))
    assert part["spot_multi", 0, 4].data.tasks == ("mini/mnli", "mini/qnli")
    assert ("spot_multi", 0, 9) not in part
    assert isinstance(part["attempt", 0, 4], Attend)
    assert part["attempt", 0, 4].recipe is None
    for *method, seed in (("random", 9), ("spot", "mini/qnli", 4), ("sum", 9), ("spot_multi", 4)):
        tuned = part[*method, 100, seed]
        assert tuned.init == part[*method, 0, seed]
        assert tuned.data.shots == 100
        assert tuned.data.sample_seed == 50 + seed
    assert part["attempt", 100, 4].sources == part["attempt", 0, 4].sources
    held = small(transfer={"shots": [100]})
    assert {
        cell.job.of.data.sample_seed
        for cell in cells(held)
        if cell.experiment == "transfer" and cell.method == "random"
    } == {0}


def _data(config):
    return [source.job.of.data for source in cells(config) if source.method == "tuned" and source.init_seed == 9][:2]


def test_subtracting_the_own_vector_once_leaves_the_control_alone():
    config = small(negation={"scales": [0, 1], "sum_scale": 1.0})
    part = [cell for cell in cells(config) if cell.experiment == "negation"]
    gone = next(cell for cell in part if cell.method == "sum_own" and cell.scale == 1 and cell.init_seed == 0)
    _, control = gone.sources
    assert [vector.data.tasks for _, vector in gone.job.of.terms] == [(control,)]
    kept = next(cell for cell in part if cell.method == "sum_own" and cell.scale == 0)
    assert len(kept.job.of.terms) == 2
    back = next(cell for cell in part if cell.method == "tuned_own" and cell.scale == 1)
    assert back.job.of.terms[0][0] == -1.0
    other = next(cell for cell in part if "other" in cell.method and cell.scale == 1)
    assert other.vector_seed != other.init_seed


def test_jobs_come_after_what_they_need():
    config = small(combination={"sizes": [2]})
    jobs = in_order(cell.job for cell in cells(config))
    assert len(jobs) == len(set(jobs))
    place = {job: i for i, job in enumerate(jobs)}
    for job in jobs:
        assert all(place[need] < place[job] for need in job.needs())
    assert sum(isinstance(job, Search) for job in jobs) == 2
    assert all(job.needs() for job in jobs if isinstance(job, Score) and not isinstance(job.of, Initial))


def test_the_style_of_the_templates():
    assert small().style == "text"
    hub = [{"name": "f", "sources": ["sst2", "trec"], "targets": ["rte"]}]
    assert small(families=hub, style="instruct").style == "instruct"
    with pytest.raises(tpv.TpvError, match=r"style: unknown value 'instuct', did you mean 'instruct'"):
        small(families=hub, style="instuct")
    with pytest.raises(tpv.TpvError, match=r"\(3 mistakes\).*style: task 'mini/qnli' has no template of style"):
        small(style="instruct")
