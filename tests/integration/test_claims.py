"""The page of the paper's claims: verdicts on tables whose answer is known, intervals against a slow bootstrap."""

import random
import re
import statistics
import subprocess
import sys
from itertools import combinations, permutations

import pytest
from made_up import FAMILIES, SOURCES, STARTS, TARGETS, WORDS, study
from places import ROOT
from small_runs import go, tiny

from tpv.reporting.records import ORDINARY, Row
from tpv.reporting.results import Results

SCRIPT = ROOT / "benchmarks" / "claims.py"
SHOTS = (0, 10, 100)
HOLDS, FAILS, UNCLEAR, MISSED = "holds", "does not hold", "not clear", "not run yet"


@pytest.fixture(scope="module")
def claims():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import claims

        yield claims
    finally:
        sys.path.remove(str(SCRIPT.parent))


def family(task):
    return next(f for f in FAMILIES if task in f.sources)


class Made:
    """Rows whose true differences are given; `noise` is the deviation of each score."""

    def __init__(self, noise=0.001, seed=0):
        self.rows, self.noise, self.draw = [], noise, random.Random(seed)

    def add(self, experiment, task, method, sources, init, value, metric="exact_match", **more):
        fields = {"shots": None, "scale": None} | more
        value += self.draw.gauss(0, self.noise) if metric not in ("steps", "majority") else 0
        self.rows.append(Row(experiment, task, method, sources, init, metric=metric, value=value, n=100, **fields))

    def sources(self, tuned=0.9, tasks=SOURCES):
        for task in tasks:
            for init in STARTS:
                self.add("sources", task, "tuned", (task,), init, tuned)
                self.add("sources", task, "tuned", (task,), init, 1 / len(WORDS[task]), "majority")

    def moved(self, lost, mode=ORDINARY, tuned=0.9, tasks=SOURCES):
        """Every vector on both other initializations, `lost` points below the tuned prompt."""
        for task in tasks:
            for vector, init in permutations(STARTS, 2):
                value = tuned - lost / 100
                self.add("cross_initialization", task, "moved", (task,), init, value, vector_seed=vector, mode=mode)

    def similarity(self, what, same, near, far):
        """Cosines of one task, of one family, and of two families."""
        for (a, i), (b, j) in combinations([(task, init) for task in SOURCES for init in STARTS], 2):
            value = same if a == b else near if family(a) == family(b) else far
            self.add("similarity", a, what, (a, b), i, value, "cosine", vector_seed=j)

    def pairs(self, near, far, tuned=0.9):
        """Sums that keep these shares of the tuned score on the worse task, within a family and across."""
        for a, b in combinations(SOURCES, 2):
            share = near if family(a) == family(b) else far
            for init in STARTS:
                self.add("combination", a, "sum", (a, b), init, share * tuned, scale=0.5)
                self.add("combination", b, "sum", (a, b), init, tuned, scale=0.5)

    def transfer(self, ours, others, shots=SHOTS):
        for target, of in TARGETS.items():
            metric = study().tasks[target].metric
            spots = [("spot", (source,), others - 0.1 * k) for k, source in enumerate(of.sources)]
            joint = [(method, of.sources, others) for method in ("spot_multi", "attempt")]
            for method, used, value in [("random", (), others), ("sum", of.sources, ours), *spots, *joint]:
                for shot in shots:
                    for init in STARTS:
                        for name in {metric, "exact_match"}:
                            self.add("transfer", target, method, used, init, value, name, shots=shot)

    def cost(self, ratio):
        for size in (1, 2, 3):
            for method, steps in (("vectors", 100), ("spot_multi", 100 * ratio)):
                self.add("cost", "", method, SOURCES[: size + 1], 0, steps, "steps", shots=size)

    def negation(self, lost, control):
        for f in FAMILIES:
            for both in permutations(f.sources, 2):
                for method in ("sum_own", "sum_other"):
                    for init in STARTS:
                        for scale in (0.0, 1.0):
                            self.add("negation", both[0], method, both, init, 0.9 - scale * lost, scale=scale)
                            self.add("negation", both[1], method, both, init, 0.9 - scale * control, scale=scale)

    def results(self, **more):
        return Results(study(shots=SHOTS, **more), self.rows)


def everything(true):
    """A study in which every claim is true by a margin, or false by one."""
    made = Made()
    made.sources()
    made.moved(0.5 if true else 20)
    made.similarity("prompts", 0.1 if true else 0.5, 0.05, 0.05)
    made.similarity("vectors", *((0.1, 0.05, 0.01) if true else (0.5, 0.6, 0.9)))
    made.pairs(*((0.98, 0.93) if true else (0.3, 0.4)))
    made.transfer(*((0.8, 0.7) if true else (0.6, 0.7)))
    made.cost(2.0 if true else 1.0)
    made.negation(*((0.5, 0.1) if true else (0.1, 0.5)))
    return made


def verdicts(claims, made, modes=(ORDINARY,)):
    results = made.results()
    usable = claims.usable_rows(results)
    return [claims.judged(claim, results, usable, modes) for claim in claims.claims_of(results)]


@pytest.mark.parametrize(("true", "said"), [(True, HOLDS), (False, FAILS)])
def test_every_claim_is_told_true_and_false(claims, true, said):
    found = verdicts(claims, everything(true))
    assert len(found) == 24
    for one in found:
        assert one.verdict == said, (one.claim.measured, one.found)


def test_nothing_run_is_said_of_every_claim(claims):
    assert {one.verdict for one in verdicts(claims, Made())} == {MISSED}


@pytest.mark.parametrize(
    ("lost", "noise", "said"), [(0.5, 0.002, HOLDS), (5, 0.002, FAILS), (2, 0.05, UNCLEAR), (0, 0.1, UNCLEAR)]
)
def test_noise_leaves_it_open(claims, lost, noise, said):
    made = Made(noise)
    made.sources()
    made.moved(lost)
    assert [one.verdict for one in verdicts(claims, made)[:2]] == [said, said]


def test_one_bad_task_of_four_tells_the_majority_from_the_mean(claims):
    made = Made()
    made.sources()
    made.moved(0.3, tasks=SOURCES[1:])
    made.moved(70, tasks=SOURCES[:1])
    majority, mean = verdicts(claims, made)[:2]
    assert majority.found[ORDINARY].value == pytest.approx(-0.3, abs=0.2)
    assert mean.found[ORDINARY].value == pytest.approx(-(70 + 3 * 0.3) / 4, abs=0.2)
    assert mean.verdict == UNCLEAR  # other tasks may be like the one, or like the three


@pytest.mark.parametrize(
    ("ordinary", "portable", "composable", "said"),
    [
        (20, 0.5, 20, "holds with portable vectors"),
        (20, 20, 0.5, "holds with composable vectors"),
        (20, 20, 20, FAILS),
        (0.5, 20, 20, HOLDS),
    ],
)
def test_other_vectors_may_make_it_hold(claims, ordinary, portable, composable, said):
    made = Made()
    made.sources()
    for mode, lost in ((ORDINARY, ordinary), ("portable", portable), ("composable", composable)):
        made.moved(lost, mode)
    assert verdicts(claims, made, claims.MODES)[0].verdict == said


def test_one_initialization_or_one_task_is_not_enough(claims):
    made = Made()
    made.sources()
    made.moved(0.5)
    one_task = Made()
    one_task.rows = [row for row in made.rows if row.task == "sst2"]
    one_init = Made()
    one_init.rows = [row for row in made.rows if row.init_seed == 0 or row.vector_seed == 0]
    one_init.rows = [row for row in one_init.rows if row.vector_seed in (None, 0)]
    for part, shape in ((one_task, (1, 3)), (one_init, (4, 1))):
        found = verdicts(claims, part)[0]
        assert (found.found[ORDINARY].tasks, found.found[ORDINARY].inits) == shape
        assert found.verdict == UNCLEAR


def test_tasks_that_were_not_learned_cannot_keep_anything(claims, tmp_path):
    made = Made()
    made.sources(tuned=0.0)
    made.moved(0, tuned=0.0)
    made.pairs(0.0, 0.0)
    assert [one.verdict for one in verdicts(claims, made)[:2]] == [UNCLEAR, UNCLEAR]
    claims.write_claims(tmp_path / "page.md", made.results(), [])
    assert "Not learned, and left out: mnli, qnli, sst2, yelp\\_polarity." in (tmp_path / "page.md").read_text()


def test_targets_on_which_nothing_is_ever_right_are_left_out(claims):
    made = Made(noise=0)
    made.transfer(0.8, 0.7)
    for row in [row for row in made.rows if row.task == "sst5"]:
        made.rows.remove(row)
        made.add(row.experiment, row.task, row.method, row.sources, row.init_seed, 0.0, row.metric, shots=row.shots)
    results = made.results()
    for rival in ("random", "spot", "spot_multi", "attempt"):
        found = claims.estimate(claims.gain(results, ORDINARY, rival, 0))
        assert (found.tasks, found.value) == (2, pytest.approx(10))


def slow_bootstrap(table, middle, times=4000):
    """Resampling with loops: tasks and initializations, each drawn again with replacement."""
    draw = random.Random(1)
    tasks, inits = sorted({task for task, _ in table}), sorted({init for _, init in table})
    found = []
    for _ in range(times):
        columns = draw.choices(inits, k=len(inits))
        means = [statistics.fmean(table[task, init] for init in columns) for task in draw.choices(tasks, k=len(tasks))]
        found.append(middle(means))
    found.sort()
    return found[int(0.025 * times)], found[int(0.975 * times)]


@pytest.mark.parametrize("middle", ["mean", "median"])
def test_intervals_are_those_of_a_slow_bootstrap(claims, middle):
    draw = random.Random(0)
    of_task = [draw.gauss(0, 5) for _ in range(7)]
    of_init = [draw.gauss(0, 2) for _ in range(5)]
    table = {((f"t{t}",), i): of_task[t] + of_init[i] + draw.gauss(0, 1) for t in range(7) for i in range(5)}
    one = claims.estimate(table, middle)
    low, high = slow_bootstrap(table, getattr(statistics, middle))
    width = high - low
    assert width > 2
    assert one.low == pytest.approx(low, abs=0.06 * width)
    assert one.high == pytest.approx(high, abs=0.06 * width)
    centre = getattr(statistics, "fmean" if middle == "mean" else middle)
    by_task = [statistics.fmean(table[(f"t{t}",), i] for i in range(5)) for t in range(7)]
    assert one.value == pytest.approx(centre(by_task))
    again = claims.estimate(table, middle)
    assert again == one


def test_a_run_with_gaps_uses_its_largest_whole_table(claims):
    table = {((task,), init): 1.0 for task in "abcd" for init in range(3)}
    assert claims.rectangle(table) == ([("a",), ("b",), ("c",), ("d",)], [0, 1, 2])
    del table[("d",), 2], table[("d",), 1]
    assert claims.rectangle(table) == ([("a",), ("b",), ("c",)], [0, 1, 2])
    assert claims.rectangle({key: 1.0 for key in table if key[1] == 0 or key[0] == ("a",)})[1] == [0]
    assert claims.rectangle({}) == ([], [])


def test_sums_are_compared_on_their_worse_task_and_by_kind(claims):
    made = Made(noise=0)
    made.sources()
    made.pairs(near=0.95, far=0.4)
    results = made.results()
    assert claims.estimate(claims.pairs(results, ORDINARY)).value == pytest.approx((2 * 0.95 + 4 * 0.4) / 6)
    table = claims.by_pair(results, [ORDINARY])
    shown = {row[:2]: row[2] for row in table.rows}
    assert shown["same family", "lower score / tuned"].startswith("0.95")
    assert shown["different families", "share of pairs above 0.5"].startswith("0.00")
    # qnli, sst2 and yelp_polarity have two labels: one pair of a family, two across
    assert float(shown["both with two labels", "lower score / tuned"][:4]) == pytest.approx(
        (0.95 + 2 * 0.4) / 3, abs=0.005
    )


def test_the_best_single_source_is_the_rival(claims):
    made = Made(noise=0)
    made.transfer(0.8, 0.7)  # the first source gives 0.7, the second 0.6
    found = claims.gain(made.results(), ORDINARY, "spot", 10)
    assert len(found) == len(TARGETS) * len(STARTS)
    assert all(value == pytest.approx(10) for value in found.values())


def test_the_paper_is_quoted_with_its_own_numbers(claims):
    by_measure = {(one.quote, one.measured): one.paper for one in claims.claims_of(Made().results())}
    papers = list(by_measure.values())
    assert papers[0] == "-0.1"  # QNLI, MNLI, DBpedia and Yelp of Table 1
    assert papers[1].startswith("-11.7 (-69.0 on TREC")
    spot = [paper for (_, measured), paper in by_measure.items() if "best single source, points, 100" in measured]
    # Tables 2 and 4 at 100 shots: 88.1 - 87.8, 83 - 83.4, 90.4 - 90.3, 80.3 - 80.8, 61.1 - 61.3
    assert spot == [f"{statistics.fmean([0.3, -0.4, 0.1, -0.5, -0.2]):+.1f} (-0.5 to +0.3 on 5 targets)"]


def test_the_page_says_what_is_missing_and_counts_its_verdicts(claims, tmp_path):
    made = everything(True)
    made.rows = [row for row in made.rows if row.experiment not in ("negation", "cost") and row.shots != 100]
    told = claims.write_claims(tmp_path / "page.md", made.results(), ["negation (3 of 9 jobs done)"])
    page = (tmp_path / "page.md").read_text()
    assert told == "holds: 17; not run yet: 7"  # four rivals at 100 shots, two of negation, one of cost
    assert told in page
    assert page.count("**holds**") == 17
    assert page.count("**not run yet**") == 7
    assert "Not run yet: negation (3 of 9 jobs done)." in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) >= 3 for line in rows)


@pytest.fixture
def page_of(claims, monkeypatch, capsys):
    """Run the script in this process: exit code, standard output, standard error."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
        capsys.readouterr()  # what the runs before it said
        try:
            claims.main()
            code = 0
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    go(tiny(vectors={"modes": ["portable"], "training": {"steps": 2, "batch_size": 2, "select": "last"}}), folder)
    return folder


def test_a_real_run_has_a_page(small_run, tmp_path, page_of):
    done = subprocess.run(
        [sys.executable, SCRIPT, small_run, "--out", tmp_path / "pages" / "claims.md"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "pages" / "claims.md").read_text()
    assert "portable vectors" in page
    assert "composable vectors (not in this study)" in page
    # one family, one task with two labels, no `sum_other`: two claims on families, one on pairs, one on subtracting
    assert "not run yet: 4\n" in done.stdout
    code, _, error = page_of(small_run, "--out", tmp_path / "again.md")
    assert (code, error) == (0, "")
    assert (tmp_path / "again.md").read_text() == page


def test_a_run_that_was_cut_short_has_a_page_too(tmp_path, page_of):
    go(tiny(), tmp_path / "run", limit=8)
    code, told, error = page_of(tmp_path / "run", "--out", tmp_path / "claims.md")
    assert (code, error) == (0, "")
    assert MISSED in told
    assert re.search(r"transfer \(\d+ of \d+ jobs done\)", (tmp_path / "claims.md").read_text())


def test_what_is_no_run_is_refused_in_one_line(small_run, tmp_path, page_of):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("no folder")
    go(tiny(), tmp_path / "empty", limit=0)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.json").write_bytes((small_run / "run.json").read_bytes()[:100])
    for place in (tmp_path / name for name in ("nothing", "folder", "file", "empty", "broken")):
        code, _, error = page_of(place, "--out", tmp_path / "claims.md")
        assert code == 2, place
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert str(place) in error
    assert not (tmp_path / "claims.md").exists()
    code, _, error = page_of(small_run, "--out", tmp_path / "file" / "claims.md")
    assert (code, error.count("\n")) == (2, 1)
