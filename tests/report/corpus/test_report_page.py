import json
import re
from html.parser import HTMLParser
from importlib import resources

import pytest
import soundfile
from report_corpus import make_clean_corpus, make_prepared, make_utterance

from sottovoce.report.corpus.contents import Report
from sottovoce.report.corpus.page import write_report
from sottovoce.schema import Reject, RowWarning


class Page(HTMLParser):
    """The page as a browser would take it apart."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += " ".join(data.split()) + " "


def write_page(data, folder):
    write_report(data, folder)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, speech_like):
    folder = tmp_path_factory.mktemp("recordings")
    paths = [folder / f"{i}.wav" for i in range(2)]
    for path, waveform in zip(paths, speech_like, strict=False):
        soundfile.write(path, waveform, 16_000)
    return paths


def test_page_and_json_agree_and_warnings_are_returned_by_name(tmp_path):
    leak = make_utterance("x", text="new", speaker="speaker 5", corpus="clean")
    warnings = write_report(make_prepared([*make_clean_corpus(), leak]), tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    report = Report.model_validate_json((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [warning.partition(": ")[0] for warning in warnings] == ["speaker_leakage"]
    assert report.num_utterances == 31
    assert "31 utterances out of 31 rows" in page.text
    assert report.warnings[0].sentence in page.text
    assert (
        json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["warnings"][0]["name"] == "speaker_leakage"
    )


def test_nothing_in_a_corpus_can_run_or_load_anything(tmp_path, recordings):
    attack = "</title></style><script>alert(1)</script><img src=x onerror=alert(1)>\"'>{{ 7 * 7 }}"
    utterance = make_utterance(attack, text=attack, speaker=attack, corpus=attack, audio=str(recordings[0]))
    copies = [utterance, utterance.model_copy(update={"id": attack + "2", "split": "test", "audio": attack})]
    data = make_prepared(
        copies,
        rejects=[Reject(id=attack, audio=attack, reason="silent", detail=attack)],
        warnings=[RowWarning(id=attack, audio=attack, kind="clipped", detail=attack)],
        digests={copy.id: "the same" for copy in copies},
    )
    page = write_page(data, tmp_path)
    assert not {"script", "iframe", "object", "link"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    sources = [
        attributes[name] for _, attributes in page.tags for name in ("src", "href", "xlink:href") if name in attributes
    ]
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert "<script>alert(1)</script>" in page.text  # shown as it stands
    assert "{{ 7 * 7 }}" in page.text


def test_the_page_forbids_scripts_and_the_network_itself(tmp_path):
    page = write_page(make_prepared(make_clean_corpus()), tmp_path)
    (policy,) = [attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes]
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"url\((?!#)|@import", html)


def test_examples_are_embedded_with_transcript_speaker_duration_and_spectrogram(tmp_path, recordings):
    utterances = [
        make_utterance(f"u{i}", audio=str(path), duration_s=0.5 + i, text=f"text {i}", speaker=f"speaker {i}")
        for i, path in enumerate(recordings)
    ]
    page = write_page(make_prepared(utterances), tmp_path)
    sounds = [attributes for tag, attributes in page.tags if tag == "audio"]
    assert [sound["src"][:22] for sound in sounds] == ["data:audio/mpeg;base64"] * 2
    assert all("controls" in sound and sound["aria-label"] for sound in sounds)
    plots = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"]
    assert "Spectrogram of u0, 0.5 s" in plots
    assert re.search(r"text 1 +u1 +· 1.50 s · speaker speaker 1 · en · train", page.text)


def test_missing_examples_are_named_on_the_page(tmp_path):
    page = write_page(make_prepared([make_utterance("gone")]), tmp_path)
    assert "gone is left out: " in page.text
    assert "audio" not in [tag for tag, _ in page.tags]


def test_every_plot_is_described_and_every_table_has_headings(tmp_path):
    page = write_page(make_prepared(make_clean_corpus()), tmp_path)
    assert page.tags[0] == ("html", {"lang": "en"})
    plots = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert plots
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    assert all(attributes["scope"] in ("col", "row") for tag, attributes in page.tags if tag == "th")
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == tags.count("thead")


def test_an_empty_corpus_gives_a_page(tmp_path):
    page = write_page(make_prepared([]), tmp_path)
    assert "0 utterances out of 0 rows" in page.text
    assert "nothing to train on" in page.text
    assert "There is nothing to listen to." in page.text
    assert "None: every row became an utterance." in page.text


def test_a_corpus_of_rejects_alone_gives_a_page(tmp_path):
    rejects = [Reject(id=f"row {i}", audio="x", reason="missing_file", detail="gone") for i in range(8)]
    page = write_page(make_prepared([], rejects=rejects), tmp_path)
    assert "rejects (100.0 % of the rows)" in page.text
    assert "missing file" in page.text
    assert "and 3 more" in page.text


def test_a_corpus_without_speakers_says_that_none_is_known(tmp_path):
    page = write_page(make_prepared([make_utterance("a")]), tmp_path)
    assert "No utterance names its speaker" in page.text


def test_one_speaker_has_everything(tmp_path):
    page = write_page(make_prepared([make_utterance("a", speaker="anna")]), tmp_path)
    assert "1 speaker; the biggest has 100.0 %" in page.text


def test_long_lists_end_with_how_many_more(tmp_path):
    utterances = [
        make_utterance(f"{i}", speaker=f"s{i % 130}", split="test" if i % 2 else "train", text="word " * 40)
        for i in range(390)
    ]
    utterances += [make_utterance(f"x{i}", speaker=f"s{i}", text=f"word {i}") for i in range(1, 130, 2)]
    page = write_page(make_prepared(utterances), tmp_path)
    assert "And 120 more." in page.text  # speakers
    assert "And 380 more; report.json lists the first 100." in page.text  # odd rates


def test_the_files_of_the_page_are_part_of_the_package():
    assert "page.html.j2" in {file.name for file in resources.files("sottovoce.report.corpus").iterdir()}
