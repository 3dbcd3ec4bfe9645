"""Maps of what a network looks at: against class activation maps, formulas and brute force."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from typer.testing import CliRunner

from mien.cli import app
from mien.cli.explain import _faces
from mien.data import FaceSet, draw_faces, read, roles
from mien.errors import DataError
from mien.explanation import (
    Gates,
    cbam,
    cbam_gates,
    confident_errors,
    explain,
    explain_split,
    grad_cam,
    grad_cam_plus_plus,
    occlusion,
    probability_of,
)
from mien.explanation.explanation import _kept
from mien.inference import load
from mien.models import create_model
from mien.pixels import decode, letterbox, to_channels
from mien.report.explaining import explanation_figures, faithfulness, verdict, write_explanation
from mien.report.figures import explanation
from mien.runs.recipe import Recipe
from mien.runs.run import Run
from mien.study.explaining import explain_best
from mien.training import fit

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 64
MODELS = ["plain", "vgg19", "resnet50", "inceptionv3", "timm:test_convnext"]
CHANNELS_LAST = "timm:swin_tiny_patch4_window7_224"


def network(name: str, attention: str = "cbam") -> nn.Module:
    torch.manual_seed(0)
    own: dict[str, Any] = (
        {"stride": 32, "width": 1.0} if name.startswith("timm") else {"stride": 8, "width": 0.125}
    )
    model = create_model(name, attention=attention, image_size=SIDE, **own).eval()
    for parameter in model.parameters():  # gates that start alike everywhere have nothing to show
        if parameter.ndim == 1:
            parameter.data.uniform_(0.2, 1)
    return model


def pixels(n: int = 3) -> torch.Tensor:
    return torch.randn(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


class Toy(nn.Module):
    """A network whose last map is its input, through a ReLU, and whose head is given."""

    stage_names = ("stage",)

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.stage, self.head = nn.ReLU(), head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stage(x))


@pytest.mark.parametrize("name", [*MODELS, CHANNELS_LAST])
def test_every_map_of_every_model_goes_from_0_to_1_at_the_size_of_the_image(name: str) -> None:
    model, x = network(name), pixels()
    classes = torch.tensor([0, 3, 6])
    gates = cbam_gates(model, x)
    for found in (
        cbam(gates, (SIDE, SIDE)),
        grad_cam(model, x, classes),
        grad_cam_plus_plus(model, x, classes),
    ):
        assert found.shape == (3, SIDE, SIDE)
        assert found.dtype == torch.float32
        assert float(found.min()) >= 0
        assert set(found.amax((1, 2)).tolist()) <= {0.0, 1.0}
    for gate in gates.values():
        assert 0 < float(gate.channel.min()) <= float(gate.channel.max()) < 1
        assert 0 < float(gate.spatial.min()) <= float(gate.spatial.max()) < 1


@pytest.mark.parametrize("name", MODELS)
def test_maps_leave_a_network_without_hooks_and_gradients(name: str) -> None:
    model, x = network(name), pixels(2)
    before = model(x)
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    cbam_gates(model, x)
    grad_cam(model, x, torch.tensor([0, 1]))
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(model(x), before)


def test_the_gates_are_what_cbam_multiplies_its_map_by() -> None:
    model, x = network("plain"), pixels()
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, module in model.named_modules():
        if name.endswith("attention"):
            module.register_forward_hook(
                lambda m, given, out, name=name: seen.update({name: (given[0].clone(), out)})
            )
    gates = cbam_gates(model, x)
    assert list(gates) == [f"stage{number}.attention" for number in range(1, 6)]
    for name, (given, out) in seen.items():
        gate = gates[name]
        expected = given * gate.channel[:, :, None, None] * gate.spatial[:, None]
        torch.testing.assert_close(out, expected)


def test_the_cbam_map_is_the_mean_of_the_spatial_gates_from_least_to_most() -> None:
    flat = Gates(torch.ones(1, 4), torch.full((1, 2, 2), 0.5))
    edge = Gates(torch.ones(1, 4), torch.tensor([[[0.2, 0.8], [0.2, 0.8]]]))
    found = cbam({"a": flat, "b": edge}, (2, 2))
    torch.testing.assert_close(found, torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]))


def test_a_network_without_cbam_has_no_gates() -> None:
    assert cbam_gates(network("resnet50", "none"), pixels()) == {}
    assert cbam_gates(network("plain", "se"), pixels()) == {}


@pytest.mark.parametrize("name", ["plain", "resnet50"])
def test_grad_cam_of_pooling_and_a_linear_head_is_the_class_activation_map(name: str) -> None:
    """Zhou et al. 2016: the maps weighted by the class's row of the linear layer."""
    model, x = network(name, "none"), pixels()
    with torch.no_grad():
        maps = model.forward_features(x)  # type: ignore[operator]
        cams = torch.einsum("nchw,kc->nkhw", maps, model.fc.weight)  # type: ignore[union-attr]
    classes = cams.amax((2, 3)).argmax(1)  # for which there is something above 0
    cam = F.interpolate(cams.relu(), (SIDE, SIDE), mode="bilinear")[torch.arange(3), classes]
    expected = cam / cam.amax((1, 2), keepdim=True)
    torch.testing.assert_close(grad_cam(model, x, classes), expected)


def test_grad_cam_worked_by_hand() -> None:
    """Two channels of 2x2; the logit is 3 times the first's mean less the second's."""
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2, bias=False))
    head[2].weight.data = torch.tensor([[3.0, -1.0], [0.0, 1.0]])  # type: ignore[assignment]
    x = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]], [[1.0, 0.0], [4.0, 3.0]]]])
    # Means of the gradients: 3/4 and -1/4. 3 a - b = [[2, 6], [-4, 0]], so with the ReLU:
    expected = torch.tensor([[[2.0, 6.0], [0.0, 0.0]]]) / 6
    torch.testing.assert_close(grad_cam(Toy(head), x, torch.tensor([0])), expected)


def test_grad_cam_plus_plus_follows_its_formula() -> None:
    """Eqs. 10 and 19, with Y = exp(S) and its three derivatives, in NumPy."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(2, 3 * 16))
    head = nn.Sequential(nn.Flatten(), nn.Linear(48, 2, bias=False)).double()
    head[1].weight.data = torch.from_numpy(weight)  # type: ignore[assignment]
    a = rng.uniform(0, 1, (3, 4, 4))
    g = weight[1].reshape(3, 4, 4)  # a linear head's gradient is its weight
    y = np.exp((weight[1] * a.ravel()).sum())
    first, second, third = y * g, y * g**2, y * g**3
    alpha = second / (2 * second + a.sum((1, 2), keepdims=True) * third)
    w = (alpha * np.maximum(first, 0)).sum((1, 2))
    expected = np.maximum(np.einsum("k,khw->hw", w, a), 0)
    found = grad_cam_plus_plus(Toy(head), torch.from_numpy(a[None]), torch.tensor([1]))
    np.testing.assert_allclose(found[0], expected / expected.max(), rtol=1e-5)


def test_a_map_of_one_place_is_passed_over_for_the_stage_before_it() -> None:
    model, x = network("resnet50", "none"), pixels()
    classes = torch.tensor([0, 1, 2])
    small = F.interpolate(x, 8)  # whose last map is 1x1 at stride 8, and the one before it 2x2
    found = grad_cam(model, small, classes)
    assert all(len(torch.unique(one)) > 1 for one in found)


def squares(side: int, patch: int, step: int) -> Iterator[tuple[slice, slice]]:
    starts = [*range(0, side - patch, step), side - patch]
    for top in starts:
        for left in starts:
            yield slice(top, top + patch), slice(left, left + patch)


def test_occlusion_is_the_mean_fall_of_the_squares_over_a_place_by_brute_force() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 49, 3))
    x = torch.randn(2, 1, 9, 9)
    classes = torch.tensor([0, 2])
    found = occlusion(probability_of(model, classes), x, patch=3, step=2)
    for image, label, shown in zip(x, classes, found, strict=True):
        falls: dict[tuple[int, int], list[float]] = {}
        with torch.no_grad():
            whole = float(model(image[None]).softmax(1)[0, label])
            for rows, columns in squares(9, 3, 2):
                hidden = image.clone()
                hidden[:, rows, columns] = image.mean()
                fall = whole - float(model(hidden[None]).softmax(1)[0, label])
                for row in range(rows.start, rows.stop):
                    for column in range(columns.start, columns.stop):
                        falls.setdefault((row, column), []).append(fall)
        expected = np.zeros((9, 9))
        for place, seen in falls.items():
            expected[place] = max(0.0, float(np.mean(seen)))
        np.testing.assert_allclose(shown, expected / expected.max(), atol=1e-5)


def test_confident_errors_are_the_surest_of_each_pair_and_frequent_pairs_come_first() -> None:
    probabilities = np.array(
        [[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0, 0.4, 0.6]]
    )
    labels = np.array([0, 0, 0, 1, 2])
    found = confident_errors(probabilities, labels, kept=1)
    assert [(e.true, e.predicted, e.count, e.largest) for e in found] == [
        (0, 1, 2, 0.8),
        (1, 0, 1, 0.6),
    ]
    assert [e.rows.tolist() for e in found] == [[2], [3]]


# --- a whole run --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return draw_faces(140, size=24)


@pytest.fixture(scope="module")
def run(faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = Recipe(
        model="plain", attention="cbam", width=0.125, image_size=32, stride=8, epochs=3,
        batch_size=32, lr=1e-2,
    )  # fmt: skip
    runs = tmp_path_factory.mktemp("runs")
    return fit(recipe, faces["train"], faces["validation"], runs=runs, progress="none")


@pytest.fixture(scope="module")
def split(run: Run, faces: FaceSet) -> tuple[dict, dict]:
    return explain_split(run, faces["validation"], count=14, steps=3)


def test_a_split_is_explained_by_predicted_class_with_its_errors(
    run: Run, faces: FaceSet, split: tuple[dict, dict]
) -> None:
    found, pictures = split
    assert found["methods"] == ["CBAM", "Grad-CAM", "Grad-CAM++", "occlusion"]
    assert list(found["scores"]) == [*found["methods"], "random", "centre"]
    called = run.predictions("validation").probabilities.argmax(1)
    assert sum(n for _, n in found["called"]) == found["faces"]
    for name, n in found["called"]:
        assert n == min(2, (called == run.classes.index(name)).sum())
    wrong = (called != faces["validation"].labels).sum()
    assert sum(n for _, _, n, _ in found["errors"]) == wrong
    assert pictures["shown_maps"].shape[:1] == (4,)
    assert pictures["shown_maps"].shape[2:] == (24, 24)  # the network's are of 32 pixels


def test_the_mean_maps_are_the_means_over_the_faces_called_the_same(
    run: Run, faces: FaceSet
) -> None:
    part = faces["validation"][np.arange(6)]
    found, pictures = explain(run, part, steps=2)
    called = run.predictions("validation").probabilities[:6].argmax(1)
    shown = np.array([title.split(",")[0] for title in found["shown"]])  # six of at most seven
    for row, (name, n) in enumerate(found["called"]):
        mine = called == run.classes.index(name)
        assert mine.sum() == n
        mean = np.rint(part.images[mine].mean(0))
        np.testing.assert_array_equal(pictures["class_faces"][row], mean)
        mean = np.rint(pictures["shown_maps"][:, shown == name].mean(1))
        np.testing.assert_array_equal(pictures["class_maps"][:, row], mean)


def test_other_images_of_the_same_names_are_predicted_anew(run: Run, faces: FaceSet) -> None:
    part = faces["validation"]
    kept = run.predictions("validation").probabilities
    np.testing.assert_array_equal(_kept(run, part), kept)
    assert _kept(run, replace(part, images=255 - part.images)) is None


def test_what_cannot_be_explained_is_refused(run: Run, faces: FaceSet) -> None:
    with pytest.raises(DataError, match="no faces to explain"):
        explain(run, faces[np.zeros(len(faces), bool)])
    colour = FaceSet(
        np.zeros((1, 24, 24, 3), np.uint8), np.array([0]), faces.classes, np.array(["a"]),
        np.array(["x"]),
    )  # fmt: skip
    with pytest.raises(DataError, match="3 channel"):
        explain(run, colour)
    other = replace(faces, labels=faces.labels % 2, classes=("frown", "smile"))
    with pytest.raises(DataError, match=r"has the classes frown, smile, and .* was trained on"):
        explain_split(run, other)


def test_fewer_faces_than_there_are_classes_can_be_explained(
    run: Run, faces: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = faces["validation"]
    monkeypatch.setattr(
        "mien.explanation.explanation._kept", lambda *_: np.eye(7)[np.arange(len(part)) % 7]
    )
    found, _ = explain_split(run, part, count=2, steps=2)
    assert found["faces"] == 2


def test_images_of_some_of_the_classes_are_explained_and_their_errors_are_right(
    run: Run, faces: FaceSet
) -> None:
    part = faces["validation"]
    happy = run.classes.index("happy")
    some = part[np.flatnonzero(part.labels == happy)]
    some = replace(some, classes=("happy",), labels=np.zeros_like(some.labels))
    found, _ = explain_split(run, some, count=7, steps=2)
    assert {true for true, *_ in found["errors"]} == {"happy"}
    called = run.predictions("validation").probabilities.argmax(1)[part.labels == happy]
    assert sum(count for *_, count, _ in found["errors"]) == (called != happy).sum()


def test_a_map_counts_only_if_it_beats_both_baselines(split: tuple[dict, dict]) -> None:
    found = dict(split[0])
    found["methods"] = ["good", "centred", "unsure"]
    found["scores"] = {
        name: {"deletion": 0.1, "insertion": 0.5, "gains": gains}
        for name, gains in {
            "good": {"random": [0.3, 0.2, 0.4], "centre": [0.2, 0.1, 0.3]},
            "centred": {"random": [0.3, 0.2, 0.4], "centre": [0.0, -0.1, 0.1]},
            "unsure": {"random": [0.3, None, None], "centre": [0.2, None, None]},
        }.items()
    }
    assert verdict(found) == (
        "Better than both baselines: good. Not shown to explain anything: centred, unsure."
    )
    table = faithfulness(found, "somewhere.").to_markdown()
    assert "+0.300 \\[+0.200, +0.400\\]" in table
    assert "None" not in table


def test_the_figures_show_each_method_class_gate_and_error(split: tuple[dict, dict]) -> None:
    found, pictures = split
    figures = {figure.name: figure for figure in explanation_figures(found, pictures)}
    assert list(figures) == [
        "explanation-faces", "explanation-classes", "explanation-gates",
        "explanation-faithfulness", "explanation-errors",
    ]  # fmt: skip
    titles = {ax.get_title(loc="center") for ax in figures["explanation-faces"].drawing.axes}
    assert {"face", *found["methods"]} <= titles
    rows = [t.get_text() for t in figures["explanation-classes"].drawing.axes[0].get_yticklabels()]
    assert rows == [f"{name} ({n})" for name, n in found["called"]]


def test_files_are_left_for_a_split(split: tuple[dict, dict], tmp_path: Path) -> None:
    found = split[0] | {"errors": split[0]["errors"][:2]}
    paths = write_explanation(found, split[1], tmp_path)
    assert all(path.exists() for path in paths)
    assert (tmp_path / "tables" / "faithfulness.csv").exists()
    for true in {row[0] for row in found["errors"]}:
        assert (tmp_path / "figures" / f"errors-{true}.svg").exists()


def test_the_command_explains_pictures_and_splits_and_keeps_the_test_split_closed(
    run: Run, faces: FaceSet, tmp_path: Path
) -> None:
    from PIL import Image

    photo = tmp_path / "face.png"
    Image.fromarray(faces.images[0]).save(photo)
    asked = ["explain", str(run.path), str(photo), "--out", str(tmp_path / "a")]
    told = CliRunner().invoke(app, [*asked, "--detector", "none"])
    assert told.exit_code == 0, told.output
    assert "Not shown to explain anything" in told.output  # one face proves nothing
    assert (tmp_path / "a" / "figures" / "explanation-faces.svg").exists()

    closed = CliRunner().invoke(
        app, ["explain", str(run.path), "--data", "drawn:140", "--split", "test"]
    )
    assert isinstance(closed.exception, DataError)
    assert "final test split" in str(closed.exception)
    (tmp_path / "bad.jpg").write_text("no picture")
    asked = [*asked[:3], str(tmp_path / "bad.jpg"), *asked[3:], "--detector", "none"]
    assert "bad.jpg" in str(CliRunner().invoke(app, asked).exception)
    only = ["explain", str(run.path), str(tmp_path / "bad.jpg")]
    told = CliRunner().invoke(app, [*only, "--skip-bad"])
    assert "none of the pictures can be read" in str(told.exception)
    told = CliRunner().invoke(app, [*only, "--faces", "7"])
    assert "are for --data" in str(told.exception)
    told = CliRunner().invoke(app, [*asked, "--skip-bad"])
    assert told.exit_code == 0, told.output
    assert "left out: " in told.output
    for number, image in enumerate(faces.images):  # in colour, and of another size
        place = tmp_path / "set" / faces.classes[faces.labels[number]] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert("RGB").resize((40, 40)).save(place)
    asked = ["explain", str(run.path), "--data", str(tmp_path / "set"), "--faces", "7"]
    told = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "c")])
    assert told.exit_code == 0, told.exception
    both = CliRunner().invoke(app, ["explain", str(run.path)])
    assert "not both" in str(both.exception)


def test_images_that_a_run_learned_from_are_not_explained_as_validation(
    run: Run, faces: FaceSet, tmp_path: Path
) -> None:
    from PIL import Image

    for number, image in enumerate(faces.images):  # all in one folder, so divided otherwise
        place = tmp_path / "set" / faces.classes[faces.labels[number]] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
    divided, parts = roles(read(tmp_path / "set", size=24, channels=1))
    held_out = divided[parts.validation or ""]
    learned = int(held_out.stands_in(faces["train"]).sum())
    assert 0 < learned < len(held_out)
    asked = ["explain", str(run.path), "--data", str(tmp_path / "set"), "--out", str(tmp_path)]
    told = CliRunner().invoke(app, [*asked, "--faces", "7"])
    assert told.exit_code == 0, told.exception
    assert f"left out {learned} of {len(held_out)} images of '{parts.validation}'" in told.output
    assert "left out" not in CliRunner().invoke(app, [*asked, "--split", "train"]).output


def test_a_network_of_tokens_is_explained_by_what_needs_no_maps(tmp_path: Path) -> None:
    faces = draw_faces(70, size=48)
    recipe = Recipe(model="timm:test_vit", stride=16, image_size=48, epochs=1, batch_size=16)
    run = fit(recipe, faces["train"], faces["validation"], runs=tmp_path, progress="none")
    found, _ = explain(run, faces["validation"], steps=4)
    assert found["methods"] == ["occlusion"]


def test_the_faces_of_a_photograph_are_what_is_explained(run: Run, tmp_path: Path) -> None:
    from PIL import Image
    from skimage.data import astronaut

    photo = tmp_path / "two.png"
    Image.fromarray(np.hstack([astronaut()] * 2)).save(photo)
    shown = _faces(run, [photo], "cascade", skip_bad=False)
    assert shown.names.tolist() == [f"{photo}, face 1", f"{photo}, face 2"]
    expected = load(detector="cascade").predict(photo)
    for image, face in zip(shown.images, expected, strict=True):
        x, y, width, height = face.box
        crop = to_channels(decode(photo, "two")[y : y + height, x : x + width], 1)
        np.testing.assert_array_equal(image, letterbox(crop, shown.size))
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(photo)
    with pytest.raises(DataError, match="no face was found"):
        _faces(run, [photo], "cascade", skip_bad=False)


def test_a_study_explains_its_best_cbam_model_that_has_weights(
    run: Run, faces: FaceSet, tmp_path: Path
) -> None:
    found, pictures = explain_best({"a": run}, faces["validation"], 1)
    assert found is not None
    assert found["run"] == run.name
    assert "shown_maps" in pictures
    record = Run.open(run.write_record(tmp_path))
    assert explain_best({"a": record}, faces["validation"], 1) == (None, {})


def test_a_report_shows_an_explanation_only_where_there_is_one(split: tuple[dict, dict]) -> None:
    found, pictures = split
    sheets = {f"explanation_{name}": image for name, image in pictures.items()}
    names = [figure.name for figure in explanation({"explanation": found}, sheets)]
    assert names == [figure.name for figure in explanation_figures(found, pictures)]
    assert list(explanation({"explanation": None}, sheets)) == []
    assert list(explanation({"explanation": found}, {"samples": pictures["shown_faces"]})) == []
