"""Commands that answer: predict, fetch detector."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.cli.app import SkipBad, Views, app, next_step, stoppable
from mien.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mien.detection import Detector
    from mien.inference import Classifier
    from mien.inference.pictures import Picture

fetch_app = typer.Typer(
    help="Download what is not in the package: the face detector CenterFace.", no_args_is_help=True
)
app.add_typer(fetch_app, name="fetch")


@app.command()
def predict(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(
            help="Pictures, folders of them, globs, one video, or - for a picture on standard "
            "input."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help=".csv or .jsonl for rows; .jpg or .png for an annotated copy of one picture, a "
            "folder for those of many, .mp4 for one of a video. Default: lines to read."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON lines on standard output.")] = False,
    run: Annotated[
        Path | None,
        typer.Option(help="A finished run, or a file of `mien export`. Default: the packaged one."),
    ] = None,
    detector: Annotated[
        str,
        typer.Option(
            help="auto, centerface, yunet or cascade; none where each picture is a crop of a face."
        ),
    ] = "auto",
    detector_model: Annotated[
        Path | None, typer.Option(help="The ONNX file of CenterFace or YuNet.")
    ] = None,
    largest: Annotated[
        bool, typer.Option("--largest", help="Only the largest face of each picture.")
    ] = False,
    min_probability: Annotated[
        float | None,
        typer.Option(help="Below it a face is not known. Default: the model's own.", min=0, max=1),
    ] = None,
    camera: Annotated[
        int | None, typer.Option(help="Watch the camera of this number, until Ctrl-C.")
    ] = None,
    smooth: Annotated[
        float, typer.Option(help="Seconds that the answers of a video are smoothed over.", min=0)
    ] = 0.0,
    every: Annotated[int, typer.Option(help="Look at every so many frames.", min=1)] = 1,
    summary: Annotated[
        Path | None, typer.Option(help="A folder for the timeline of a video.")
    ] = None,
    views: Views = None,
    skip_bad: SkipBad = False,
) -> None:
    """Find the faces of pictures, a video or a camera, and say their expressions.

    A table of rows of pictures that is there already is added to, so that what was interrupted
    goes on; what is said of a video is written to a file of its own.

    Example: mien predict photo.jpg, or mien predict PHOTOS --out faces.csv
    """
    from mien.inference import load
    from mien.inference.outputs import outside
    from mien.inference.pictures import VIDEOS, Picture, listed

    sources = pictures or []
    video: Path | int | None = camera
    films = [source for source in sources if Path(source).suffix.lower() in VIDEOS]
    if films and len(sources) > 1:
        raise DataError(f"{films[0]}: is a video; give each to a call of its own")
    if films:
        video = Path(films[0])
    if (camera is None) != bool(sources):
        raise DataError("give pictures, a video, or --camera NUMBER, and only one of these")
    if video is None and (summary is not None or smooth or every > 1):
        raise DataError("--summary, --smooth and --every are for a video or a camera; leave them")
    if video is not None and json and out is not None:
        raise DataError("of a video, give --json or --out, not both")
    if video is not None and skip_bad:
        raise DataError("--skip-bad is for pictures; of a video what can be decoded is used anyway")
    if out is not None and str(out) == "-":
        raise DataError("without --out, answers go to standard output; give --json for JSON")
    if largest and detector == "none":
        raise DataError("--largest is of the faces that a detector finds; leave it out with none")
    model = load(run, detector=_detector(detector, detector_model), views=views)
    found: Iterable[Picture] = ()
    if sources == ["-"]:
        found = [Picture("-", sys.stdin.buffer.read())]
    elif video is None:
        # In a table, pictures of one name from two folders are told apart.
        table = json or (out is not None and out.suffix.lower() in (".csv", ".jsonl"))
        found = outside(listed(sources, as_given=table), sources, out)
    if model.detector is not None and detector == "auto":
        name = model.detector.name
        better = "; `mien fetch detector` brings a better one" if name == "cascade" else ""
        print(f"detector: {name}{better}", file=sys.stderr)
    if video is None:
        _answer(found, model, out, json, largest, min_probability, skip_bad)
        return
    rows_to_stdout = json or (out is None and summary is None)
    _watch(
        video,
        model,
        out=sys.stdout if rows_to_stdout else out,
        smooth=smooth,
        every=every,
        summary=summary,
        largest=largest,
        min_probability=min_probability,
    )


@fetch_app.command("detector")
def fetch_detector() -> None:
    """Bring CenterFace, a better face detector than the one that comes with OpenCV, from PyPI.

    Example: mien fetch detector
    """
    from mien.detection.fetch import LICENCE, fetch

    print(f"{fetch()} (licence: {LICENCE})")
    next_step("mien predict photo.jpg")


def _detector(name: str, model: Path | None) -> str | Detector:
    """What `mien.inference.load` takes as a detector."""
    if model is None:
        return name
    if name == "none":
        raise DataError(f"{model}: is a detector's, and --detector none has none; leave one out")
    from mien.detection import detector

    return detector(name, model)


def _answer(
    found: Iterable[Picture],
    model: Classifier,
    out: Path | None,
    json: bool,
    largest: bool,
    min_probability: float | None,
    skip_bad: bool,
) -> None:
    """Have pictures answered, wherever the answers go, and say what came of it."""
    from mien.inference.answers import answers
    from mien.inference.outputs import Output, as_text, made_by, output
    from mien.inference.rows import json_line

    by = made_by(model, largest=largest, min_probability=min_probability)
    bad, done = 0, 0

    def unreadable(error: DataError) -> None:
        nonlocal bad
        bad += 1
        print(f"left out: {error}", file=sys.stderr)

    with ExitStack() as stack:
        stack.enter_context(stoppable())
        show = stack.enter_context(_shown("pictures", out is not None and not json))
        kept = stack.enter_context(output(out, model, by)) if out else Output(lambda answer: None)
        if kept.done:
            print(f"{out}: goes on after the {len(kept.done):,} pictures in it", file=sys.stderr)
        if kept.cut:
            print(f"{out}: {kept.cut:,} bytes of a torn last row are cut off", file=sys.stderr)
        try:
            for answer in answers(
                (p for p in found if p.name == "-" or p.name not in kept.done),
                model,
                largest=largest,
                min_probability=min_probability,
                unreadable=unreadable if skip_bad else None,
            ):
                kept.add(answer)
                done += 1
                show(done, None)
                if json:
                    sys.stdout.write(json_line(answer.picture.name, answer.faces, by))
                elif out is None:
                    sys.stdout.write(as_text(answer))
                sys.stdout.flush()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped after {done:,} pictures; the same command goes on with the rest"
                if out and out.suffix.lower() in (".csv", ".jsonl")
                else f"stopped after {done:,} pictures"
            ) from None
    if not done and not kept.done:
        raise DataError(
            f"none of {bad:,} files can be read"
            if bad
            else "no picture found; a folder's end in .jpg, .png and the like, and a video is "
            "given alone, by its own name"
        )
    if bad:
        print(f"left out {bad:,} unreadable files", file=sys.stderr)
    if out:
        print(f"{done:,} images: {out}", file=sys.stderr if json else sys.stdout)
    elif not json:
        next_step("mien predict PHOTOS --out faces.csv, or --out copies for annotated copies")


@contextmanager
def _shown(what: str, wanted: bool) -> Iterator[Callable[[float, float | None], None]]:
    """Show on a terminal how far it has come, and of how much where that is known."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(bar_width=20), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def show(done: float, total: float | None) -> None:
            text = f"{done:,.0f} of {total:,.0f} {what}" if total else f"{done:,.0f} {what}"
            bar.update(task, completed=done, total=total, description=text)

        yield show


def _watch(source: Path | int, model: Classifier, **settings: Any) -> None:
    """Have a video or a camera watched, and say what came of it."""
    from mien.inference.video import predict_video

    with stoppable(), _shown("seconds", settings["out"] is not sys.stdout) as show:
        watched = predict_video(source, model, progress=show, **settings)
    for note in watched.notes:
        print(note, file=sys.stderr)
    for file in watched.files:
        print(file)
    print(
        f"{watched.chosen:,} of {watched.frames:,} frames looked at, {watched.faces:,} faces, "
        f"{watched.seconds:.1f} s",
        file=sys.stderr,
    )
