"""The translation experiment and the verb, at a size of seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from test_jobs_train import recipe_of

from tercet import cli
from tercet.errors import InputError
from tercet.evaluate.translation import bleu_published
from tercet.jobs.reproduce import EXPERIMENTS, entries
from tercet.jobs.reproduce.translation import translation
from tercet.text.read import lines


def test_translation_is_chosen_on_validation_and_decodes_the_test_once(tmp_path: Path):
    recipe = recipe_of(tmp_path, "pairs", steps=40)
    source, target = tmp_path / "few.txt", tmp_path / "few-turned.txt"
    for path, whole in ((source, "texts.txt"), (target, "turned.txt")):
        path.write_text("\n".join(list(lines(tmp_path / whole))[:12]) + "\n")
    files = {f"{split}_source": str(source) for split in ("validation", "test")}
    files |= {f"{split}_target": str(target) for split in ("validation", "test")}
    entry = {
        "recipe": str(recipe),
        "files": files | {"test_plain": str(target)},
        "penalties": [0.6, 1.4],
        "published": {"bleu": 41.02, "by": "somebody"},
    }
    rows = translation(entry, tmp_path / "out", True)
    assert rows[0].theirs == 41.02 and "tok:none" in rows[0].note and "13a" in rows[2].note
    kept = json.loads((tmp_path / "out" / "test.txt").read_text())
    assert len(kept["outputs"]) == 12 and kept["penalty"] in entry["penalties"]
    again = bleu_published(kept["outputs"], list(lines(target)))
    assert rows[0].ours == pytest.approx(again.score)
    kept["outputs"] = list(lines(target))  # what stands there is measured, not decoded again
    (tmp_path / "out" / "test.txt").write_text(json.dumps(kept))
    assert translation(entry, tmp_path / "out", True)[0].ours == pytest.approx(100)


def test_what_can_be_reproduced_is_listed_and_has_its_recipes(capsys):
    assert cli.run(["reproduce"]) == 0
    listed = capsys.readouterr().out
    for name, entry in entries().items():
        assert name in listed and entry["kind"] in EXPERIMENTS


def test_an_unknown_name_says_the_nearest(tmp_path: Path):
    with pytest.raises(InputError, match="'multi30k-tiny'"):
        cli.dispatch(["reproduce", "multi30k-tini", "--folder", str(tmp_path)])


def test_a_task_without_its_experiment():
    with pytest.raises(InputError, match="wants the NAME of an experiment before it"):
        cli.dispatch(["reproduce", "--task", "TREC", "finetune"])


@pytest.mark.parametrize("name, there", [("finetune", "'TREC', 'SST-2'"), ("growth", "none")])
def test_an_unknown_task_says_which_there_are(name, there, tmp_path: Path):
    with pytest.raises(InputError, match=f"no task 'CoLA'; it has {there}"):
        cli.dispatch(["reproduce", name, "--task", "CoLA", "--folder", str(tmp_path)])


def test_the_table_of_what_is_reproduced_is_plain_yaml():
    assert all(isinstance(yaml.safe_dump(entry), str) for entry in entries().values())
