"""The documents: their examples run, their commands exist, their links lead somewhere.

In `docs/`, the Python blocks of a page run in order, in one namespace and one folder. An HTML
comment on the line before a block, which readers do not see, says more: ``<!-- run -->`` has its
commands run, ``<!-- file: NAME -->`` writes it into the folder. All other commands are parsed.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import typer.main
from PIL import Image
from sklearn.metrics import f1_score
from statsmodels.stats.proportion import proportion_confint

from mien.cli import app, main
from mien.data import draw_faces
from mien.runs.run import Run
from mien.study.scales import scales

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "src/mien/inference/fer2013.md", *DOCS]

COMMAND = typer.main.get_command(app)
BLOCK = re.compile(r"^(?:<!-- ([^\n]+) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block: its line, the comment before it, its language and its text."""

    line: int
    comment: str
    language: str
    text: str


def blocks(text: str) -> list[Block]:
    return [
        Block(text[: found.start(3)].count("\n") + 1, found[1] or "", found[2], found[3])
        for found in BLOCK.finditer(text)
    ]


def commands(text: str) -> Iterator[list[str]]:
    """The words after ``mien`` of each such command line in a block."""
    for line in text.replace("\\\n", " ").splitlines():
        if found := re.match(r"(?:uv run (?:--no-dev |--extra \w+ )?)?mien\s+(.+)", line):
            yield shlex.split(found[1], comments=True)


def mentions(text: str) -> Iterator[list[str]]:
    """The words after ``mien`` of each command that a sentence names."""
    for found in SPAN.finditer(BLOCK.sub("", text)):
        if found[1].startswith("mien "):
            yield [w for w in shlex.split(found[1])[1:] if w not in ("...", "COMMAND", "--help")]


def complaint(words: list[str], whole: bool = True) -> str | None:
    """What the command line has against a command; one that is not whole may lack arguments."""
    command, rest = COMMAND, list(words)
    context = command.make_context("mien", [], resilient_parsing=True)
    while isinstance(command, typer.core.TyperGroup) and rest:
        found = command.get_command(context, rest[0])
        if found is None:
            return f"mien {shlex.join(words)}: there is no command '{rest[0]}'"
        command, rest = found, rest[1:]
    try:
        if whole:
            command.make_context(command.name, rest)
        else:
            _, left, _ = command.make_parser(context).parse_args(args=rest)
            if left:
                return f"mien {shlex.join(words)}: nothing takes {left}"
    except Exception as error:  # typer has its own copy of click's kinds
        return f"mien {shlex.join(words)}: {error}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_exists_with_its_options(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shown = [words for block in blocks(text) for words in commands(block.text)]
    wrong = [complaint(words) for words in shown]
    wrong += [complaint(words, whole=False) for words in mentions(text)]
    assert not [one for one in wrong if one]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("mien predikt photo.jpg", "no command 'predikt'"),
        ("uv run mien predict photo.jpg --uot a.csv  # a comment", "--uot"),
        ("mien data fletch", "no command 'fletch'"),
        ("mien train --recipe plain", "data"),
        ("mien predict photo.jpg --every many", "many"),
    ],
)
def test_a_wrong_command_in_a_page_is_noticed(line: str, told: str) -> None:
    (words,) = commands(line)
    assert told in str(complaint(words))


def test_a_page_is_taken_apart_into_its_blocks_and_mentions() -> None:
    text = (
        "a\n<!-- run -->\n```\nmien a --b \\\n  c  # d\n```\n"
        "or `mien e f`, `g`\n```python\nh\n```\n"
    )
    assert blocks(text) == [
        Block(4, "run", "", "mien a --b \\\n  c  # d\n"),
        Block(9, "", "python", "h\n"),
    ]
    assert [list(commands(block.text)) for block in blocks(text)] == [[["a", "--b", "c"]], []]
    assert list(mentions(text)) == [["e", "f"]]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs/results/README.md"], ids=str)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles]
            assert anchor in anchors, f"{link}: there is no such heading"


def test_the_index_names_every_page() -> None:
    links = LINK.findall((ROOT / "docs/README.md").read_text(encoding="utf-8"))
    assert {page.name for page in DOCS} - {"README.md"} <= set(links)


def test_the_index_of_results_names_every_sheet() -> None:
    index = ROOT / "docs/results/README.md"
    links = LINK.findall(index.read_text(encoding="utf-8"))
    assert {sheet.name for sheet in index.parent.glob("*.md")} - {"README.md"} <= set(links)


def test_the_server_has_every_address_that_the_pages_name() -> None:
    from mien.inference import load
    from mien.server import create_app

    named = {
        path
        for page in DOCS
        for path in re.findall(r"127\.0\.0\.1:8000(/[\w/]*)", page.read_text(encoding="utf-8"))
    }
    has = {getattr(route, "path", None) for route in create_app(load(detector="none")).routes}
    assert "/v1/predict" in named
    assert named <= has


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the examples run: with the photograph, folders and video that they name."""
    from skimage.data import astronaut

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    photo = astronaut()
    Image.fromarray(photo).save("photo.jpg")
    drawn = draw_faces(140, size=32)
    Path("PHOTOS").mkdir()
    Image.fromarray(photo).save("PHOTOS/0.jpg")
    Image.fromarray(drawn.images[0]).save("PHOTOS/1.jpg")
    for number, (image, label) in enumerate(zip(drawn.images, drawn.labels, strict=True)):
        place = Path("FACES", drawn.classes[label])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:04}.png")
    # another data set: other names of classes, one of which FER-2013 has not
    theirs = ("anger", "disgust", "fear", "happy", "sadness", "surprise", "contempt")
    for number, image in enumerate(draw_faces(42, size=32, seed=1).images):
        place = Path("OTHER", theirs[number % 7])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"other_{number:04}.png")
    film = cv2.VideoWriter("clip.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10, photo.shape[1::-1])
    for shift in range(4):
        film.write(np.ascontiguousarray(np.roll(photo, 4 * shift, 1)[:, :, ::-1]))
    film.release()
    return tmp_path


def run_command(words: list[str]) -> str:
    """Run a command in this process; ``runs/RUN`` is the training that was done last."""
    trained = sorted(Path("runs").glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    if trained:
        words = [str(trained[-1].parent) if word == "runs/RUN" else word for word in words]
    argv, sys.argv = sys.argv, ["mien", *words]
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        if ended.code:
            pytest.fail(f"mien {shlex.join(words)}: {err.getvalue()}")
    finally:
        sys.argv = argv
    return out.getvalue()


def run_page(page: Path) -> str:
    """Do all that a page asks for, in the order of its blocks; gives what was printed."""
    namespace: dict[str, object] = {}
    printed = io.StringIO()
    for block in blocks(page.read_text(encoding="utf-8")):
        kind, _, name = block.comment.partition(": ")
        if kind == "file":
            Path(name).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            # on its own line of the page, for the traceback
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            with contextlib.redirect_stdout(printed):
                exec(code, namespace)
        elif kind == "run":
            for words in commands(block.text):
                printed.write(run_command(words))
    return printed.getvalue()


def test_the_quick_start_runs(folder: Path) -> None:
    printed = run_page(ROOT / "docs/quickstart.md")
    assert "photo.jpg: " in printed
    assert '"label": ' in printed
    rows = (folder / "faces.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows][:2] == ["image", "PHOTOS/0.jpg"]
    assert (folder / "crops.csv").read_text().count(".png") == 140
    assert (folder / "copy.jpg").exists()
    assert (folder / "copies/0.jpg").exists()
    assert (folder / "clip.csv").exists()
    assert (folder / "clip-summary/summary.csv").exists()


def test_the_python_page_runs(folder: Path) -> None:
    printed = run_page(ROOT / "docs/python.md")
    assert "did you mean 'cbam'?" in printed
    assert "McNemar" in printed
    assert "corrected resampled t" in printed


def test_the_page_on_own_data_runs(folder: Path) -> None:
    printed = run_page(ROOT / "docs/own-data.md")
    assert "run: runs/plain-cbam-w1_4-" in printed
    assert "contempt -> left out: 6 images" in printed
    assert "groups: 32 of 36 images are not in groups.csv" in printed
    assert (folder / "studies/evaluate/evaluation.json").exists()


def test_the_other_pages_run(folder: Path) -> None:
    done = {"quickstart.md", "python.md", "own-data.md"}
    printed = "".join(run_page(page) for page in DOCS if page.name not in done)
    assert "3 of 18 sums do not add up" in printed
    assert list((folder / "studies/paper").iterdir())


RECORDED = {
    "VGG19 (w1/4)": "vgg19-w1_4-68646f8597",
    "VGG19-CBAM (w1/4)": "vgg19-cbam-w1_4-d445d8196c",
    "ResNet50 (w1/4)": "resnet50-w1_4-2121102c5d",
    "ResNet50-CBAM (w1/4)": "resnet50-cbam-w1_4-cc1a3f0f86",
    "InceptionV3 (w1/4)": "inceptionv3-w1_4-aaafb9033c",
    "InceptionV3-CBAM (w1/4)": "inceptionv3-cbam-w1_4-be885c1dd5",
    "InceptionV3, **full width**, recipe `distilled` (13 epochs), taught by the packaged model": (
        "inceptionv3-4b54bb3a11"
    ),
    "InceptionV3-CBAM, **full width**, of the same recipe and teacher": (
        "inceptionv3-cbam-79f012f21e"
    ),
    "plain (w0.75), of as many multiply-adds as ResNet50 (w1/4), likewise": (
        "plain-w0.75-08ed00203f"
    ),
    "plain, recipe `fast` (6 epochs)": "plain-83d46a334f",
    "plain, recipe `plain` (26 epochs)": "plain-33a0a4f47c",
    "plain (w1.5), recipe `scratch` (45 epochs)": "plain-w1.5-5093956390",
    "the same with FER+ votes beside the labels (extra annotation)": "plain-w1.5-6e8ef87515",
    "plain (w2), recipe `scratch` (45 epochs) with FER+ votes likewise, no teacher": (
        "plain-w2-5e4fc498bc"
    ),
    "plain, recipe `best` (80 epochs)": "plain-81e1512c5f",
    "plain (w1.5), recipe `distilled` (45 epochs), taught by `best`": "plain-w1.5-82f6a001c0",
    "plain (w2), recipe `distilled` (46 epochs), taught by `best`, `distilled` and "
    "`scratch`": "plain-w2-e966616ef6",
    "plain, `best` and 10 epochs of recipe `robust`": "plain-3dbef52f75",
    "plain (w1.5), `distilled` and 10 epochs of recipe `robust`": "plain-w1.5-720a0b6450",
}
"""Rows of the README's table of results, and the records that they are read from."""


def test_the_readmes_six_are_those_that_the_study_trains_on_a_processor() -> None:
    records = [ROOT / "docs" / "results" / "runs" / name for name in list(RECORDED.values())[:6]]
    recipes = [planned.recipe for planned in scales()["cpu"].plan]
    assert [Run.open(record).recipe for record in records] == recipes


@pytest.mark.parametrize("row", RECORDED)
def test_the_readmes_results_are_those_of_the_records(row: str) -> None:
    run = Run.open(ROOT / "docs" / "results" / "runs" / RECORDED[row])
    found = run.predictions("PublicTest")
    right = found.probabilities.argmax(1) == found.labels
    accuracy, low, high = (100 * share for share in (right.mean(), *wilson(right)))
    recall = [right[found.labels == label].mean() for label in range(7)]
    lines = ROOT.joinpath("README.md").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"| {row} |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1] == f"{accuracy:.1f} [{low:.1f}, {high:.1f}]"
    assert cells[3] == f"{100 * np.mean(recall):.1f}"
    f1 = f1_score(found.labels, found.probabilities.argmax(1), average="macro")
    assert cells[4] == f"{f1:.3f}"


def wilson(right: np.ndarray) -> tuple[float, float]:
    return proportion_confint(right.sum(), len(right), method="wilson")
