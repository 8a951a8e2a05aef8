"""The report of a run that has been trained, of runs written by hand, and of a sweep of such."""

import base64
import csv
import functools
import html
import json
import re
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from configs import folder as folder_config
from configs import freshness
from configs.base import entries
from jaxord import report, train
from jaxord.models import clip
from jaxord.report import gradcam, model_views, page, rerun, runs
from jaxord.report.figures import style
from jaxord.targets.ranks import Ranks
from jaxord.workdir import files, layout, run_config
from tests.kinds import Flat, Words, compiled_fast
from tests.tools import test_table
from tools import sweep_report
from tools.sweeping import plan, results, sections

VISION = clip.VisionModel  # which the run below trains without


def outside(text):
    """What a page would fetch."""
    return re.findall(r'(?:src|href)\s*=\s*"(?!data:|#)[^"]*', text) + re.findall(
        r"@import|url\((?!data:)|<script", text
    )


def titles(text):
    return [html.unescape(title) for title in re.findall(r"<h2>(.*?)</h2>", text)]


def figures_of(text):
    return [
        base64.b64decode(data).decode()
        for data in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", text)
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of no step over 30 images of three ranks: texts, probabilities, a gallery and a further
    column."""
    root, draw = tmp_path_factory.mktemp("report"), np.random.default_rng(0)
    lines = [["path", "label", "split", "camera"]]
    for k in range(42):
        pixels = np.clip(40 + 80 * (k % 3) + draw.normal(0, 15, (20, 20, 3)), 0, 255).astype(
            np.uint8
        )
        Image.fromarray(pixels).save(root / f"{k}.png")
        lines.append(
            [
                f"{k}.png",
                k % 3,
                "train" if k < 24 else "val" if k < 27 else "test",
                "<old>" if k % 2 else "new",
            ]
        )
    with open(root / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(lines)
    c = folder_config.get_config("method=coop,backbone=tiny").unlock()
    c.data.update(
        {
            "root": str(root),
            "table": "labels.csv",
            "image_size": 16,
            "stored_size": 20,
            "batch": 8,
            "eval_batch": 8,
        }
    )
    c.rules = entries({"name": "knn", "k": 2}, {"name": "argmax"})
    c.model.remat = True
    c.train.duration, c.optim.schedule, c.optim.warmup = "0 steps", "constant", "0 steps"
    with pytest.MonkeyPatch.context() as patch, compiled_fast():
        patch.setattr(clip, "VisionModel", Flat)
        patch.setattr(clip, "TextModel", Words)
        train.run(c.lock(), root / "run")
        (root / "run/metrics.jsonl").write_text(
            "".join(
                json.dumps(
                    {"step": step, "split": "train", "loss": 2.0 / step, "gradient_norm": 1.0}
                )
                + "\n"
                for step in (1, 2)
            )
        )
        files.write_json(
            root / "run/run.json", {"command": "python -m jaxord.main", "device": "1 x cpu"}
        )
        looked = []
        with pytest.MonkeyPatch.context() as spy:
            spy.setattr(
                rerun,
                "run_again",
                lambda fold, run=rerun.run_again: looked.append(run(fold)) or looked[0],
            )
            spy.setattr(
                "importlib.metadata.version", None
            )  # a checkout that is not installed has no version
            text = report.write(root / "run").read_text()
        yield root, text, looked[0]


def test_a_page_of_a_run_has_every_section_and_needs_nothing_else(trained):
    _, text, _ = trained
    assert outside(text) == []
    absent = {"Groups", "On other data", "Where the model looks"}  # the tower is one without a map
    assert set(report.SECTIONS) - set(titles(text)) == absent
    for title in absent:
        assert re.search(rf"<li>{title}: ", text), title
    assert "python -m jaxord.main" in text and "The run has not stored: versions, seconds." in text
    assert "train 24, val 3, test 15" in text and "agree with predictions.csv" in text
    assert f", numpy {np.__version__}, on " in text
    assert "&lt;old&gt; " not in text and "<old>" not in text
    assert len(figures_of(text)) == 12 and all("<svg" in figure for figure in figures_of(text))


def test_what_the_model_says_again_is_what_it_said(trained):
    root, _, seen = trained
    (fold,), _ = runs.read(root / "run")
    assert fold.config.model.remat and not seen.run.model.remat
    assert seen.arrays["prediction"] == pytest.approx(fold.predicted, abs=1e-5)
    assert np.array_equal(seen.arrays["target"], fold.test.target) and np.array_equal(
        seen.arrays["rank"], fold.test.target
    )
    nearest = rerun.neighbours(seen, np.arange(15), 2)
    labels = np.load(root / "run/gallery.npz")["targets"]
    assert labels[nearest].mean(1) == pytest.approx(fold.predicted, abs=1e-5)
    assert rerun.run_again(fold, most=5).arrays["embeds"].shape[0] == 5
    best, worst = model_views.best_and_worst(fold, 3)
    assert (
        len({fold.test.target[row] for row in best}) == 3
        and fold.error[worst[0]] == fold.error.max()
    )


class Halves(nn.Module):
    """A last map of 2 x 2 places, the means of the quarters of an image, in place of a ResNet's."""

    @nn.compact
    def __call__(self, image):
        n, high, wide, colours = image.shape
        return image.reshape(n, 2, high // 2, 2, wide // 2, colours).mean((2, 4))


class Tower(nn.Module):
    """A tower under its name: `layer4`, or CLIP's."""

    make: dict

    def setup(self):
        for name, make in self.make.items():
            setattr(self, name, make())

    def __call__(self, image):
        (name,) = self.make
        return getattr(self, name)(image)


def run_of(tower, inside, number, crop, variables=None):
    """What Grad-CAM takes of a finished run: images are cut by `crop`, the number is of the tower's
    features."""
    net = Tower({"resnet" if tower else "vision_model": inside})

    def outputs(variables, constants, arrays):
        batch, views = arrays["image"].shape[:2]
        found = net.apply(
            variables, arrays["image"].reshape(batch * views, *arrays["image"].shape[2:])
        )
        return {"value": number(found).reshape(batch, views).mean(1)}

    config = types.SimpleNamespace(
        rules=({"name": "value"},), model=types.SimpleNamespace(image_tower=tower)
    )
    of_model = types.SimpleNamespace(
        settings=types.SimpleNamespace(vision=types.SimpleNamespace(layers=2))
    )
    return types.SimpleNamespace(
        config=config,
        model=of_model,
        variables=variables or {},
        constants={},
        outputs=outputs,
        images=lambda stored, size: crop(stored / 255),
    )


def test_grad_cam_by_hand_lies_where_the_views_were_taken():
    """y = mean over the places of red - green: a channel weighs 1/4 or -1/4, so the map is relu(red
    - green) / 4."""
    number = lambda found: (found[..., 0] - found[..., 1]).mean((1, 2))  # noqa: E731
    two = lambda stored: jnp.stack([stored[:, :8, :8], stored[:, 4:12, :8]], 1)  # noqa: E731, rows 0-8 and 4-12, columns 0-8
    image = np.zeros((16, 12, 3), np.uint8)
    image[:4, :4, 0], image[8:12, 4:8, 1] = (
        200,
        200,
    )  # the first view's red corner raises y, green lowers it
    run = run_of("ResNet-18", lambda: Tower({"layer4": Halves}), number, two)
    (over,) = gradcam.maps(run, [image])
    assert over.shape == (16, 12) and over.max() == 1 and over.min() == 0
    assert (
        over[0, 0] == 1 and over[0, 7] == over[7, 7] == 0
    )  # in the middle of the corner, and on the other side
    assert 0 < over[4, 2] < over[3, 2] / 2  # where the second view, which sees no red, begins
    assert not over[12:].any() and not over[:, 8:].any()  # no view
    run.config.model.image_tower = "BiLSTM"
    assert (
        gradcam.maps(run, [image]) is None
        and gradcam.explained(run.config)[1] == "the predicted value (value)"
    )


def test_grad_cam_of_clips_tower_reads_the_patches_that_its_last_block_takes():
    small = clip.Tower(width=16, layers=2, heads=2, mlp=32)
    net = Tower(
        {
            "vision_model": functools.partial(
                VISION, clip.ClipSettings(small, small, 16, 8, 8, 8, 8, 7)
            )
        }
    )
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    variables = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    run = run_of(
        "",
        *net.make.values(),
        lambda features: features[:, 0],
        lambda stored: stored[:, None],
        variables,
    )
    (over,) = gradcam.maps(run, [image])

    def number(
        tokens, tapped
    ):  # of what enters the last block, which is `tokens` where there are any
        def tap(call, arguments, settings, context):
            if context.module.path[-2:] != ("layers", "1") or context.method_name != "__call__":
                return call(*arguments, **settings)
            tapped.append(arguments[0])
            return call(arguments[0] if tokens is None else tokens, **settings)

        with nn.intercept_methods(tap):
            return net.apply(variables, image[None] / np.float32(255))[0, 0]

    taken = jax.jit(lambda: (number(None, tapped := []), tapped)[1][0])()
    gradient = jax.jit(jax.grad(lambda tokens: number(tokens, [])))(taken)
    by_hand = np.maximum(np.asarray(taken[0, 1:] @ gradient[0, 1:].mean(0)), 0).reshape(2, 2)
    corners = over[[0, 0, -1, -1], [0, -1, 0, -1]].reshape(
        2, 2
    )  # of the enlarged map they are its places
    assert over.shape == (16, 16) and by_hand.max() > 0
    np.testing.assert_allclose(corners, by_hand / by_hand.max(), atol=1e-5)


@pytest.fixture
def unrendered(monkeypatch):
    """Figures are drawn, but not turned into SVG or PNG, which takes most of the time;
    test_figures.py does that."""
    monkeypatch.setattr(page, "picture", lambda figure, caption: f"<figure>{caption}</figure>")
    monkeypatch.setattr(style, "write_png", lambda figure, path: path.touch())


def test_without_the_data_the_page_says_so_and_stands_on_the_files(trained, tmp_path, unrendered):
    root, text, seen = trained
    shutil.copytree(root / "run", tmp_path / "run")
    config = run_config.from_json((root / "run/config.json").read_text()).unlock()
    config.data.root = "/nowhere"
    (tmp_path / "run/config.json").write_text(run_config.to_json(config))
    folds, _ = runs.read(tmp_path / "run")
    kept = rerun.run_again(folds[0])
    assert kept.run is None and np.array_equal(kept.arrays["embeds"], seen.arrays["embeds"])
    assert not isinstance(model_views.texts(folds, kept), str) and not isinstance(
        model_views.features(folds, kept), str
    )
    (tmp_path / "run/features.npz").unlink()
    again = report.write(tmp_path / "run").read_text()
    gone = [
        "Calibration",
        "Order of the texts",
        "Order of the features",
        "Nearest neighbours",
        "Best and worst cases",
    ]
    assert [title for title in titles(text) if title not in titles(again)] == gone
    assert (
        f"{', '.join(gone)}, Where the model looks: the model could not be run on the data: "
        in html.unescape(again)
    )


def write_run(root, method="group_dir", seed=0, mae=1.0, folds=("",), **fields):
    """A finished run as its files, of ten test samples a fold; there is no model."""
    config = freshness.get_config(f"method={method}").unlock()
    config.seed, config.data.root, config.data.folds, config.fold = (
        seed,
        "/nowhere",
        tuple(filter(None, folds)),
        "",
    )
    config.fold = "all" if config.data.folds else ""
    config.update_from_flattened_dict(fields)
    rule, draw = config.rules[0]["name"], np.random.default_rng(seed)
    target = np.arange(1.0, 11)
    for name in folds:
        place = root / f"fold_{name}" if name else root
        place.mkdir(parents=True)
        predictions = {entry["name"]: target + draw.normal(0, mae, 10) for entry in config.rules}
        columns = {
            "path": [f"{k}.png" for k in range(10)],
            "target": target,
            **predictions,
            "sex": list("fmfmfmfmfm"),
        }
        with open(place / "predictions.csv", "w", newline="") as file:
            csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])
        rows = {
            rule: {"mae": mae},
            f"{rule}, few": {"mae": mae + 1},
            f"{rule}, many": {"mae": mae},
            "constant": {"mae": 2.5},
        }
        rows |= {
            "constant, few": {"mae": 3.0},
            "constant, many": {"mae": 2.0},
            "model": {"group_accuracy": 0.5 + seed / 10},
        }
        files.write_json(place / "results.json", {"test": rows})
        files.write_json(place / "DONE.json", {"step": 4, "steps": 4, "selected": "last step"})
        ranks = Ranks(
            target.astype(np.float32), tuple(f"{k:g}" for k in target), np.zeros(0, np.float32)
        )
        np.savez(place / "constants.npz", train_targets=np.repeat(target, 8))
        files.write_json(
            place / "ranks.json",
            {"values": ranks.values.tolist(), "names": list(ranks.names), "edges": []},
        )
        (place / "parameters.txt").write_text("Total: 12 -- 48 bytes\n")
        place_of_run = {
            "device": "1 x gpu" if seed else "1 x cpu",
            "seconds": 3.0 + seed,
            "val examples": 12 - 3 * seed,
        }
        files.write_json(place / "run.json", place_of_run)
        lines = [
            {"step": step, "split": "train", "loss": 3.0 / step, "gradient_norm": 1.0 / step}
            for step in (1, 2, 4)
        ]
        others = {f"{entry['name']} mae": mae / 9 for entry in config.rules[1:]}
        lines += [
            {"step": step, "split": split, "mae": mae / step, **others}
            for step in (2, 4)
            for split in ("val", "train evaluated")
        ]
        (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if config.groups.count:
            groups = {
                "true": [2] * 5,
                "predicted": [6, 1, 1, 1, 1],
                "distance": [0.5, 1.0, 2.0, None, 3.0],
            }
            files.write_json(place / "groups.json", groups)
    (root / "config.json").write_text(run_config.to_json(config))
    return root


def test_a_page_of_folds_has_each_and_their_mean(tmp_path, unrendered):
    root = write_run(tmp_path / "run", method="l1", folds=("0", "1"), mae=1.5)
    (root / "fold_1/results.json").write_text(
        (root / "fold_1/results.json").read_text().replace("1.5", "2.5")
    )
    (root / "evaluated/other/fold_0").mkdir(parents=True)
    files.write_json(
        root / "evaluated/other/fold_0/results.json", {"test": {"value": {"mae": 3.0}}}
    )
    text = report.write(root).read_text()
    assert (
        "2 ± 0.71" in text and "mae 2, mean of 2 folds" in text and "Each fold, under value" in text
    )
    assert "On 20 test samples" in text and "20 test samples. On the dashed line" in text
    assert "<td>+100.0%</td>" in text  # 3.0 elsewhere against 1.5 here
    assert {"Learning curves", "Errors by further columns", "On other data"} <= set(
        titles(text)
    ) and outside(text) == []
    (root / "fold_1/DONE.json").unlink()
    assert runs.read(root)[1] == ["1"]
    (root / "fold_0/DONE.json").unlink()
    with pytest.raises(ValueError, match="is not done; the command that began it goes on with it"):
        report.write(root)


def test_curves_are_placed_by_split_rule_and_metric(tmp_path):
    (fold,), _ = runs.read(write_run(tmp_path / "run"))
    panels = runs.curves(*fold.stages[0])
    assert list(panels) == ["loss", "gradient norm", "mae"]
    steps, values = panels["mae"]["val, true_expert"]
    assert steps.tolist() == [2, 4] and values == pytest.approx([1 / 9] * 2)
    assert set(panels["mae"]) == {
        "val, experts",
        "val, true_expert",
        "training split, experts",
        "training split, true_expert",
    }


LABELS = ("mse", "group_dir", "group_dir,classifier=ce", "group_dir,classifier=la")


def experiment(labels, seeds=2, claims=()):
    module = test_table.experiment(claims, labels, seeds)
    module.__doc__ = "How good?\n\nMore."
    return module


def written(folder, labels, seeds=2):
    for k, label in enumerate(labels):
        for seed in range(seeds):
            write_run(
                folder / f"freshness-{label.replace('/', '_')}-seed={seed}",
                label,
                seed,
                mae=1.0 + k / 4 + seed / 100,
            )


def test_a_sweep_has_its_table_claims_curves_and_group_figures(tmp_path, unrendered):
    written(tmp_path, LABELS)
    first = tmp_path / "freshness-group_dir-seed=0"
    np.savez(
        first / "features.npz",
        embeds=np.eye(12),
        target=np.arange(12.0),
        places=np.eye(12)[:, :2],
        text_embeds=np.eye(3),
    )
    module = experiment((*LABELS, "l1"), claims=(("mse", "group_dir"), ("group_dir", "mse", "few")))
    module.FULL = {"group_dir": "mse"}
    (tmp_path / "journal.jsonl").write_text(
        '{"event": "begun", "command": "python sweep.py"}\n{"event": "ended"}\n{"ev'
    )
    text = sweep_report.write(module, tmp_path, tmp_path / "png", "trial").read_text()
    assert outside(text) == [] and "How good? freshness: 8 of 10 runs are done." in text
    facts = dict(
        re.findall("<tr><td>([^<]*)</td><td>([^<]*)</td></tr>", text.partition("</section>")[0])
    )
    assert facts["seeds"] == "0; 1" and facts["settings"] == "4, 8 finished runs of 10"
    assert facts["command"] == "python sweep.py"
    assert (
        facts["examples"] == "train 80, test 10, val 9 to 12"
        and facts["training took"] == "28 s in all, 4 s a run and fold"
    )
    assert facts["device"] == "1 x cpu; 1 x gpu" and facts["folds"] == "none: one split"
    assert "<td>+24.9 ± 0.2 %</td>" in text  # 1.25 and 1.26 for 1.00 and 1.01
    assert titles(text) == [
        "What was run",
        "Results",
        "Claims",
        "Metrics by setting",
        "Learning curves",
        "Groups",
        "Features side by side",
        "What is not here",
    ]
    assert (
        "MISSING, 2 runs: freshness-l1-seed=0, freshness-l1-seed=1." in text and "confirmed" in text
    )
    made = {path.stem.removeprefix("trial-") for path in (tmp_path / "png").iterdir()}
    assert made == {
        "claims",
        "metrics-1",
        "curves-1",
        "groups-5-histograms",
        "groups-5-distance",
        "groups-5-decomposition",
        "tsne",
        "similarity",
        "texts",
    }
    assert text.count("<figure>") == len(made)


def data_set(folder, module):
    planned = plan.runs_of(module)
    found = {run: results.read(folder / run.name) for run in planned}
    folds = {run: runs.read(folder / run.name)[0] for run in planned if found[run]}
    show = lambda figure, caption, name: (figure, name)  # noqa: E731
    return sections.Finished(planned, found, folder, folds, (), show)


def test_group_dirs_figures_have_the_numbers_of_the_runs(tmp_path):
    written(tmp_path, LABELS)
    s = data_set(tmp_path, experiment(LABELS))
    (histograms, _), (distance, _), (curves, _) = sections.of_groups(s)
    assert [ax.get_title() for ax in histograms.axes] == [
        "soft labels",
        "cross-entropy",
        "logit adjustment",
    ]
    assert [patch.get_height() for patch in histograms.axes[0].patches] == [2] * 5 + [6, 1, 1, 1, 1]
    assert distance.axes[0].lines[0].get_ydata() == pytest.approx(
        [0.5, 1, 2, np.nan, 3], nan_ok=True
    )
    lines = {line.get_label(): line.get_xydata() for line in curves.axes[1].lines}
    assert set(lines) == {
        f"{name}, {split}"
        for name in ("regression alone", "predicted group", "true group")
        for split in ("val", "training split")
    }
    # Of cross-entropy with the seeds 0 and 1: MAE 1.505; 64 images a step, 80 in an epoch.
    assert lines["predicted group, val"] == pytest.approx(
        np.array([[1.6, 1.505 / 2], [3.2, 1.505 / 4]])
    )
    assert lines["regression alone, val"][0, 1] == pytest.approx(1.005 / 2)


def test_numbers_among_the_settings_become_axes(tmp_path):
    labels = [
        f"group_dir,classifier={kind},count={count}"
        for kind in ("soft", "ce")
        for count in (5, 10, 20)
    ]
    assert sections.options(["a,k=1", "a,k=2", "b,weights=VII"]) == {}
    found = sections.options(labels)
    assert found["count"]["group_dir,classifier=ce"] == [
        (float(n), f"group_dir,classifier=ce,count={n}", "") for n in (5, 10, 20)
    ]
    written(tmp_path, labels)
    ((figure, name),) = sections.against_numbers(data_set(tmp_path, experiment(labels)))
    assert [ax.get_title() for ax in figure.axes] == [
        "mae",
        "mae, many",
        "mae, few",
        "group accuracy",
    ]
    assert name == "against-count"
    accuracy = figure.axes[3].lines[0].get_ydata()
    assert accuracy == pytest.approx([0.55] * 3)  # of the seeds 0.5 and 0.6


def test_evaluations_of_a_number_become_an_axis_and_severity_begins_with_the_clean_split(tmp_path):
    written(tmp_path, ("mse", "l1"), seeds=1)
    for label, plus in (("mse", 0.0), ("l1", 1.0)):
        for severity in (1, 2, 10):
            for kind in ("fog", "snow"):
                place = tmp_path / f"freshness-{label}-seed=0/evaluated/severity={severity}/{kind}"
                place.mkdir(parents=True)
                rows = {"value": {"mae": severity + plus + (kind == "snow")}}
                files.write_json(place / "results.json", {"test": rows})
        for k in (4, 8):
            (place.parents[1] / f"k={k}").mkdir()
            files.write_json(
                place.parents[1] / f"k={k}/results.json", {"test": {"value": {"mae": 1.0}}}
            )
    s = data_set(tmp_path, experiment(("mse", "l1"), seeds=1))
    assert list(sections.evaluations(s)) == ["severity"]  # of k there are two numbers
    ((figure, name),) = sections.against_numbers(s)
    assert name == "evaluated-severity" and figure.axes[0].get_xlabel() == "severity"
    lines = {
        line.get_label(): line.get_xydata()
        for line in figure.axes[0].lines
        if not line.get_label().startswith("_")
    }
    drawn = [bars[0].get_xydata() for bars in figure.axes[0].containers]
    assert not lines and drawn[0] == pytest.approx(
        np.array([(0, 1.0), (1, 1.5), (2, 2.5), (10, 10.5)])
    )
    assert drawn[1][:, 1] == pytest.approx([1.25, 2.5, 3.5, 11.5])


def test_an_experiment_without_a_finished_run(tmp_path):
    text = sweep_report.write(experiment(("l1",)), tmp_path, tmp_path / "png", "trial").read_text()
    assert "0 of 2 runs are done" in text and outside(text) == []


def test_the_report_reads_what_a_run_writes(trained):
    root, _, _ = trained
    (fold,), unfinished = runs.read(root / "run")
    assert unfinished == [] and fold.headline == "knn" and list(fold.test.extra) == ["camera"]
    ranks, _, targets = layout.read_facts(root / "run")
    assert fold.ranks.names == ranks.names and len(targets) == 24
