import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest
from made_up_runs import EVERY, falling, healthy_record, make_curve, make_group, make_record, make_rows

from sottovoce.report.diagnosis.diagnose import diagnose
from sottovoce.report.run.page import list_settings, render_page, write_report
from sottovoce.train.config import TrainingConfig
from sottovoce.train.metrics.curves import CurvePoint
from sottovoce.train.record import TrainingRecord

ATTACK = "</title></style><script>alert(1)</script>{{ 7 * 7 }}"


class Page(HTMLParser):
    """The page as a browser would take it apart."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += " ".join(data.split()) + " "

    @property
    def plots(self) -> list[str]:
        """What a screen reader says of each."""
        return [attributes["aria-label"] for tag, attributes in self.tags if tag == "svg"]


def render(record: TrainingRecord, curves: tuple[CurvePoint, ...] = (), *, name: str = "throat") -> Page:
    return Page(render_page(record, curves, diagnose(record, curves), name=name))


@pytest.fixture(scope="module")
def full_page() -> Page:
    """A page with all there can be, of a run whose every name is an attack."""
    figures = {
        "train/loss": falling(20),
        "train/learning_rate": [5e-6 * (20 - place) / 20 for place in range(20)],
        "train/gradient_norm": falling(20, start=30.0),
        "train/audio_s_per_s": [400.0] * 20,
        "train/data_wait": [0.01] * 20,
        "train/memory_gib": [38.2] * 20,
        "train/loss_scale": [65_536.0] * 10 + [1_024.0] * 10,
        "train/skipped_steps": [0.0] * 10 + [6.0] * 10,
    }
    groups = {0: (make_group(ATTACK, 0.20),), 1: (make_group(ATTACK, 0.50),)}
    record = make_record(make_rows([0.5, 0.4], groups=groups)).model_copy(
        update={"base": ATTACK, "versions": {ATTACK: ATTACK}, "normalizer": ATTACK}
    )
    return render(
        record, tuple(point for name, values in figures.items() for point in make_curve(name, values)), name=ATTACK
    )


@pytest.fixture(scope="module")
def healthy_page() -> Page:
    return render(healthy_record())


def test_every_logged_metric_has_its_panel(full_page: Page) -> None:
    for title in ("Loss", "Validation error rates", "Learning rate", "Gradient norm", "Throughput", "Data wait",
                  "Memory", "Loss scale", "Skipped steps"):  # fmt: skip
        assert title in full_page.text
    assert len(full_page.plots) == 9
    assert all(full_page.plots)


def test_the_names_of_a_run_cannot_run_or_load_anything(full_page: Page) -> None:
    assert not {"script", "img", "iframe", "object", "link"} & {tag for tag, _ in full_page.tags}
    assert full_page.text.count("<script>alert(1)</script>{{ 7 * 7 }}") >= 5
    attributes = [item for _, attributes in full_page.tags for item in attributes.items()]
    assert all(value.startswith("#") for name, value in attributes if name in ("src", "href", "xlink:href"))


def test_tables_have_headings(full_page: Page) -> None:
    tags = [tag for tag, _ in full_page.tags]
    assert tags.count("table") == tags.count("thead") >= 3
    assert all(attributes["scope"] in ("col", "row") for tag, attributes in full_page.tags if tag == "th")


def test_without_curves_losses_and_error_rates_are_drawn_from_the_evaluations(healthy_page: Page) -> None:
    assert len(healthy_page.plots) == 2
    assert "There is no curves.jsonl" in healthy_page.text


def test_a_run_without_evaluations_has_a_page_that_says_so() -> None:
    page = render(make_record((), is_finished=False))
    assert "There is no evaluation yet." in page.text
    assert "This run is not finished." in page.text
    assert not page.plots


def test_an_evaluation_of_the_base_model_alone_has_a_page() -> None:
    page = render(make_record(make_rows([0.5]), is_finished=False))
    assert len(page.plots) == 2
    assert "50.0 % WER of the base model" in page.text


def test_findings_stand_on_top_with_numbers_severity_and_settings() -> None:
    rows = make_rows([0.5, 0.3, 0.2, 0.22, 0.25], training_losses=[1.5, 1.0, 0.6, 0.3])
    page = render(make_record(rows))
    assert page.text.index("WER rises") < page.text.index("Curves")
    assert "WER rose from 20.0 % at step 40 to 25.0 % at step 80" in page.text
    assert re.search(r"training.learning_rate=5e-05 +was 0.0001", page.text)
    assert ("section", {"class": "finding warning"}) in page.tags


def test_a_run_without_findings_says_so(healthy_page: Page) -> None:
    assert "Nothing stands out." in healthy_page.text


def test_corpora_and_languages_are_compared_with_the_base_model() -> None:
    groups = {
        0: (make_group("de", 0.20), make_group("en", 0.50)),
        2: (make_group("de", 0.35), make_group("en", 0.495)),
    }
    page = render(make_record(make_rows([0.5, 0.4, 0.3], groups=groups)))
    assert re.search(r"language +de +50 +20.0 % +35.0 % +34.0 to 36.0 +\+15.0 +17.5 %", page.text)
    assert re.search(r"language +en +50 +50.0 % +49.5 % +48.5 to 50.5 +\u22120.5 +\? +24.8 %", page.text)
    assert "number wrong" in [attributes.get("class") for tag, attributes in page.tags if tag == "td"]


def test_evaluations_data_settings_and_versions_are_listed() -> None:
    page = render(make_record(make_rows([0.5, 0.2, 0.3]), rejects={"too_long": 2}))
    assert re.search(r"20 +0.5 +1.500 +1.000 +20.0 % +19.0 to 21.0 +10.0 % +1.0 min", page.text)
    assert [attributes.get("class") for tag, attributes in page.tags if tag == "tr"].count("kept") == 1
    assert "440 utterances, 24.0 min" in page.text
    assert "too long 2" in page.text
    assert "torch 2.13.0" in page.text
    assert re.search(rf"evaluate_every_steps +{EVERY} ", page.text)


def test_many_evaluations_are_folded_away(healthy_page: Page) -> None:
    page = render(make_record(make_rows([0.5] * 40, losses=[1.0] * 40, training_losses=[1.0] * 39)))
    assert "All 40 evaluations" in page.text
    assert "All 6 evaluations" not in healthy_page.text


def test_resumed_steps_are_named() -> None:
    record = healthy_record().model_copy(update={"resumed_at": (40, 60)})
    assert "resumed 2 times, from steps 40, 60" in render(record).text
    assert "resumed once, from step 40" in render(record.model_copy(update={"resumed_at": (40,)})).text


def test_only_settings_that_differ_are_shown_open() -> None:
    settings = {one.name: one for one in list_settings(TrainingConfig(learning_rate=5e-6, audio_context_s=(2.0, 10.0)))}
    assert [name for name, one in settings.items() if not one.is_default] == ["learning_rate", "audio_context_s"]
    assert settings["learning_rate"].value == "5e-06"
    assert settings["audio_context_s"].value == "2, 10"
    assert settings["patience"].value == "none"
    assert "spec_augment.num_time_masks" in settings


def test_the_report_replaces_the_one_before_and_is_named_after_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "throat-small"
    folder.mkdir()
    (folder / "report.html").write_text("before")
    write_report(healthy_record(), (), (), folder=folder)
    assert "<h1>throat-small</h1>" in (folder / "report.html").read_text(encoding="utf-8")
    assert [path.name for path in folder.iterdir()] == ["report.html"]


def test_the_template_is_part_of_the_package() -> None:
    assert "page.html.j2" in {file.name for file in resources.files("sottovoce.report.run").iterdir()}


def test_a_record_survives_its_file_with_and_without_the_end(tmp_path: Path) -> None:
    for record in (healthy_record(), make_record((), is_finished=False)):
        assert TrainingRecord.model_validate(json.loads(record.model_dump_json())) == record
