import base64
import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import soundfile
from scored_utterances import make_scored

from sottovoce.audio.decode import decode_audio
from sottovoce.report.errors.page import write_errors_page
from sottovoce.scores.scored import ScoredUtterance

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ATTACK = "</title></style></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'>{{ 7 * 7 }}\nnext line"


class Page(HTMLParser):
    """The page as a browser would take it apart."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags, self.text, self.script = [], "", ""
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script" and not self.script:
            self.script = data
        else:
            self.text += " ".join(data.split()) + " "

    def attributes(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def write(scored: list[ScoredUtterance], folder: Path, **options: int) -> list[Path]:
    return write_errors_page(scored, folder, title="a model", headline="WER 12.3 %, 10.1 - 14.5", **options)


@pytest.fixture(scope="module")
def recording(tmp_path_factory, speech_like) -> str:
    path = tmp_path_factory.mktemp("recordings") / "long.wav"
    soundfile.write(path, speech_like[6], 16_000)
    return str(path)


def test_an_utterance_comes_with_counts_texts_times_and_the_sound_of_its_part(tmp_path, recording):
    one = make_scored(
        "one", "the cat sat", "The bat!", audio=recording, start_s=1.0, duration_s=2.0, speaker="ann", corpus="news"
    )
    (path,) = write([one], tmp_path)
    page = Page(path)
    assert path == tmp_path / "errors.html"
    for text in (
        "WER 12.3 %, 10.1 - 14.5",
        "2 errors in 3 words: 1 substituted, 1 deleted, 0 inserted",
        "66.7 %",
        "1.00\u20133.00 s of",
        "speaker ann",
        "news",
        "SNR 12.5 dB",
        "The bat!",
    ):
        assert text in page.text
    (sound,) = page.attributes("audio")
    decoded = decode_audio(base64.b64decode(sound["src"].partition(",")[2]), source="page")
    assert len(decoded) / 16_000 == pytest.approx(2.0, abs=0.15)


def test_errors_are_told_apart_by_more_than_colour(tmp_path):
    (path,) = write([make_scored("one", "the cat sat on it well", "the bat sat it well now")], tmp_path, num_sounds=0)
    html = Page(path).html
    row = html[html.index("<article") :]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", row[row.index("the ") : row.index("</p>")]))
    assert "the said cat recognized as bat; sat deleted on; it well inserted now;" in text
    assert re.search(r'class="delete">.*?<del>on</del>', row)
    assert re.search(r'class="insert">.*?<ins>now</ins>', row)


def test_the_worst_come_first_and_scripts_of_all_directions_keep_theirs(tmp_path):
    scored = [
        make_scored("right", "yes", "yes"),
        make_scored("hebrew", "שלום לכולם", "שלום עולם", language="he"),
        make_scored("japanese", "今日は", "明日わ", language="ja"),
    ]
    (path,) = write(scored, tmp_path, num_sounds=0)
    page = Page(path)
    assert re.findall(r"<bdi>(\w+)</bdi> <span", page.html) == ["japanese", "hebrew", "right"]
    directed = [(one["lang"], one["dir"]) for one in page.attributes("p") if "lang" in one]
    assert directed == [("ja", "auto"), ("he", "auto"), ("en", "auto")]


def test_a_sound_that_cannot_be_read_is_named_and_loses_nothing_else(tmp_path, recording):
    damaged = tmp_path / "damaged.wav"
    damaged.write_bytes(b"no sound")
    sources = {"gone": "/nowhere/gone.wav", "damaged": str(damaged), "impossible": "nul\0byte.wav", "good": recording}
    scored = [make_scored(name, "a b", "a c", audio=audio, duration_s=0.5) for name, audio in sources.items()]
    (path,) = write(scored, tmp_path)
    page = Page(path)
    assert page.text.count("No sound: ") == 3
    assert "no such file" in page.text
    assert [one["aria-label"] for one in page.attributes("audio")] == ["Sound of good"]
    assert len(page.attributes("article")) == 4


def test_nothing_in_a_corpus_can_run_or_load_anything(tmp_path):
    attacked = make_scored(ATTACK, ATTACK, ATTACK + " b", audio=ATTACK, speaker=ATTACK, corpus=ATTACK, language=ATTACK)
    (path,) = write_errors_page([attacked, make_scored("b", "a", "c")], tmp_path, title=ATTACK, headline=ATTACK)
    page = Page(path)
    assert not {"img", "iframe", "object", "link"} & {tag for tag, _ in page.tags}
    assert len(page.attributes("script")) == 1
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    loaded = [attributes[name] for _, attributes in page.tags for name in ("src", "href") if name in attributes]
    assert all(one.startswith(("data:", "#")) for one in loaded)
    assert "<script>alert(1)</script>" in page.text  # shown as it stands


def test_the_policy_allows_the_pages_own_script_and_no_other(tmp_path):
    (path,) = write([make_scored("a", "a", "b")], tmp_path, num_sounds=0)
    page = Page(path)
    policy = next(one["content"] for one in page.attributes("meta") if "http-equiv" in one)
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'")
    assert policy.endswith(f"script-src 'sha256-{digest}'")


def test_without_a_script_the_page_is_a_complete_list(tmp_path):
    (path,) = write([make_scored(f"{i}", "a b", "a c") for i in range(3)], tmp_path, num_sounds=0)
    page = Page(path)
    (form,) = page.attributes("form")
    assert "hidden" in form
    assert [one["id"] for one in page.attributes("article")] == ["u1", "u2", "u3"]
    assert not [one for one in page.attributes("article") if "hidden" in one]


def test_a_text_without_utf_8_loses_one_character_and_not_the_page(tmp_path):
    (path,) = write([make_scored("a", "one \ud800 two", "one")], tmp_path, num_sounds=0)
    assert "one ? two" in Page(path).text


def test_no_utterance_makes_a_page_that_says_so(tmp_path):
    (path,) = write([], tmp_path)
    assert "No utterance was scored." in Page(path).text


def test_many_utterances_make_numbered_pages_and_an_index_without_losing_any(tmp_path, recording):
    scored = [make_scored(f"{i}", "a b c", "a x c" if i % 2 else "a b c", audio=recording) for i in range(7)]
    file = tmp_path / "new" / "by speaker #1.html"
    index, *pages = write(scored, file, page_size=3, num_sounds=4)
    assert index == file
    assert [path.name for path in pages] == [f"by speaker #1_{number}.html" for number in (1, 2, 3)]
    assert [one["href"] for one in Page(index).attributes("a")] == [f"by%20speaker%20%231_{i}.html" for i in (1, 2, 3)]
    parts = [Page(path) for path in pages]
    found = [name for page in parts for name in re.findall(r"<bdi>(\d)</bdi> <span", page.html)]
    assert found == ["1", "3", "5", "0", "2", "4", "6"]
    assert [len(page.attributes("audio")) for page in parts] == [3, 1, 0]
    assert "only the 4 worst utterances have theirs" in parts[1].text
    assert "utterances 4 to 6 of 7" in parts[1].text


def test_pages_of_an_earlier_call_do_not_stay(tmp_path):
    scored = [make_scored(f"{i}", "a", "b") for i in range(5)]
    write(scored, tmp_path, page_size=2, num_sounds=0)
    (tmp_path / "errors_of_mine.html").touch()
    assert write(scored[:2], tmp_path, num_sounds=0) == [tmp_path / "errors.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["errors.html", "errors_of_mine.html"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_runs_the_filters_under_the_policy(tmp_path):
    (path,) = write([make_scored("a", "red fish", "red dish"), make_scored("b", "x", "x")], tmp_path, num_sounds=0)
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
    command = [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "2 of 2 utterances shown: 1 error, 33.3 % of 3 words" in dom
