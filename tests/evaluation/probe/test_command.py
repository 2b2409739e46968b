from pathlib import Path

from vmm.evaluation.probe.options import Options


def test_options_are_those_of_python(told):
    sets = ("--dataset", "k400", "--train-annotations", "t.csv", "--train-media", "t/")
    test = ("--annotations", "a.csv", "--media", "m/", "--class-field", "a.b")
    how = ("--probe", "knn", "--probe", "linear", "--no-control", "--token-grid", 0, "--seed", 3)
    assert told("probe", "--run", "r", *sets, *test, *how) == Options(
        run=Path("r"), dataset="k400", train_annotations=Path("t.csv"), train_media="t/",
        annotations=Path("a.csv"), media="m/", class_field="a.b", probes=["knn", "linear"],
        control=False, token_grid=0, seed=3, num_workers=2,
    )  # fmt: skip


def test_a_folder_of_classes_is_annotations_and_media(told, tmp_path):
    words = ("--dataset", "class-folders", "--annotations", tmp_path, "--train-annotations", "t")
    found = told("probe", "--run", "r", *words)
    assert found.official() == (tmp_path, str(tmp_path))
