"""Groups of images: read from a table, seen in the pixels, measured and compared."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.filters import laplace
from sklearn.metrics import accuracy_score, f1_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from mien.data import draw_faces
from mien.errors import DataError
from mien.evaluation.groups import MINIMUM, by_group, read_groups, slices

NAMES = np.array(["a.png", "b.png", "happy/c.png", "d.png"])
CLASSES = ("angry", "happy", "sad")


def table(folder: Path, text: str) -> Path:
    path = folder / "groups.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_of_groups_is_joined_by_name_and_what_is_missing_is_counted(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "\ufeffage,image,device\n"
        "young,b.png,phone\n"
        "\n"
        ",faces/a.png,\n"  # a path that ends in the name
        "old,happy/c.png, webcam \n"
        "old,z.png,phone\n",
    )
    found = read_groups(path, NAMES)
    assert {name: column.tolist() for name, column in found.columns.items()} == {
        "age": ["", "young", "old", ""],
        "device": ["", "phone", "webcam", ""],
    }
    assert (found.unlisted, found.elsewhere) == (1, 1)


def test_a_path_that_ends_in_a_name_with_folders_is_joined(tmp_path: Path) -> None:
    found = read_groups(table(tmp_path, "image,age\n/data/happy/c.png,old\n"), NAMES)
    assert found.columns["age"].tolist() == ["", "", "old", ""]


def test_groups_that_are_equally_good_are_still_two() -> None:
    labels = np.zeros(120, np.int64)
    probabilities = np.tile([0.8, 0.1, 0.1], (120, 1))
    halves = np.array(["old", "young"]).repeat(60)
    gap = by_group(probabilities, labels, CLASSES, {"age": halves})["age"].gap
    assert gap is not None
    assert {gap.best, gap.worst} == {"old", "young"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,age\na.png,1\n", "columns name, age"),
        ("image\na.png\n", "columns image; give"),
        ("", "columns none"),
        ("image,age,age\na.png,1,2\n", "share a name"),
        ("image,age\na.png,1\nb.png\n", "line 3: has 1 cells for 2 columns"),
        ("image,age\na.png,1\na.png,2\n", "line 3: image 'a.png' is listed twice"),
        ("image,age\nq.png,1\n", "lists none of the 4 images, the first of which is 'a.png'"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_line(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        read_groups(table(tmp_path, text), NAMES)


def test_a_table_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.csv: cannot be read"):
        read_groups(tmp_path / "missing.csv", NAMES)
    (tmp_path / "picture.csv").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DataError, match=r"picture\.csv: cannot be read"):
        read_groups(tmp_path / "picture.csv", NAMES)


def quarter(columns: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The number of each image's quarter."""
    return np.array([int(group[0]) for group in columns[name]])


def test_quarters_order_images_by_what_their_pixels_show() -> None:
    faces = draw_faces(80, size=32).images
    found = slices(faces)
    for name, values in {
        "brightness": faces.mean((1, 2)),
        "contrast": faces.std((1, 2)),
        "sharpness": np.array([laplace(face / 255.0).var() for face in faces]),
        "left-right asymmetry": np.array(
            [1 - np.corrcoef(face.ravel(), face[:, ::-1].ravel())[0, 1] for face in faces]
        ),
    }.items():
        number = quarter(found, name)
        assert np.bincount(number)[1:].tolist() == [20] * 4
        by_value = [values[number == q] for q in (1, 2, 3, 4)]
        # skimage's Laplacian treats the border in its own way, so neighbours may change places
        slack = 0.05 * np.ptp(values) if name == "sharpness" else 1e-9
        assert all(low.max() <= high.min() + slack for low, high in pairwise(by_value))


def test_a_darkened_a_blurred_and_a_mirrored_face_go_where_they_should() -> None:
    face = draw_faces(1, size=32).images[0]
    dark, blurred = face // 4, cv2.GaussianBlur(face, (0, 0), 2)
    even = ((face.astype(int) + face[:, ::-1]) // 2).astype(np.uint8)
    even[:, 16:] = even[:, 15::-1]
    half = face.copy()
    half[:, :16] //= 5
    found = slices(np.stack([face, dark, blurred, even, half]))
    assert quarter(found, "brightness")[1] == 1
    assert quarter(found, "sharpness")[2] < quarter(found, "sharpness")[0]
    assert quarter(found, "left-right asymmetry")[3] == 1
    assert quarter(found, "left-right asymmetry")[4] == 4


def test_images_that_are_all_alike_are_one_group_and_colour_counts_by_its_luma() -> None:
    black = np.zeros((6, 16, 16, 3), np.uint8)
    assert {name: set(column) for name, column in slices(black).items()} == {
        name: {"1st quarter (0 to 0)"}
        for name in ("brightness", "contrast", "sharpness", "left-right asymmetry")
    }


def answers(
    sizes: dict[str, int], right: dict[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities and labels with so many right in each group, and the group of each."""
    rng = np.random.default_rng(0)
    column = np.repeat(list(sizes), list(sizes.values()))
    labels = rng.integers(3, size=len(column))
    guess = (labels + 1) % 3
    for group, hits in right.items():
        rows = np.flatnonzero(column == group)[:hits]
        guess[rows] = labels[rows]
    return np.eye(3)[guess] * 0.7 + 0.1, labels, column


def test_each_group_has_the_figures_of_scikit_learn_and_wilsons_interval() -> None:
    probabilities, labels, column = answers({"x": 90, "y": 50, "": 7}, {"x": 60, "y": 20, "": 3})
    found = by_group(probabilities, labels, CLASSES, {"device": column})["device"]
    assert list(found.groups) == ["x", "y"]
    assert found.without == 7
    for group, one in found.groups.items():
        rows = column == group
        guess = probabilities[rows].argmax(1)
        assert one.n == rows.sum()
        assert one.accuracy == accuracy_score(labels[rows], guess)
        assert one.macro_f1 == pytest.approx(f1_score(labels[rows], guess, average="macro"))
        expected = proportion_confint((guess == labels[rows]).sum(), rows.sum(), method="wilson")
        np.testing.assert_allclose(one.accuracy_interval, expected, atol=1e-9)
        assert one.macro_f1_interval is not None
        low, high = one.macro_f1_interval
        assert low < one.macro_f1 < high


def test_the_largest_difference_is_tested_with_the_picking_of_its_pair() -> None:
    sizes, right = {"a": 80, "b": 60, "c": 70, "d": 40}, {"a": 50, "b": 39, "c": 35, "d": 23}
    probabilities, labels, column = answers(sizes, right)
    gap = by_group(probabilities, labels, CLASSES, {"device": column})["device"].gap
    assert gap is not None
    assert (gap.best, gap.worst) == ("b", "c")
    assert gap.difference == pytest.approx(39 / 60 - 35 / 70)
    # six pairs to pick from: 1 - 0.05 / 6
    expected = confint_proportions_2indep(
        39,
        60,
        35,
        70,
        method="newcomb",
        compare="diff",
        alpha=0.05 / len([*combinations(sizes, 2)]),
    )
    np.testing.assert_allclose(gap.interval, expected, atol=1e-9)
    rng = np.random.default_rng(5)
    hits = np.repeat([True, False], [147, 103])
    dealt = [
        np.ptp([hits[column == group].mean() for group in sizes])
        for _ in range(2_000)
        if rng.shuffle(hits) is None
    ]
    assert gap.p == pytest.approx(np.mean(np.array(dealt) >= gap.difference - 1e-12), abs=0.035)


def test_the_p_of_two_groups_is_close_to_fishers_and_holm_is_over_the_groupings() -> None:
    from scipy.stats import fisher_exact

    probabilities, labels, column = answers({"m": 100, "f": 100}, {"m": 75, "f": 60})
    other = np.where(np.arange(200) % 2, "odd", "even")
    third = np.where(np.arange(200) % 5 < 2, "p", "q")
    columns = {"sex": column, "parity": other, "letter": third}
    found = by_group(probabilities, labels, CLASSES, columns)
    p = [found[name].gap.p for name in columns]  # type: ignore[union-attr]
    assert p[0] == pytest.approx(fisher_exact([[75, 25], [60, 40]])[1], abs=0.01)
    np.testing.assert_allclose(
        [found[name].gap.p_holm for name in columns],  # type: ignore[union-attr]
        multipletests(p, method="holm")[1],
    )


def test_a_small_group_is_marked_and_takes_no_part_in_the_comparison() -> None:
    sizes = {"a": 40, "b": 40, "few": MINIMUM - 1}
    probabilities, labels, column = answers(sizes, {"a": 20, "b": 24, "few": 0})
    found = by_group(probabilities, labels, CLASSES, {"device": column})["device"]
    assert found.small == ("few",)
    assert found.groups["few"].accuracy == 0
    assert found.gap is not None
    assert (found.gap.best, found.gap.worst) == ("b", "a")
    alone = by_group(probabilities, labels, CLASSES, {"d": np.where(column == "a", "a", "")})["d"]
    assert alone.gap is None
    assert by_group(probabilities, labels, CLASSES, {}) == {}


def test_a_table_made_on_windows_is_read_by_its_paths(tmp_path: Path) -> None:
    path = table(tmp_path, f"image,age\nC:\\faces\\{NAMES[0]},old\n")
    assert read_groups(path, NAMES).columns["age"][0] == "old"
