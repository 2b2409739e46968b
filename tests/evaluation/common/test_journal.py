import pytest

from vmm.evaluation.common.journal import Journal


def test_a_journal_is_for_one_thing_only_and_drops_a_torn_line(tmp_path):
    journal = Journal(tmp_path, {"model": 1})
    journal.add(3, {"ü": [1.5]})
    with journal.path.open("a") as file:
        file.write('[4, {"torn')
    assert Journal(tmp_path, {"model": 2}).entries() == {}
    again = Journal(tmp_path, {"model": 1})
    assert again.entries() == {3: {"ü": [1.5]}}
    again.add(5, None)
    assert again.entries().keys() == {3, 5}
    again.remove()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_a_clear_message(tmp_path, monkeypatch):
    journal = Journal(tmp_path, {})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.open", full)
    with pytest.raises(ValueError, match=r"No space left on device.*--out"):
        journal.add(0, None)
