"""Bring FER-2013 from Kaggle."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from mien.errors import DataError

DATASET = "msambare/fer2013"
PAGE = f"https://www.kaggle.com/datasets/{DATASET}"


def fetch(destination: str | Path) -> Path:
    """Download the Kaggle folder release of FER-2013 through kagglehub.

    Parameters
    ----------
    destination : the folder to make, with ``train`` and ``test`` in it; one that has them already
        is left as it is

    Returns
    -------
    The folder, to be given to `mien.read`.

    Raises
    ------
    DataError
        Without kagglehub, network, account or permission, saying what to do by hand, and where
        `destination` holds something else.
    """
    destination = Path(destination).expanduser()
    if _complete(destination):
        return destination
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise DataError(
            f"{destination}: exists and is not FER-2013 (no train and test in it); give another "
            "folder"
        )
    downloaded = _download(destination)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        # Copied beside the place and renamed, so that an interrupted copy is no data set.
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".mien-fetch-") as folder:
            copy = Path(folder) / "copy"
            shutil.copytree(downloaded, copy)
            if destination.exists():
                destination.rmdir()
            os.replace(copy, destination)
    except (OSError, shutil.Error) as error:
        raise DataError(
            f"{destination}: cannot be written ({error}); FER-2013 lies in {downloaded}, which "
            "can be read from there"
        ) from error
    return destination


def _download(destination: Path) -> Path:
    """Have kagglehub bring the release into its cache; give the folder with ``train`` in it."""
    try:
        import kagglehub
    except ImportError as error:
        raise DataError(
            "FER-2013 is downloaded with kagglehub, which is not installed; run "
            f"`uv run --extra fetch mien data fetch {destination}`, or {_by_hand(destination)}"
        ) from error
    try:
        downloaded = Path(kagglehub.dataset_download(DATASET))
    except Exception as error:  # network, account, permission: kagglehub and requests raise many
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"Kaggle did not give {DATASET}: {cause}. Check the network and the account (a token "
            f"from https://www.kaggle.com/settings in ~/.kaggle/kaggle.json), or "
            f"{_by_hand(destination)}"
        ) from error
    found = next((folder.parent for folder in sorted(downloaded.rglob("train"))), downloaded)
    if not _complete(found):
        raise DataError(
            f"what Kaggle gave for {DATASET} has no folders train and test ({downloaded}); "
            f"{_by_hand(destination)}"
        )
    return found


def _complete(folder: Path) -> bool:
    return (folder / "train").is_dir() and (folder / "test").is_dir()


def _by_hand(destination: Path) -> str:
    return (
        f"download the zip from {PAGE} in a browser and unpack it so that {destination}/train and "
        f"{destination}/test exist (or give the zip itself as --data)"
    )
