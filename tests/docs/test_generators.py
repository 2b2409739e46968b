"""Pictures and references that are made for the pages agree with the code."""

import sys

import pytest
import torch
import yaml

from vmm.models.scan_order import SCAN_ORDERS, block_orders, temporal_path


@pytest.fixture(scope="module")
def generators(root):
    """The modules that MkDocs loads, which are no part of a package."""
    sys.path.insert(0, str(root / "docs/generators"))
    try:
        import pictures
        import references

        yield pictures, references
    finally:
        sys.path.remove(str(root / "docs/generators"))
        for name in ("pictures", "references", "hook"):
            sys.modules.pop(name, None)


def test_the_paths_of_the_pictures_are_those_of_the_encoder(generators):
    pictures, _ = generators
    patches = pictures.ROWS * pictures.COLUMNS
    spatial = [(t, p) for t in range(pictures.STEPS) for p in range(patches)]
    assert pictures.path("spatial") == spatial
    rows = temporal_path(pictures.STEPS, patches, torch.device("cpu")).rows[1:] - 1
    assert pictures.path("temporal") == [spatial[i] for i in rows.tolist()]


def test_the_layers_of_the_picture_are_those_of_the_encoder(generators):
    pictures, _ = generators
    words = {
        (("spatial",), ("spatial",)): "S",
        (("temporal",), ("temporal",)): "T",
        (("spatial",), ("temporal",)): "1",
        (("spatial", "temporal"), ("spatial", "temporal")): "2",
    }
    assert set(pictures.LAYERS) == set(SCAN_ORDERS)
    for name, drawn in pictures.LAYERS.items():
        orders = block_orders(name, len(drawn))
        assert drawn == "".join(words[order.forward, order.backward] for order in orders)


def test_every_class_that_a_recipe_names_is_in_the_reference_with_all_its_settings(
    generators, root
):
    _, references = generators
    listed = {c.path: c for group in references.grouped().values() for c in group.values()}
    named = references.named_classes()
    assert len(named) > 15 and set(named) <= set(listed)
    task = references.settings(listed["vmm.tasks.video_text.VideoTextTask"])
    names = {setting.name for setting in task}
    assert {"proj_dim", "teacher", "freeze", "lora"} <= names  # its own and those of its bases
    assert all(one.about for cls in listed.values() for one in references.settings(cls))
    recipe = yaml.safe_load((root / "recipes/stage2_vtt.yaml").read_text())
    assert set(recipe["model"]["init_args"]) <= names
    data = references.settings(listed["vmm.data.demo.WebVideoData"])
    assert set(recipe["data"]["init_args"]) <= {setting.name for setting in data}


@pytest.mark.usefixtures("generators")
def test_a_whole_measurement_is_shown_rather_than_a_newer_short_one(monkeypatch, tmp_path):
    import hook

    for name in ("scan_amd_2026-01-02", "scan_intel_2026-01-03", "scan_amd_2026-01-04_short"):
        (tmp_path / f"{name}.md").write_text("# Scan", "utf-8")
    (tmp_path / "block_amd_2026-01-01_short.md").write_text("# Block", "utf-8")
    (tmp_path / "block_amd_2026-01-02_short.md").write_text("# Block", "utf-8")
    monkeypatch.setattr(hook, "_BENCHMARKS", tmp_path)
    found = {name: page.stem for name, page in hook.measured().items() if "drill" not in name}
    assert found == {"scan": "scan_intel_2026-01-03", "block": "block_amd_2026-01-02_short"}
