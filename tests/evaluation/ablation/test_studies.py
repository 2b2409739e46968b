import pytest
import yaml

from vmm.cli import main
from vmm.evaluation.ablation.run import Settings, fit_arguments
from vmm.evaluation.ablation.studies import STUDIES, Training, choose, in_order
from vmm.masking import MASKS
from vmm.models.scan_order import SCAN_ORDERS


@pytest.fixture
def settings(tmp_path, root, monkeypatch):
    monkeypatch.chdir(root)
    return Settings(out=tmp_path, data=tmp_path, seeds=2, steps=7, jobs=1)


def test_studies_are_well_formed():
    for study in STUDIES:
        assert set(study.short) <= set(study.variants) and len(study.short) != 1, study.name
        assert not study.short or study.short[0] == study.baseline, study.name
        keys = {training.key() for training in study.variants.values()}
        assert len(keys) == len(study.variants), study.name
        if study.claim:
            assert study.claim.variant in study.short[1:], study.name
        if study.measure == "gap":
            assert all(training.on_training for training in study.variants.values())


def test_shared_trainings_are_done_once_and_after_what_they_start_from():
    trainings = in_order(choose(None, short=True))
    keys = [training.key() for training in trainings]
    assert len(keys) == len(set(keys))
    for place, training in enumerate(trainings):
        assert all(start.training.key() in keys[:place] for start in training.start.values())
    of_studies = [study.variants[name].key() for study in STUDIES for name in study.short]
    assert len(of_studies) > len(set(of_studies))  # a baseline belongs to several studies
    assert len(in_order(choose(None, short=False))) > len(trainings)


def test_studies_by_name():
    (study,) = choose(["number of frames"], short=True)
    assert [*study.variants] == ["4 frames", "1 frame"]
    (study,) = choose(["mask"], short=True)  # not in the short form, unless it is asked for
    assert len(study.variants) == 5
    assert "mask" not in [study.name for study in choose(None, short=True)]
    with pytest.raises(ValueError, match="no study 'maks'; known are scan order"):
        choose(["maks"], short=True)


TRAININGS = {
    f"{study.name}, {name}": training
    for study in STUDIES
    for name, training in study.variants.items()
}


def test_another_seed_start_or_option_is_another_run(settings):
    after = TRAININGS["stage 1, after stage 1"]
    assert any("init_from=" in word for word in fit_arguments(after, 1, settings))
    assert fit_arguments(after, 1, settings) != fit_arguments(after, 2, settings)
    masks = [TRAININGS[f"mask, {name}"] for name in ("attention", "random")]
    assert masks[0].key() == after.key() != masks[1].key()
    assert Training("a", {"x": "1"}).key() != Training("a", {"x": "2"}).key()


def one_of_each_kind():
    """Trainings that differ in more than the values of their options."""
    kinds = {(t.recipes, frozenset(t.options), *t.start): t for t in in_order(list(STUDIES))}
    return [*kinds.values()]


def test_values_are_words_that_there_are():
    options = [
        option for training in in_order(list(STUDIES)) for option in training.options.items()
    ]
    words = {"scan_order": SCAN_ORDERS, "kind": MASKS}
    for name, known in words.items():
        found = {value for key, value in options if key.rpartition(".")[2] == name}
        assert len(found) > 4 and found <= set(known), name


@pytest.mark.parametrize("training", one_of_each_kind(), ids=lambda t: t.key())
def test_options_of_a_training_are_settings_of_its_recipe(training, settings, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*fit_arguments(training, 3, settings), "--print_config"])
    said = capsys.readouterr()
    assert stop.value.code == 0, said.err
    config = yaml.safe_load(said.out)
    assert config["seed_everything"] == 3 and config["data"]["init_args"]["steps_per_epoch"] == 7
    encoder = config["model"]["init_args"]["video_encoder"]["init_args"]
    assert encoder["image_size"] == 32
    for name, wanted in training.options.items():
        found = config
        for part in name.split("."):
            found = found[part]
        assert str(found) == wanted, name
