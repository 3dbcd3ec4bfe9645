"""The command that shows what a trained model looks at: explain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.cli.app import Device, SkipBad, app, next_step, stoppable
from mien.errors import DataError

if TYPE_CHECKING:
    from mien.data import FaceSet
    from mien.runs.run import Run


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, with its weights.")],
    photos: Annotated[
        list[Path] | None, typer.Argument(help="Pictures; the faces in them are explained.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A data set, as for `mien train`, in place of pictures.")
    ] = None,
    detector: Annotated[
        str,
        typer.Option(
            help="auto, centerface, yunet or cascade; none where each picture is a crop of a face."
        ),
    ] = "auto",
    split: Annotated[
        str | None,
        typer.Option(help="Of --data: validation (default), train, or a split's own name."),
    ] = None,
    faces: Annotated[
        int | None,
        typer.Option(min=1, help="How many of --data, as many of each class. Default: 140"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the result.")] = Path("studies/explain"),
    device: Device = None,
    skip_bad: SkipBad = False,
) -> None:
    """Show what a model looks at: CBAM's maps, Grad-CAM, Grad-CAM++ and occlusion.

    Leaves figures, and a table that says which of these maps are to be believed. With --data also
    the mean maps of each class and the errors the model was surest of.

    Example: mien explain runs/RUN --data .data/fer2013 --faces 140 --out studies/explain
    """
    from mien.explanation import explain as explain_faces
    from mien.explanation import explain_split
    from mien.report.explaining import verdict, write_explanation
    from mien.runs.environment import choose_device
    from mien.runs.run import Run

    opened, where = Run.open(run), str(choose_device(device))
    if bool(photos) == bool(data):
        raise DataError("give pictures, or a data set with --data, and not both")
    if photos and (split or faces):
        raise DataError("--split and --faces are for --data; leave them out")
    with stoppable():
        if photos:
            shown = _faces(opened, photos, detector, skip_bad)
            found, pictures = explain_faces(opened, shown, device=where)
        else:
            part = _split(opened, data or "", split or "validation", skip_bad)
            found, pictures = explain_split(opened, part, count=faces or 140, device=where)
    for path in write_explanation(found, pictures, out):
        print(path)
    for name, values in found["scores"].items():
        print(f"{name}: deletion {values['deletion']:.3f}, insertion {values['insertion']:.3f}")
    print(verdict(found))
    next_step(f"open {out / 'figures' / 'explanation-faces.svg'}")


def _faces(run: Run, photos: list[Path], detector: str, skip_bad: bool) -> FaceSet:
    """The faces of pictures as the run's network takes them."""
    import numpy as np

    from mien.data import FaceSet
    from mien.detection import as_training, crop, tilt
    from mien.detection import detector as detector_named
    from mien.pixels import decode, letterbox, to_channels

    size, channels = run.size, run.info["channels"]
    finds = None if detector == "none" else detector_named(detector)
    crops: list[np.ndarray] = []
    names: list[str] = []
    bad = 0
    for photo in photos:
        try:
            pixels = decode(photo, str(photo))
        except DataError as error:
            if not skip_bad:
                raise
            print(f"left out: {error}")
            bad += 1
            continue
        if finds is None:
            found = [pixels]
        else:
            found = [crop(pixels, face.box, tilt(face.eyes)) for face in as_training(pixels, finds)]
            print(f"{photo}: {len(found)} faces found by {finds.name}")
        crops += found
        names += [f"{photo}, face {number}" for number in range(1, len(found) + 1)]
    if bad == len(photos):
        raise DataError("none of the pictures can be read; give others")
    if not crops:
        raise DataError(
            "no face was found; give --detector none for pictures that are crops of a face, or "
            "bring a better detector with `mien fetch detector`"
        )
    n = len(crops)
    return FaceSet(
        np.stack([letterbox(to_channels(face, channels), size) for face in crops]),
        np.full(n, -1),
        run.classes,
        np.array(names),
        np.full(n, "given"),
        name="the pictures given",
    )


def _split(run: Run, data: str, split: str, skip_bad: bool) -> FaceSet:
    """A split by its role or its name; not the final test split, where that has labels.

    Unless it is the training part, what the run learned from is left out of it.
    """
    from mien.data import read, roles
    from mien.evaluation.part import unseen
    from mien.evaluation.trained import open_all

    given = read(data, size=run.size, channels=run.info["channels"], skip_bad=skip_bad)
    faces, parts = roles(given)
    name = {"train": parts.train, "validation": parts.validation}.get(split, split)
    part = faces[name]
    if name == parts.train:
        return part
    if name == parts.test and (part.labels >= 0).any():
        raise DataError(
            f"{name} is the final test split, and looking at its errors would be choosing on it; "
            "explain the validation split"
        )
    part, notes = unseen(part, faces, open_all([run.path]), name)
    for note in notes:
        print(f"note: {note}")
    return part
