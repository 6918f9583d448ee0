"""The training job can read the recipe of the best trial; the table lists the best trial first."""

from pathlib import Path

from made_up_trials import make_trial

from jobs.train_whisper import TrainJob
from sottovoce.config import read_recipe
from sottovoce.data.dataset import DatasetConfig
from sottovoce.train.config import TrainingConfig
from sottovoce.tune.journal import build_record
from sottovoce.tune.search_report import publish_search, search_table, write_best
from sottovoce.tune.space import SearchConfig

RECORD = build_record(
    SearchConfig(learning_rate=(1e-5, 1e-3), num_trials=3),
    TrainingConfig(num_epochs=3, warmup_steps=9),
    [
        make_trial(0, [0.9, 0.8], state="pruned"),
        make_trial(1, [0.9, 0.5, 0.25]),
        make_trial(2, [0.9], state="failed", error="ValueError: no"),
    ],
)


def test_the_best_settings_are_a_recipe_of_the_training_job(tmp_path: Path) -> None:
    data = DatasetConfig(manifest=(Path("data/manifest.jsonl"),), batch_size=4)
    write_best(RECORD, tmp_path / "best.yaml", data=data)
    assert (tmp_path / "best.yaml").read_text(encoding="utf-8").startswith("# job: jobs.train_whisper\n# Trial 1 of 3")
    job = read_recipe(TrainJob, tmp_path / "best.yaml")
    assert job.data == data
    assert job.training == TrainingConfig(num_epochs=3, learning_rate=1e-4, warmup_steps=5)
    assert job.output == tmp_path / "best"


def test_the_table_has_the_best_trial_first_and_all_in_it() -> None:
    lines = search_table(RECORD).splitlines()
    assert lines[0] == "best: trial 1, learning rate 1.00e-04, warm-up 5"
    assert [line.split()[0] for line in lines[2:]] == ["1", "0", "2"]
    assert lines[2].split() == ["1", "1.00e-04", "5", "-", "finished", "20", "25.00", "20"]
    assert lines[3].split()[4] == "pruned"
    assert lines[4].split()[-3:] == ["0", "-", "-"]


def test_the_page_shows_every_trial_and_fetches_nothing(tmp_path: Path) -> None:
    publish_search(RECORD, tmp_path, data=DatasetConfig(manifest=(Path("m.jsonl"),)))
    page = (tmp_path / "search.html").read_text(encoding="utf-8")
    assert page.count('<th scope="row" class="number">') == 3
    assert page.count("<svg ") == 2
    assert "finished" in page
    assert "pruned" in page
    assert "ValueError: no" in page
    assert not any(word in page for word in ("<script", "src=", "<link", "@import"))
    assert (tmp_path / "best.yaml").is_file()
