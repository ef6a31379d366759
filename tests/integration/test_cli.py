"""The command line: what it writes, and that every mistake is one line and exit code 2."""

import json
import re
import subprocess
import sys
import warnings

import pyarrow.parquet as pq
import pytest
import torch
from toys import write_rating

import tpv

FAST = ["--tokens", "5", "--steps", "6", "--batch-size", "4", "--device", "cpu"]


@pytest.fixture
def tuned(tmp_path, run):
    folder = tmp_path / "tuned"
    assert run("tune", "--task", "mini/sst2", "--out", folder, *FAST)[0] == 0
    return folder


def test_tune_writes_a_start_a_prompt_and_their_difference(tuned, backbone):
    init, prompt = (tpv.SoftPrompt.load(tuned / f"{name}.safetensors") for name in ("init", "prompt"))
    vector = tpv.TaskPromptVector.load(tuned / "vector.safetensors")
    assert vector == prompt - init
    assert vector.terms == {"mini/sst2": 1.0}
    assert init == tpv.SoftPrompt.sample(backbone, 5, seed=0)
    assert sorted(path.name for path in tuned.iterdir()) == [
        "history.csv",
        "init.safetensors",
        "prompt.safetensors",
        "task.toml",
        "vector.safetensors",
    ]


def test_tune_equals_fit(tuned, backbone):
    task = tpv.load_task("mini/sst2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tpv.TpvWarning)
        again = tpv.fit(backbone, task, tpv.SoftPrompt.sample(backbone, 5), tpv.Recipe(steps=6, batch_size=4))
    assert torch.allclose(again.tensor, tpv.SoftPrompt.load(tuned / "prompt.safetensors").tensor, atol=1e-6)


def test_few_rows_are_tuned_on_as_suits_them(tmp_path, run, backbone):
    """Below 1,000 rows the steps go by the rows, and it says so; what is given stays as given."""
    command = ["tune", "--task", "mini/imdb", "--shots", "9", "--tokens", "3", "--calibrate", "none", "--device", "cpu"]
    code, _, err = run(*command, "--out", tmp_path / "a")
    assert code == 0, err
    assert "15 of 9 rows (15 epochs), the checkpoint chosen by loss in 3 validations" in err
    task = tpv.load_task("mini/imdb").few_shot(9, 0)
    recipe = tpv.Recipe(steps=15, batch_size=9, eval_every=5)
    same = tpv.fit(backbone, task, tpv.SoftPrompt.sample(backbone, 3), recipe, callback=lambda _: None)
    found = tpv.SoftPrompt.load(tmp_path / "a" / "prompt.safetensors")
    assert torch.allclose(same.tensor, found.tensor, atol=1e-6)
    code, _, err = run(*command, "--out", tmp_path / "b", "--steps", "2", "--batch-size", "4")
    assert code == 0, err
    assert "2 of 4 rows" in err


def test_tuning_on_from_a_prompt_few_shot(tuned, tmp_path, run):
    code, _, err = run(
        "tune",
        "--task",
        "mini/imdb",
        "--from",
        tuned / "prompt.safetensors",
        "--shots",
        "10",
        "--out",
        tmp_path / "b",
        "--steps",
        "3",
        "--batch-size",
        "2",
        "--device",
        "cpu",
    )
    assert code == 0, err
    assert tpv.SoftPrompt.load(tmp_path / "b" / "prompt.safetensors").terms == {"mini/imdb": 1.0, "mini/sst2": 1.0}
    assert tpv.TaskPromptVector.load(tmp_path / "b" / "vector.safetensors").terms == {"mini/imdb": 1.0}


def test_the_best_lambda_is_found_and_its_prompt_written(tuned, tmp_path, run, backbone):
    start, vector = tuned / "init.safetensors", tuned / "vector.safetensors"
    search = ["vector", "search", vector, vector, "--prompt", start, "--on", "mini", "--device", "cpu", "--step", "0.5"]
    code, out, err = run(
        *search, "-t", "mini/sst2", "-t", "mini/yelp", "--no-race", "--out", tmp_path / "p.safetensors"
    )
    assert code == 0, err
    (best,) = [float(re.search(r"[\d.]+", line).group()) for line in out.splitlines() if "best" in line.split()]
    total = 2.0 * tpv.TaskPromptVector.load(vector)
    candidates = {scale: total.apply(tpv.SoftPrompt.load(start), scale) for scale in (0.0, 0.5, 1.0)}
    tasks = [tpv.load_task(name) for name in ("mini/sst2", "mini/yelp")]
    matches = {
        scale: sum(tpv.evaluate(backbone, task, prompt, "validation").exact_match for task in tasks)
        for scale, prompt in candidates.items()
    }
    assert matches[best] == max(matches.values())
    written = tpv.SoftPrompt.load(tmp_path / "p.safetensors")
    assert torch.equal(written.tensor, candidates[best].tensor)
    code, _, err = run(*search[:-1], "0.3", "-t", "mini/sst2")
    assert (code, err) == (2, "error: --step; expected a number that divides 1; got 0.3\n")


def test_vector_arithmetic_on_files(tuned, tmp_path, run):
    vector = tpv.TaskPromptVector.load(tuned / "vector.safetensors")
    init = tpv.SoftPrompt.load(tuned / "init.safetensors")
    v, out = tuned / "vector.safetensors", tmp_path / "out.safetensors"
    cases = [
        (("make", tuned / "prompt.safetensors", tuned / "init.safetensors"), vector),
        (("add", v, v), vector + vector),
        (("add", v, v, "--weights", "1,-0.5"), vector + -0.5 * vector),
        (("scale", v, "--by", "-0.5"), -0.5 * vector),
        (("negate", v), -vector),
        (("apply", v, tuned / "init.safetensors", "--scale", "0.25"), init + 0.25 * vector),
    ]
    for args, expected in cases:
        code, _, err = run("vector", *args, "--out", out)
        assert code == 0, err
        assert type(expected).load(out) == expected


def test_show_and_similarity(tuned, tmp_path, run):
    v = tuned / "vector.safetensors"
    run("vector", "negate", v, "-o", tmp_path / "n.safetensors")
    code, out, _ = run("vector", "show", v, tuned / "prompt.safetensors")
    assert code == 0
    assert "mini/sst2" in out
    code, _, _ = run("vector", "similarity", v, tmp_path / "n.safetensors", "-o", tmp_path / "c.csv")
    assert code == 0
    assert [float(x) for x in (tmp_path / "c.csv").read_text().splitlines()[1].split(",")[1:]] == pytest.approx([1, -1])
    code, _, err = run("vector", "similarity", v, tuned / "prompt.safetensors")
    assert code == 2
    assert "only vectors, or only prompts" in err


def test_evaluate_and_predict_agree_with_python(tuned, tmp_path, run, backbone):
    prompt, task = tpv.SoftPrompt.load(tuned / "prompt.safetensors"), tpv.load_task("mini/sst2")
    table = tmp_path / "p.parquet"
    code, out, err = run(
        "evaluate",
        tuned / "init.safetensors",
        "--vector",
        tuned / "vector.safetensors",
        "--task",
        "mini/sst2",
        "--predictions",
        table,
        "--device",
        "cpu",
    )
    assert code == 0, err
    scores = tpv.evaluate(backbone, task, prompt)
    assert f"{scores.exact_match:.3f}" in out
    assert pq.read_table(table)["predicted"].to_pylist() == scores.predictions["predicted"].to_pylist()
    texts = ["the plot is never dull.", "the cast is awful."]
    code, out, err = run(
        "predict", tuned / "prompt.safetensors", *texts, "--task", "mini/sst2", "--json", "--device", "cpu"
    )
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    expected = tpv.predict(backbone, task, prompt, [f"sentence: {text}" for text in texts])
    assert [row["predicted"] for row in rows] == expected["predicted"].to_pylist()
    assert set(rows[0]["log_probs"]) == {"negative", "positive"}


def test_own_data_from_the_command_line(tmp_path, run):
    rows = "".join(f'"the plot is {["bad", "good"][i % 2]}, part {i}",{i % 2}\n' for i in range(60))
    (tmp_path / "reviews.csv").write_text("review,stars\n" + rows)
    code, out, err = run(
        "tune",
        "--train",
        tmp_path / "reviews.csv",
        "--text",
        "review",
        "--label",
        "stars",
        "--labels",
        "negative,positive",
        "--out",
        tmp_path / "r",
        *FAST,
    )
    assert code == 0, err
    assert "reviews" in out


def test_correlations_are_shown_where_there_are_some(tuned, tmp_path, run, backbone):
    path = write_rating(tmp_path)
    code, out, err = run("evaluate", tuned / "prompt.safetensors", "--task", path, "--device", "cpu")
    assert code == 0, err
    scores = tpv.evaluate(backbone, tpv.load_task(path), tpv.SoftPrompt.load(tuned / "prompt.safetensors"))
    assert [word in out for word in ("Pearson", "Spearman", f"{scores.pearson:.3f}")] == [True] * 3
    code, out, err = run("evaluate", tuned / "prompt.safetensors", "--task", "mini/sst2", "--device", "cpu")
    assert (code, "Pearson" in out, "macro-F1" in out) == (0, False, True), err


def test_truncated_texts_are_reported_in_one_line_each(tmp_path, run, backbone):
    """With how many of how many rows, counted here by the tokenizer alone."""
    (tmp_path / "rows.csv").write_text(
        "text,label\n" + "".join(f"{'the plot is dull. ' * (1 + i % 3)},{'ab'[i % 2]}\n" for i in range(200))
    )
    task = tpv.load_task(tmp_path / "rows.csv")
    (tmp_path / "rows.toml").write_text(
        'name = "rows"\nfields = ["text"]\ntemplate = "text: {text}"\nlabels = ["a", "b"]\n'
        '[source]\nkind = "files"\ntrain = "rows.csv"\n'
    )

    def told(split):
        lengths = [len(backbone.tokenizer(row.source)["input_ids"]) for row in task.examples(split)]
        long = sum(length > 12 for length in lengths)
        assert 0 < long < len(lengths)
        about = f"{long} of {len(lengths)} texts of task 'rows' ({split})"
        return f"warning: {about} are longer than 12 tokens and were truncated\n"

    limit = ["--max-input-length", "12", "--device", "cpu"]
    code, _, err = run(
        "tune", "--train", tmp_path / "rows.csv", "--out", tmp_path / "t", *FAST[:-2], "--eval-every", "2", *limit
    )
    assert code == 0, err
    for split in ("train", "validation", "test"):
        assert err.count(told(split)) == 1, err
    prompt = tmp_path / "t" / "prompt.safetensors"
    code, _, err = run("evaluate", prompt, "--train", tmp_path / "rows.csv", *limit)
    assert (code, [line for line in err.splitlines() if "tokens" in line]) == (0, [told("test").strip()])
    code, _, err = run(
        "predict", prompt, "the plot", "the plot is dull. " * 5, "--task", tmp_path / "rows.toml", *limit
    )
    assert (code, err) == (0, "warning: 1 of 2 texts of the input are longer than 12 tokens and were truncated\n")
    (tmp_path / "study.toml").write_text(
        'name = "cut"\nexperiments = ["sources"]\n[model]\nname = "mini"\nmax_input_length = 12\n[prompt]\ntokens = 2\n'
        '[seeds]\ninits = 2\n[[families]]\nname = "f"\nsources = ["rows.toml"]\n[sources.training]\nsteps = 2\n'
        "[run]\nenergy = false\n"
    )
    code, _, err = run("run", tmp_path / "study.toml", "--out", tmp_path / "run")
    assert code == 0, err
    (line,) = [line for line in err.splitlines() if line.startswith("warning: texts were truncated: ")]
    for split in ("train", "validation", "test"):
        cut, of, rows = told(split).split()[1:4]
        assert f"task 'rows' ({split}) {cut} {of} {rows} longer than 12 tokens" in line
    code, _, err = run("report", tmp_path / "run")
    assert code == 0, err
    (row,) = [
        row
        for row in (tmp_path / "run" / "tables" / "settings.csv").read_text().splitlines()
        if "texts truncated" in row
    ]
    assert line.removeprefix("warning: texts were truncated: ") in row


def test_the_style_of_a_template_on_every_command_that_has_one(tuned, tmp_path, run, backbone):
    folder = tmp_path / "data" / "sst2"
    folder.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        rows = [{"sentence": f"the plot is {['bad', 'good'][i % 2]}", "label": i % 2} for i in range(12)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    local = ["--task", "sst2", "--data-dir", tmp_path / "data", "--device", "cpu"]
    prompt = tuned / "prompt.safetensors"
    fingerprints = set()
    for style in ("text", "instruct"):
        task = tpv.load_task("sst2", data_dir=tmp_path / "data", style=style)
        code, out, err = run("tasks", "sst2", "--data-dir", tmp_path / "data", "--style", style)
        assert (code, task.examples("test")[0].source in out) == (0, True), err
        code, out, err = run("evaluate", prompt, *local, "--style", style, "--predictions", tmp_path / "p.parquet")
        assert code == 0, err
        log_probs = tpv.evaluate(backbone, task, tpv.SoftPrompt.load(prompt)).predictions["log_probs"]
        assert pq.read_table(tmp_path / "p.parquet")["log_probs"] == log_probs
        code, out, err = run("predict", prompt, "the plot is bad", "--task", "sst2", "--style", style, "--json")
        assert json.loads(out)["source"] == task.examples("test")[0].source, err
        code, _, err = run("tune", *local, "--style", style, "--out", tmp_path / style, "--tokens", "2", "--steps", "1")
        assert code == 0, err
        (component,) = tpv.TaskPromptVector.load(tmp_path / style / "vector.safetensors").components
        fingerprints.add(component.data)
        assert component.data == task.fingerprint
    assert len(fingerprints) == 2
    code, _, err = run("predict", prompt, "a", "--labels", "a,b", "--style", "instruct")
    assert (code, err) == (2, "error: --style; expected --task with it, whose template it chooses; got no --task\n")


def bad_cases(folder, vector, prompt):
    content = vector.read_bytes()
    (folder / "cut.safetensors").write_bytes(content[:-7])
    flipped = bytearray(content)
    flipped[-3] ^= 4
    (folder / "flip.safetensors").write_bytes(flipped)
    (folder / "nolabel.csv").write_text("text,klass\na,b\nc,d\ne,b\nf,d\n")
    (folder / "words.csv").write_text("text,label\na,good\nc,bad\ne,fine\nf,good\n")
    (folder / "empty.csv").write_text("text,label\n")
    (folder / "file").write_text("")
    out = ["--out", folder / "result"]
    tune = ["tune", "--task", "mini/sst2", *out, *FAST]
    save = ["--out", folder / "result.safetensors"]
    return {
        "unknown task": (["tune", "--task", "mini/sst22", *out, *FAST], "unknown task 'mini/sst22'"),
        "unknown model": (
            [*tune, "--model", "no-such-model-anywhere"],
            "model 'no-such-model-anywhere' is not on this machine",
        ),
        "model folder": ([*tune, "--model", folder / "nothing"], "does not exist"),
        "folder without a model": ([*tune, "--model", folder], "has no usable configuration"),
        "no label column": (["tune", "--train", folder / "nolabel.csv", *out, *FAST], "no label column 'label'"),
        "foreign label": (
            ["tune", "--train", folder / "words.csv", "--labels", "good,bad", *out, *FAST],
            "label 'fine' is not one of",
        ),
        "empty data": (["tune", "--train", folder / "empty.csv", *out, *FAST], "has no rows"),
        "no task": (["tune", *out, *FAST], "either --task NAME or --train FILE"),
        "truncated": (["vector", "negate", folder / "cut.safetensors", *save], "cut.safetensors is damaged"),
        "bit-flipped": (["vector", "negate", folder / "flip.safetensors", *save], "flip.safetensors is damaged"),
        "prompt for vector": (["vector", "negate", prompt, *save], "expected TaskPromptVector; got SoftPrompt"),
        "lr 0": ([*tune, "--lr", "0"], "lr must be a positive finite number"),
        "lr nan": ([*tune, "--lr", "nan"], "lr must be a positive finite number"),
        "batch 0": ([*tune, "--batch-size", "0"], "batch_size must be"),
        "P 0": ([*tune, "--tokens", "0"], "number of prompt tokens"),
        "steps x": ([*tune, "--steps", "x"], "--steps"),
        "unknown option": ([*tune, "--colour", "red"], "--colour"),
        "unknown start": ([*tune, "--init", "zeros"], "expected vocabulary, normal, text, zero"),
        "too many shots": ([*tune, "--shots", "99999"], "from 1 to 2000"),
        "out not writable": (
            ["tune", "--task", "mini/sst2", "--out", folder / "file" / "x", *FAST],
            "cannot be written",
        ),
        "out is a file": (
            ["vector", "negate", vector, "--out", folder / "file" / "v.safetensors"],
            "cannot be written",
        ),
        "weights": (["vector", "add", vector, vector, "--weights", "1,b", *save], "numbers separated by commas"),
        "scale nan": (["vector", "scale", vector, "--by", "nan", *save], "finite real number"),
        "no such split": (
            ["evaluate", prompt, "--task", "mini/sst2", "--split", "dev"],
            "'dev' is not one of 'train', 'validation', 'test'",
        ),
        "precision": (
            ["evaluate", prompt, "--task", "mini/sst2", "--precision", "fp16"],
            "'fp16' is not one of 'fp32', 'bf16'",
        ),
        "no such device": (["evaluate", prompt, "--task", "mini/sst2", "--device", "abacus"], "device 'abacus'"),
        "missing file": (
            ["evaluate", folder / "gone.safetensors", "--task", "mini/sst2"],
            "gone.safetensors does not exist",
        ),
        "select": ([*tune, "--select", "pearson"], "needs label words that are numbers; got task 'mini/sst2'"),
        "no instruction": ([*tune, "--style", "instruct"], "has no template of style 'instruct'"),
        "no command": (["tunee"], "tunee"),
    }


def test_bad_input_is_one_line_and_exit_code_2_and_writes_nothing(tuned, tmp_path, run, subtests):
    cases = bad_cases(tmp_path, tuned / "vector.safetensors", tuned / "prompt.safetensors")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    for name, (args, words) in cases.items():
        with subtests.test(name):
            code, out, err = run(*args)
            assert code == 2
            assert err.startswith("error: ")
            assert err.count("\n") == 1
            assert words in err
            assert out == ""
            assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_the_vector_of_another_model_is_refused(tuned, tmp_path, run, random_t5):
    other = random_t5(d_model=128, num_heads=4, d_kv=32)
    foreign = tpv.SoftPrompt.sample(other, 5)
    (foreign.tuned_to(foreign.tensor + 1, "t") - foreign).save(tmp_path / "foreign.safetensors")
    code, _, err = run(
        "evaluate", tuned / "init.safetensors", "--vector", tmp_path / "foreign.safetensors", "--task", "mini/sst2"
    )
    assert code == 2
    assert "different models" in err
    assert "random 0" in err
    assert "mini" in err


def test_every_command_has_help_with_an_example(run):
    commands = (
        "quickstart",
        "tune",
        "evaluate",
        "predict",
        "tasks",
        "import",
        "export",
        "push",
        "pull",
        "plan",
        "run",
        "report",
    )
    for command in commands:
        code, out, _ = run(command, "--help")
        assert code == 0
        assert re.search(r"Examples?: tpv " + command, out)
    for command in ("make", "add", "scale", "negate", "apply", "show", "search", "similarity"):
        code, out, _ = run("vector", command, "--help")
        assert code == 0
        assert re.search(r"Examples?: tpv vector " + command, out)
    for command in ("add", "list", "show"):
        code, out, _ = run("library", command, "--help")
        assert code == 0
        assert re.search(r"Examples?: tpv library " + command, out)


def test_help_does_not_import_torch():
    code = "import sys; sys.argv = ['tpv', '--help']\nfrom tpv import cli\ntry: cli.main()\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'transformers', 'numpy', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    subprocess.run([sys.executable, "-c", "import tpv, sys; assert 'torch' not in sys.modules"], check=True)


def test_the_installed_command_answers():
    done = subprocess.run([sys.executable, "-m", "tpv.cli", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"tpv {tpv.__version__}"
