"""Read a data set, whatever form it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mien.data import cache as stored
from mien.data import official
from mien.data.faceset import CLASSES, FaceSet
from mien.data.ferplus import join_votes
from mien.data.folder import Listing, list_folder, list_zip, read_parts, read_pictures
from mien.data.store import is_store, read_store, write_store
from mien.data.table import TABLES, read_table
from mien.errors import DataError


def read(
    path: str | Path,
    *,
    size: int | None = None,
    channels: int | None = None,
    skip_bad: bool = False,
    cache: bool = True,
    votes: bool | str | Path = False,
) -> FaceSet:
    """Read a data set of faces into memory.

    Known are the Kaggle folder release of FER-2013 and its zip, ``fer2013.csv`` and
    ``icml_face_data.csv``, any folder or zip of ``<split>/<class>/*`` or ``<class>/*``, and
    ``"drawn"``, ``"drawn:N"`` or ``"drawn:N:SEED"``, faces that are drawn on the spot. The images
    of a store (`read_to_store`) stay in its file.

    Where all class names are those of FER-2013 (or other names for them, such as ``happiness``),
    classes have the official order, without those that have no folder; otherwise the natural order
    of their names. `FaceSet.notes` says so, and how the counts differ from the official ones.

    Parameters
    ----------
    path : folder, zip, table or store
    size : side of the images in pixels; None keeps the size of square pictures that all have the
        same one, and otherwise takes the median of the longer sides, at least 48 and at most 224.
        Other pictures are letterboxed
    channels : 1 for grey, 3 for RGB; None gives RGB where any picture has a colour in it
    skip_bad : leave out and count (in the notes) what cannot be used, instead of an error
    cache : keep the decoded set under ``~/.cache/mien`` and take it from there while the source
        is unchanged
    votes : join the FER+ votes of ``ferplus.csv`` in the folder or beside it (True), or of the
        given file, as `FaceSet.soft`

    Raises
    ------
    DataError
        Naming the file or row that cannot be used, and what to do.
    """
    if isinstance(path, str) and (path == "drawn" or path.startswith("drawn:")):
        if votes:
            raise DataError(f"{path}: drawn faces have no votes; read them without")
        return _drawn(path, size, channels)
    if size is not None and size < 2:
        raise DataError(f"size {size}: an image needs at least 2 pixels a side")
    if channels not in (None, 1, 3):
        raise DataError(f"channels {channels}: must be 1 (grey) or 3 (RGB)")
    source = _place(path)
    if is_store(source):
        kept = _as_asked(read_store(source), source, size, channels)
        return join_votes(kept, source, votes) if votes else kept
    state, make = _reader(source, size, channels, skip_bad)
    settings = f"size={size} channels={channels} skip_bad={skip_bad}"
    faces = stored.load(source, settings, state) if cache else None
    if faces is None:
        faces = make()
        faces = replace(faces, notes=(*faces.notes, *_remarks(faces, skip_bad)))
        if cache:
            stored.save(source, settings, state, faces)
    return join_votes(faces, source, votes) if votes else faces


def read_to_store(
    path: str | Path,
    folder: str | Path,
    *,
    size: int | None = None,
    channels: int | None = None,
    skip_bad: bool = False,
) -> FaceSet:
    """Read a data set as `read` does, but into a store in the new folder `folder`.

    A folder or zip of pictures is decoded part by part, so that it may be larger than memory. From
    then on ``read(folder)`` gives the same set, its images mapped from the file. Its splits are
    views of it, those that stand in the data; one that `roles` carves from another is a copy, so a
    set larger than memory should bring its validation split.

    Raises
    ------
    DataError
        as `read` does, and if `folder` exists or cannot be written; nothing is left of it then.
    """
    source, folder = _place(path), _place(folder)
    listing = _listing(source)
    if listing is None or not listing.images:
        return write_store(read(path, size=size, channels=channels, skip_bad=skip_bad), folder)
    parts = read_parts(listing, size=size, channels=channels, skip_bad=skip_bad)
    return write_store(parts, folder, partial(_remarks, skip_bad=skip_bad))


def _place(path: Path | str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: is in no user's home ({error}); write the path out") from error


def _as_asked(faces: FaceSet, source: Path, size: int | None, channels: int | None) -> FaceSet:
    """The set of a store, unless another size or number of channels is asked for."""
    for what, asked, has in (("size", size, faces.size), ("channels", channels, faces.channels)):
        if asked not in (None, has):
            raise DataError(
                f"{source}: is a store of images with {what} {has}, not {asked}; leave it out, or "
                "write another store"
            )
    return faces


def _listing(source: Path) -> Listing | None:
    """The files of a folder or zip; None for all else."""
    if source.is_dir() and not is_store(source):
        return list_folder(source)
    return list_zip(source) if source.suffix.lower() == ".zip" and source.is_file() else None


def _reader(
    source: Path, size: int | None, channels: int | None, skip_bad: bool
) -> tuple[str, Callable[[], FaceSet]]:
    """The state of a source, and the function that reads it."""
    if not source.exists():
        raise DataError(
            f"{source}: no such file or folder; check the path, or bring FER-2013 with "
            "`mien data fetch`"
        )
    listing = _listing(source)
    if listing is None and source.suffix.lower() == ".csv":
        status = source.stat()
        state = f"{status.st_size} {status.st_mtime_ns}"
        return state, partial(read_table, source, size=size, channels=channels, skip_bad=skip_bad)
    if listing is None:
        raise DataError(f"{source}: is no folder, .zip or .csv; give one of these")
    if source.is_dir() and not listing.images:
        table = next((source / name for name in TABLES if (source / name).is_file()), None)
        if table is not None:
            return _reader(table, size, channels, skip_bad)
    return listing.digest(), partial(
        read_pictures, listing, size=size, channels=channels, skip_bad=skip_bad
    )


def _remarks(faces: FaceSet, skip_bad: bool) -> tuple[str, ...]:
    """Differences from the official counts; an error for a class missing from one split."""
    labelled = faces.labels >= 0
    counts = {
        split: np.bincount(labels, minlength=len(faces.classes))
        for split in faces.splits
        if len(labels := faces.labels[(faces.split == split) & labelled])
    }
    notes = []
    for number, name in enumerate(faces.classes):
        having = [split for split, count in counts.items() if count[number]]
        missing = [split for split, count in counts.items() if not count[number]]
        if having and missing:
            message = (
                f"{faces.name}: no image of class '{name}' in split '{missing[0]}', "
                f"though '{having[0]}' has {counts[having[0]][number]:,}"
            )
            if not skip_bad:
                raise DataError(f"{message}; add some, or read with skip_bad (--skip-bad)")
            notes.append(message)
        elif not having:
            notes.append(f"no image of class '{name}'")
    named = faces.name == "FER-2013" and faces.classes == CLASSES
    if named and not official.COUNTS.keys().isdisjoint(faces.splits):  # else divided anew
        notes.extend(official.differences(faces))
    return tuple(notes)


def _drawn(name: str, size: int | None, channels: int | None) -> FaceSet:
    from mien.data.drawn import draw_faces
    from mien.pixels import to_channels

    try:
        numbers = [int(part) for part in name.split(":")[1:]]
        count, seed = (*numbers, *(1400, 0)[len(numbers) :])
    except ValueError as error:
        raise DataError(
            f"{name}: drawn faces are asked for as drawn, drawn:N or drawn:N:SEED, such as "
            "drawn:1400:0"
        ) from error
    if count < 1 or seed < 0:
        raise DataError(f"{name}: the number of faces must be at least 1, and the seed 0 or more")
    faces = draw_faces(count, size=size or 48, seed=seed)
    if channels is not None and channels != faces.channels:
        images = np.stack([to_channels(image, channels) for image in faces.images])
        faces = replace(faces, images=images)
    return faces
