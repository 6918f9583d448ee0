"""Choose ten utterances to listen to, spread over durations and speakers, and encode them for the page."""

import base64
import io
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sottovoce.audio.decode import read_audio
from sottovoce.errors import AudioError
from sottovoce.report.corpus.plots import draw_spectrogram
from sottovoce.schema import MAX_CONTEXT_S, SAMPLING_RATE, Utterance, Waveform

NUM_EXAMPLES = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AudibleExample:
    """One utterance with its sound and spectrogram for the page."""

    utterance: Utterance
    sound: str
    """Data URI."""
    spectrogram: Markup
    """Inline SVG."""


def choose_examples(utterances: Sequence[Utterance], number: int = NUM_EXAMPLES) -> list[Utterance]:
    """Choose utterances spread over durations and speakers; the choice does not depend on their order.

    The utterances, sorted by duration, are split into ``number`` equal parts. Each part contributes an utterance of the
    speaker chosen least often so far, as near to the part's middle as possible.
    """
    order = sorted(utterances, key=lambda utterance: (utterance.duration_s, utterance.id))
    number = min(number, len(order))
    times_chosen: Counter[str | None] = Counter()
    chosen = []
    for part in range(number):
        start, stop = part * len(order) // number, (part + 1) * len(order) // number
        middle = (start + stop - 1) / 2
        index = min(range(start, stop), key=lambda i: (times_chosen[order[i].speaker], abs(i - middle), i))
        times_chosen[order[index].speaker] += 1
        chosen.append(order[index])
    return chosen


def load_examples(utterances: Sequence[Utterance]) -> tuple[list[AudibleExample], list[str]]:
    """Decode and encode each utterance, at most its first 30 s, and draw its spectrogram.

    Returns:
        The examples, and a note for each utterance that cannot be decoded any more.
    """
    examples, notes = [], []
    for utterance in utterances:
        try:
            shown_s = min(utterance.duration_s, MAX_CONTEXT_S)  # a lecture of the test split would make a huge page
            waveform = read_audio(utterance.audio, start_s=utterance.start_s, duration_s=shown_s)
        except (AudioError, OSError) as error:  # OSError: deleted, or its storage does not answer
            notes.append(f"{utterance.id} is left out: {error}")
            continue
        description = f"Spectrogram of {utterance.id}, {shown_s:.1f} s"
        spectrogram = draw_spectrogram(waveform, description=description)
        examples.append(AudibleExample(utterance=utterance, sound=encode_sound(waveform), spectrogram=spectrogram))
    return examples, notes


def encode_sound(waveform: Waveform) -> str:
    """Return a data URI that every browser plays: MP3 of about 50 kbit/s, or WAV if libsndfile has no MP3.

    Opus would be half the size, but Safari plays it only in some containers and versions.
    """
    import soundfile  # imported here: Ray workers that check rows do not need it

    buffer = io.BytesIO()
    if "MP3" in soundfile.available_formats():
        settings = {"format": "MP3", "subtype": "MPEG_LAYER_III", "compression_level": 0.5}
        kind = "audio/mpeg"
    else:
        settings, kind = {"format": "WAV", "subtype": "PCM_16"}, "audio/wav"
    soundfile.write(buffer, waveform, SAMPLING_RATE, **settings)
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
