"""The report: it says what results.json says, all of it, and says what was not run."""

import copy
import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mien.errors import RunError
from mien.metrics import evaluate
from mien.report import write_report
from mien.report.page import render, summary
from mien.report.results import read_results
from mien.report.table import Column, Table, count, interval, percent, signed
from mien.report.tables import all_tables
from mien.runs.recipe import Recipe
from mien.study import paper

CLASSES = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
MODELS = [(family, attention) for family in paper.FAMILIES for attention in ("none", "cbam")]


def made_up_metrics(rng: np.random.Generator, n: int, skill: float) -> dict:
    labels = np.concatenate([np.arange(7), rng.integers(0, 7, n - 7)])
    logits = rng.normal(size=(n, 7)) + skill * np.eye(7)[labels]
    logits[:, 1] -= 9  # nobody is ever called disgusted: its precision is unknown
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return evaluate(probabilities, labels, CLASSES).to_dict()


def made_up_model(family: str, attention: str, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    recipe = Recipe(model=family.lower(), attention=attention, width=0.25, epochs=3)
    cbam = attention == "cbam"
    stages = [("stem", 16, 24), ("stage1", 64, 12), ("stage2", 128, 6), ("stage3", 512, 3)]
    outline = [
        {"name": name, "kind": "convolution", "shape": [c, s, s], "parameters": 1000 * c,
         "attention": attention if i else "none", "blocks": i + 1}
        for i, (name, c, s) in enumerate(stages)
    ]  # fmt: skip
    outline.append(
        {"name": "classifier", "kind": "linear", "shape": [7], "parameters": 3591,
         "attention": "none", "blocks": 1}
    )  # fmt: skip
    log = [
        {"epoch": e, "loss": 2.1 - 0.3 * e, "accuracy": 0.2 + 0.1 * e,
         "validation_loss": 2.0 - 0.25 * e, "validation_accuracy": 0.25 + 0.09 * e + seed / 1000,
         "lr": 0.002, "seconds": 60.5, "images_per_second": 470.0}
        for e in (1, 2, 3)
    ]  # fmt: skip
    return {
        "key": recipe.key, "title": recipe.title, "family": family, "attention": attention,
        "setting": "default", "state": "finished", "run": f"{recipe.key}-ab12cd34e{seed}",
        "recipe": json.loads(json.dumps(recipe.to_dict())), "seed": 0, "log": log,
        "metrics": {
            "PublicTest": {
                "all": made_up_metrics(rng, 400, 1.6 + 0.1 * seed),
                "without_copies": made_up_metrics(rng, 370, 1.5 + 0.1 * seed),
            }
        },
        "predicted_unlabelled": {"PrivateTest": 398},
        "cost": {
            "parameters": 1_234_567 + 1000 * seed, "attention_parameters": 45_678 * cbam,
            "multiply_adds": 31_000_000 * (1 + seed), "training_images_per_second": 471.0 - seed,
            "latency_ms": 4.25 + seed, "train_seconds": 181.5, "peak_memory_gb": 1.5,
        },
        "efficiency": {"epochs_to": {"0.5": 3, "0.6": None}, "last_epochs_spread": 0.0123,
                       "last_epochs": 3},
        "collapsed_to": None, "outline": outline,
    }  # fmt: skip


def made_up_results() -> dict:
    models = [made_up_model(*which, seed) for seed, which in enumerate(MODELS)]
    return {
        "mien": "0.1.0", "scale": "cpu", "toy": False, "protocol": "clean", "state": "complete",
        "scale_label": "quarter-width versions (w1/4), stride 16, 48 pixels, 3 epochs",
        "protocol_text": "clean: nothing is chosen on any split",
        "date": "2026-11-22T09:12:00+00:00", "command": "mien study --data faces --scale cpu",
        "data": {
            "name": "FER-2013", "fingerprint": "0123456789abcdef", "source": "faces",
            "notes": ["3 files were skipped."], "classes": CLASSES, "images": 3797, "size": 48,
            "channels": 1,
            "counts": {"Training": [400, 44, 410, 722, 483, 317, 623],
                       "PublicTest": [52, 6, 55, 100, 73, 46, 68]},
            "unlabelled": {"PrivateTest": 398},
            "roles": {"train": "Training", "validation": "PublicTest", "test": None},
            "audit": [["exact copies inside the split", "Training", 1234]],
        },
        "hardware": {"cpu": "Two-Core 2000", "cores": 2, "threads": 2, "memory_gb": 24,
                     "accelerator": None},
        "versions": {"mien": "0.1.0", "python": "3.11.7", "torch": "2.11.0", "numpy": "2.2"},
        "models": models,
        "pairs": [
            {"family": family, "without": models[2 * i]["key"], "with": models[2 * i + 1]["key"]}
            for i, family in enumerate(paper.FAMILIES)
        ],
    }  # fmt: skip


def made_up_sheets() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sheets: dict[str, np.ndarray] = {
        "samples": rng.integers(0, 256, (7, 5, 48, 48), np.uint8),
        "step_titles": np.array(["original", "resized, padded", "normalised", "augmented"]),
    }
    for i, size in enumerate((48, 224, 224, 224)):
        sheets[f"step_{i}"] = rng.normal(size=(3, size, size)).astype(np.float32)
    for model in made_up_results()["models"]:
        sheets[f"features_{model['key']}"] = rng.normal(size=(12, 24, 24)).astype(np.float32)
    return sheets


def leave(out: Path, results: dict, sheets: dict[str, np.ndarray] | None = None) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results))
    if sheets is not None:
        np.savez(out / "sheets.npz", **sheets)
    return out


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Path, dict, str]:
    """A complete study's folder, its results and its page."""
    results = made_up_results()
    out = leave(tmp_path_factory.mktemp("study"), results, made_up_sheets())
    return out, results, write_report(out).read_text()


def page_of(results: dict) -> str:
    """The page without its figures, which take their time."""
    return render(results, all_tables(results), {})


def rows_of(study: Path | dict, name: str) -> list[dict[str, str]]:
    """A table's rows, from the folder of a study or straight from its results."""
    if isinstance(study, Path):
        text = (study / "tables" / f"{name}.csv").read_text()
    else:
        text = all_tables(study)[name].to_csv()
    return list(csv.DictReader(io.StringIO(text)))


class Page(HTMLParser):
    """Tags, ids and headings of a page; unbalanced tags are a failure."""

    VOID = frozenset(("meta", "br", "hr", "img", "input", "link"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[int] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if tag == "a" else []
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


# --- what is in it ------------------------------------------------------------------------------


def test_every_table_of_the_paper_is_there_in_four_formats(study):
    out, _, page = study
    names = [
        "counts",
        "generated",
        "audit",
        "settings-common",
        "settings-differ",
        "grid-table-iv",
        "grid-tables-v-ix",
        "results-PublicTest",
        "results-PublicTest-without-copies",
        "recall-by-class",
        "precision-by-class",
        "cbam-by-class",
        "neutral-and-sad",
        "table-v",
        "table-vi",
        "table-vii",
        "table-viii",
        "table-ix",
        "table-x",
        "table-xi",
        "cost",
        "learning",
        "price-of-attention",
        "contradictions",
        "tables-xii-xiii",
        "published-sums",
        "settings-outside-the-grid",
        "not-run",
        "provenance",
        "runs",
    ]
    files = {path.name for path in (out / "tables").glob("[!.]*")}
    assert files == {f"{name}.{ending}" for name in names for ending in ("csv", "md", "tex")}
    for name in names:
        assert page.count(f'id="table-{name}"') == 1
    for numeral in ("II", "III", "IV", "V, VII", "VI", "VIII", "IX", "X", "XI"):
        assert re.search(rf"after Tables? (I and )?{numeral}\b", page)


def test_every_figure_of_the_paper_is_there_as_svg_and_pdf(study):
    out, results, page = study
    names = [
        "samples",
        "cbam",
        "framework",
        "classes-training",
        "classes-evaluation",
        "steps",
        "network-vgg19",
        "network-resnet50",
        "network-inceptionv3",
        "curves-vgg19",
        "curves-resnet50",
        "curves-inceptionv3",
        "confusion",
        "recall-vgg19-cbam-w1_4",
        "recall-resnet50-cbam-w1_4",
        "recall-inceptionv3-cbam-w1_4",
        "accuracy",
        "cost",
    ] + [f"features-{model['key']}" for model in results["models"]]
    files = {path.name for path in (out / "figures").glob("[!.]*")}
    assert files == {f"{name}.{ending}" for name in names for ending in ("svg", "pdf")}
    for name in names:
        assert page.count(f'id="figure-{name}"') == 1
    for number in (1, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16):
        assert f"after Fig. {number})" in page
    assert "after Figs. 7 and 8)" in page


def test_the_numbers_are_those_of_results_json_in_full_precision(study):
    out, results, page = study
    rows = rows_of(out, "results-PublicTest")
    assert [row["model"] for row in rows] == [model["title"] for model in results["models"]]
    for row, model in zip(rows, results["models"], strict=True):
        metrics = model["metrics"]["PublicTest"]["all"]
        assert float(row["accuracy"]) == metrics["accuracy"]
        assert float(row["95 % interval, low"]) == metrics["accuracy_interval"][0]
        assert float(row["95 % interval, high"]) == metrics["accuracy_interval"][1]
        assert float(row["macro F1"]) == metrics["macro_f1"]
        assert float(row["log-loss"]) == metrics["log_loss"]
        assert float(row["calibration error"]) == metrics["calibration_error"]
        assert int(row["n"]) == 400
        assert f">{100 * metrics['accuracy']:.1f}</td>" in page
    for row, model in zip(rows_of(out, "cost"), results["models"], strict=True):
        assert float(row["multiply-adds"]) == model["cost"]["multiply_adds"]
        assert int(row["parameters"]) == model["cost"]["parameters"]


def test_the_table_without_the_copies_is_another_one(study):
    out, results, _ = study
    rows = rows_of(out, "results-PublicTest-without-copies")
    for row, model in zip(rows, results["models"], strict=True):
        assert (
            float(row["accuracy"]) == (model["metrics"]["PublicTest"]["without_copies"]["accuracy"])
        )
        assert row["n"] == "370"


def test_where_there_are_no_copies_no_table_leaves_them_out():
    results = made_up_results()
    for model in results["models"]:
        of_split = model["metrics"]["PublicTest"]
        of_split["without_copies"] = of_split["all"]
    tables = all_tables(results)
    assert "results-PublicTest-without-copies" not in tables
    assert "None of these images stands" in tables["results-PublicTest"].to_html()
    assert "None of these images stands" not in page_of(made_up_results())


def test_cbam_is_compared_class_by_class_with_its_own_network(study):
    out, results, _ = study
    rows = rows_of(out, "cbam-by-class")
    row = rows[7 + CLASSES.index("sad")]
    without, with_ = (
        m["metrics"]["PublicTest"]["all"]["recall"][4] for m in results["models"][2:4]
    )
    assert (row["model"], row["class"]) == ("ResNet50-CBAM (w1/4)", "sad")
    assert (float(row["without CBAM"]), float(row["with CBAM"])) == (without, with_)
    assert float(row["gain (points)"]) == pytest.approx(100 * (with_ - without))
    assert len(rows) == 3 * 7


def test_the_summary_names_the_best_model_with_split_role_and_interval(study):
    _, results, page = study
    found = {m["title"]: m["metrics"]["PublicTest"] for m in results["models"]}
    best = max(found, key=lambda title: found[title]["without_copies"]["accuracy"])
    metrics, chosen = found[best]["all"], found[best]["without_copies"]
    low, high = metrics["accuracy_interval"]
    page = page.replace("\u00a0", " ")
    assert (
        f"{best} has the highest accuracy on PublicTest, validation, without the 30 images that "
        f"stand in training too: {100 * chosen['accuracy']:.1f} %. With them it is "
        f"{100 * metrics['accuracy']:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f} %, "
        "400 images)" in page
    )
    assert "PrivateTest (398 images): no test result is claimed" in page


def test_every_caption_carries_scale_protocol_seed_machine_and_date(study):
    out, _, page = study
    captions = re.findall(r"<caption>.*?</caption>", page, re.DOTALL)
    assert len(captions) == len(list((out / "tables").glob("*.csv")))
    for caption in captions:
        for part in ("quarter-width", "clean protocol", "seed 0", "Two-Core 2000", "2026-11-22"):
            assert part in caption
    assert "FER-2013, PublicTest, validation; n = 400" in page
    assert "not a result about the full models" not in page


def test_public_test_is_never_called_test(study):
    _, _, page = study
    assert "PublicTest, test" not in page
    assert "On PublicTest, validation" in page


def test_a_split_that_early_stopping_looked_at_was_chosen_on():
    results = made_up_results()
    results["models"][0]["recipe"]["patience"] = 2
    assert "On PublicTest, validation (chosen on)" in page_of(results)


def test_a_toy_says_so_in_every_table():
    results = made_up_results() | {"toy": True, "scale": "smoke"}
    for name, table in all_tables(results).items():
        for text in (table.to_html(), table.to_csv(), table.to_markdown(), table.to_latex()):
            assert "not a result about the full models" in text, name


def test_quarter_width_models_never_have_the_full_names(study):
    out, _, _ = study
    for name in ("results-PublicTest", "cost", "learning", "recall-by-class", "runs"):
        assert all("(w1/4)" in row["model"] for row in rows_of(out, name))
    assert all("(w1/4)" in row["model here"] for row in rows_of(out, "table-vi")[::2])
    published = [row for row in rows_of(out, "table-xi") if row["comparable"] != "measured here"]
    assert len(published) == len(paper.TABLE_XI) + len(paper.TABLE_I) + len(paper.RECORDS)
    assert {row["comparable"] for row in published} == {"published, no"}


def test_published_figures_stand_beside_ours_and_tuning_was_not_run(study):
    out, results, _ = study
    rows = rows_of(out, "table-viii")
    assert [float(row["published"]) for row in rows] == [0.7033, 0.7150, 0.7124, 0.7240]
    ours = results["models"][2]["metrics"]["PublicTest"]["all"]["accuracy"]
    assert float(rows[0]["here"]) == ours
    assert [row["here"] for row in rows[1::2]] == ["not run", "not run"]
    (lr,) = (row for row in rows_of(out, "table-ix") if row["hyperparameter"] == "learning rate")
    assert (lr["published default"], lr["published best"]) == ("0.01", "0.05")
    assert (lr["InceptionV3-CBAM (w1/4), here"], lr["tuned, here"]) == ("0.002", "not run")


def test_settings_stand_once_and_only_the_differing_ones_apart(study):
    out, _, _ = study
    common = {row["setting"]: row["value"] for row in rows_of(out, "settings-common")}
    differing = set(rows_of(out, "settings-differ")[0]) - {"context"}
    assert differing == {"name", "model", "attention"}
    assert common["lr (learning rate)"] == "0.002"
    assert len(common) + 2 == len(Recipe().to_dict())


def test_what_the_paper_has_and_this_study_has_not_is_said(study):
    out, _, page = study
    text = (out / "tables" / "not-run.csv").read_text()
    for what in ("generated", "tuning", "k-fold cross-validation", "5x2", "final test split"):
        assert what in text
    assert {row["state"] for row in rows_of(out, "not-run")} == {"not run"}
    phases = [row["what"] for row in rows_of(out, "not-run")][:4]
    said = dict(summary(made_up_results()))["What was not run"]
    assert said == f"{', '.join(phases[:3])} and {phases[3]}.".capitalize()
    assert "differences between models are not tested here" in page


# --- a study that is not whole ------------------------------------------------------------------


def test_a_model_that_was_not_run_is_said_so_and_the_rest_is_reported():
    results = made_up_results()
    kept = {key: results["models"][3][key] for key in ("key", "title", "family", "attention")}
    results["models"][3] = kept | {"setting": "default", "state": "not run", "why": "out of time"}
    page = page_of(results)
    assert "5 of 6 models were trained" in page
    assert "Models not run: ResNet50-CBAM (w1/4)." in page
    assert rows_of(results, "results-PublicTest")[3]["accuracy"] == "not run"
    (row,) = (r for r in rows_of(results, "not-run") if r["what"] == "ResNet50-CBAM (w1/4)")
    assert row["why"] == "out of time"
    assert len(rows_of(results, "price-of-attention")) == 2


def test_a_study_of_every_phase_says_that_none_was_left_out():
    phases = {"balance": {"lift": "200"}, "searches": [{"key": "plain"}]}
    validations = [{"scheme": scheme} for scheme in ("k-fold", "5x2")]
    found = dict(summary(made_up_results() | phases | {"validations": validations}))
    assert found["What was not run"] == "Nothing of the paper's phases."


def test_a_study_without_any_finished_model_and_without_sheets_still_has_a_page(tmp_path):
    results = made_up_results() | {"state": "partial"}
    for model in results["models"]:
        model["state"] = "not run"
        del model["outline"]
    page = write_report(leave(tmp_path, results)).read_text()
    assert "the study\nhas not ended" in page
    assert "No model has been evaluated yet" in page
    assert "Fig. 1, examples of each class: not drawn" in page
    Page(page)


def test_an_opened_test_split_is_headed_test_and_comes_first_in_the_comparisons():
    results = made_up_results()
    results["data"]["roles"]["test"] = "PrivateTest"
    results["data"]["unlabelled"] = {}
    for model in results["models"]:
        model["metrics"]["PrivateTest"] = copy.deepcopy(model["metrics"]["PublicTest"])
    results["models"][1]["metrics"]["PublicTest"]["without_copies"]["accuracy"] = 0.99
    page = page_of(results)
    chosen = results["models"][1]["metrics"]  # poor on test, but chosen it was on validation
    assert "On PrivateTest, test" in page
    assert (
        "VGG19-CBAM (w1/4) has the highest accuracy on PublicTest, validation, without the 30 "
        "images that stand in training too: 99.0\u00a0%. On "
        f"PrivateTest, test: {100 * chosen['PrivateTest']['all']['accuracy']:.1f}\u00a0%" in page
    )
    assert "final test split" not in page
    assert "PrivateTest was opened after all training of this study" in page


def test_two_settings_of_a_model_are_two_rows_with_two_names(tmp_path):
    results = made_up_results()
    best = made_up_model("VGG19", "cbam", 9) | {"setting": "tuned", "key": "vgg19-cbam-tuned"}
    results["models"].append(best)
    results = read_results(leave(tmp_path, results))
    assert rows_of(results, "results-PublicTest")[6]["model"] == "VGG19-CBAM (w1/4), tuned"
    ours = best["metrics"]["PublicTest"]["all"]["accuracy"]
    assert float(rows_of(results, "table-vi")[3]["here"]) == ours
    assert rows_of(results, "table-v")[0]["VGG19-CBAM (w1/4), tuned, here"] == "3"


def test_models_trained_on_another_machine_say_on_which():
    results = made_up_results()
    results["models"][0]["hardware"] = {"accelerator": "Fast One", "cpu": "x", "threads": 2}
    results["hardware"]["instructions"] = ["avx2", "avx512_f"]
    page = page_of(results)
    assert "Fast One, 2 threads and Two-Core 2000, 2 threads" in page
    assert "Two-Core 2000, 2 cores, avx2, avx512_f" in page
    assert rows_of(results, "runs")[0]["machine"] == "Fast One, 2 threads"


def test_an_extra_model_with_other_epochs_is_not_passed_off_as_equal():
    results = made_up_results()
    plain = made_up_model("plain", "none", 8)
    results["models"].append(plain | {"title": "plain", "log": plain["log"] * 5})
    assert [row["epochs"] for row in rows_of(results, "results-PublicTest")] == ["3"] * 6 + ["15"]
    assert "not trained for the same number of epochs" in page_of(results)


def test_a_collapse_is_told_in_the_summary_and_under_the_results():
    results = made_up_results()
    results["models"][0]["collapsed_to"] = "happy"
    page = page_of(results)
    assert "VGG19 (w1/4) calls (almost) every image happy" in page
    assert "VGG19 (w1/4) collapsed" in page


# --- the page -----------------------------------------------------------------------------------


def test_the_page_loads_nothing_and_its_markup_is_sound(study):
    _, _, page = study
    for outside in ("<script", "<link", "@import", "<iframe", 'src="http', "url(http", "//cdn"):
        assert outside not in page
    references = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert all(reference.startswith(("#", "data:image/png")) for reference in references)
    assert set(re.findall(r'"(https?://[^"]+)"', page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_the_page_can_be_read_without_seeing_it(study):
    _, _, page = study
    parsed = Page(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link[1:] for link in parsed.links} <= set(parsed.ids)
    assert parsed.headings[0] == 1
    assert all(b <= a + 1 for a, b in zip(parsed.headings, parsed.headings[1:], strict=False))
    assert page.count("<svg") == len(re.findall(r'<svg[^>]*aria-label="[^"]+', page))
    assert 'class="skip"' in page
    assert '<html lang="en">' in page
    assert "prefers-color-scheme: dark" in page


def test_names_from_outside_cannot_become_markup():
    results = made_up_results()
    results["data"]["name"] = "<script>alert(1)</script> & faces"
    results["data"]["notes"] = ["a<b> | c"]
    page = page_of(results)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


# --- the table ----------------------------------------------------------------------------------

AWKWARD = Table(
    "awkward",
    "100 % of A_B & C",
    [Column("what | it"), Column("n", count), Column("share", interval, "%"), Column("d", signed)],
    [["50 % \\ #1 {x} ~^$ <a>", 1234, (0.5, 0.625), -1.25], ["none", None, None, float("nan")]],
    notes=["see A_B"],
    context="toy & small",
)


def test_latex_escapes_every_special_letter():
    text = AWKWARD.to_latex()
    assert r"\caption{100 \% of A\_B \& C toy \& small}" in text
    assert (
        r"50 \% \textbackslash{} \#1 \{x\} \textasciitilde{}\textasciicircum{}\$ "
        r"\textless{}a\textgreater{} & 1,234 & 50.0 to 62.5 & $-$1.2 \\" in text
    )
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    assert r"\begin{tabular}{lrrr}" in text


def test_html_and_markdown_escape_too():
    assert "&lt;a&gt;" in AWKWARD.to_html()
    assert "toy &amp; small" in AWKWARD.to_html()
    lines = AWKWARD.to_markdown().splitlines()
    assert lines[2].startswith("| what \\| it | n |")
    assert lines[3] == "| --- | ---: | ---: | ---: |"
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 5 for line in lines[2:6])


def test_csv_keeps_the_values_and_splits_intervals():
    rows = list(csv.DictReader(io.StringIO(AWKWARD.to_csv())))
    assert rows[0]["n"] == "1234"
    assert (rows[0]["share, low"], rows[0]["share, high"]) == ("0.5", "0.625")
    assert rows[0]["d"] == "-1.25"
    assert [rows[1][key] for key in ("n", "share, low", "share, high", "d")] == [""] * 4
    assert {row["context"] for row in rows} == {"toy & small"}


def test_csv_has_the_unit_that_its_values_are_in_and_html_the_unit_that_is_shown(study):
    out, results, page = study
    row = rows_of(out, "cost")[0]
    assert float(row["training (s)"]) == results["models"][0]["cost"]["train_seconds"]
    assert "training (min)" in page
    assert "accuracy (%)" in page


def test_no_two_columns_of_a_csv_have_the_same_name(study):
    out, _, _ = study
    for path in (out / "tables").glob("*.csv"):
        (head, *_) = csv.reader(io.StringIO(path.read_text()))
        assert len(head) == len(set(head)), path.name


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="awkward"):
        Table("awkward", "c", [Column("a"), Column("b", percent)], [["x"]])


# --- bad input ----------------------------------------------------------------------------------


def test_a_missing_results_file_is_named(tmp_path):
    with pytest.raises(RunError, match=r"results\.json: cannot be read.*--out"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-40], "is no JSON"),
        (lambda text: "[]", "is no object"),
        (lambda text: text.replace('"models"', '"modules"'), "lacks models"),
        (lambda text: text.replace('"fingerprint"', '"print"'), "data lacks fingerprint"),
        (lambda text: text.replace('"validation_loss"', '"loss2"'), "log .vgg19.*validation_loss"),
        (lambda text: text.replace('"log_loss"', '"logloss"'), "metrics of vgg19.*log_loss"),
    ],
)
def test_a_damaged_results_file_is_named_with_what_is_wrong(tmp_path, damage, message):
    out = leave(tmp_path, made_up_results())
    path = out / "results.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(RunError, match=rf"results\.json: .*{message}"):
        write_report(out)
    assert not (out / "report.html").exists()


def test_a_damaged_file_of_sheets_is_named(tmp_path):
    out = leave(tmp_path, made_up_results())
    (out / "sheets.npz").write_bytes(b"PK no archive")
    with pytest.raises(RunError, match=r"sheets\.npz: cannot be read"):
        write_report(out)
