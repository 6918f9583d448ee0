import xml.etree.ElementTree as ET

import numpy as np

from sottovoce.report.corpus.amounts import build_histogram
from sottovoce.report.corpus.plots import draw_histogram, draw_spectrogram


def words(svg):
    return [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_a_histogram_is_svg_with_axis_labels_a_description_and_the_pages_colours():
    svg = draw_histogram(build_histogram([1.0, 2.0, 2.5], "s"), xlabel="duration (s)", ylabel="utterances")
    assert {"duration (s)", "utterances"} <= set(words(svg))
    assert "median 2.00" in ET.fromstring(svg).get("aria-label")
    assert "currentColor" in svg
    assert "var(--accent" in svg
    assert "#010203" not in svg
    assert "#040506" not in svg


def test_a_spectrogram_has_seconds_and_hertz_and_escapes_its_description(speech_like):
    svg = draw_spectrogram(speech_like[2], description='an id with "quotes" & <tags>')
    assert {"time (s)", "Hz, mel scale", "400", "4000"} <= set(words(svg))
    assert ET.fromstring(svg).get("aria-label") == 'an id with "quotes" & <tags>'
    assert "data:image/png;base64," in svg


def test_the_same_sound_gives_the_same_bytes():
    tone = (0.3 * np.sin(np.arange(1_600) * 0.2)).astype(np.float32)
    assert draw_spectrogram(tone, description="x") == draw_spectrogram(tone, description="x")
