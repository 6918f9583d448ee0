"""Files of a real FFmpeg, each decoded and compared with what was encoded.

How alike is a signal-to-noise ratio in dB at the best level (encoders turn the sound down by some percent), each bound
3 dB below what was measured with FFmpeg 9.0; ``late`` is the encoder's delay where the container does not tell it.
"""

from pathlib import Path

import numpy as np
import pytest
from ffmpeg_files import RATE, encode, encode_all, encode_to_pipe, likeness, run_ffmpeg, voice

from sottovoce.audio.decode import decode_audio, decode_audio_with_format, read_audio
from sottovoce.errors import AudioDecodeError, EmptyAudioError

_AAC = 1_024  # samples in a frame
_MP3 = 1_105  # samples from LAME's and the decoder's delays
_AMR = ("-c:a", "libopencore_amrnb", "-ar", "8000", "-b:a", "12.2k")


def decode(data: bytes, **wanted: float) -> np.ndarray:
    return decode_audio(data, source="test", **wanted)


ENCODED = [
    ("u8.wav", ("-c:a", "pcm_u8"), 29, 0),
    ("s16.wav", ("-c:a", "pcm_s16le"), 77, 0),
    ("s24.wav", ("-c:a", "pcm_s24le"), 119, 0),
    ("s32.wav", ("-c:a", "pcm_s32le"), 138, 0),
    ("f32.wav", ("-c:a", "pcm_f32le"), 138, 0),
    ("f64.wav", ("-c:a", "pcm_f64le"), 138, 0),
    ("mulaw.wav", ("-c:a", "pcm_mulaw"), 34, 0),
    ("rf64.wav", ("-rf64", "always"), 77, 0),
    ("mp3.wav", ("-c:a", "libmp3lame", "-ar", "44100"), 30, 401),
    ("s24.flac", (), 119, 0),
    ("cbr.mp3", ("-b:a", "64k"), 41, 0),
    ("vbr.mp3", ("-q:a", "4"), 37, 0),
    ("no_xing.mp3", ("-b:a", "64k", "-write_xing", "0"), 41, _MP3),
    ("mpeg.mpga", ("-f", "mp3", "-b:a", "64k"), 41, 0),
    ("moov_last.m4a", ("-b:a", "64k"), 25, 0),
    ("moov_first.mp4", ("-b:a", "64k", "-movflags", "+faststart"), 25, 0),
    ("fragments.mp4", ("-b:a", "64k", "-movflags", "+frag_keyframe+empty_moov"), 25, _AAC),
    ("adts.aac", ("-b:a", "64k"), 25, _AAC),
    ("alac.m4a", ("-c:a", "alac"), 119, 0),
    ("music.opus", ("-b:a", "64k"), 26, 0),
    ("voip.ogg", ("-c:a", "libopus", "-b:a", "24k", "-application", "voip"), 3, 0),
    ("vorbis.ogg", ("-c:a", "libvorbis"), 18, 0),
    ("flac.oga", ("-c:a", "flac"), 119, 0),
    ("opus.webm", ("-c:a", "libopus", "-b:a", "64k"), 26, 0),
    ("browser.webm", ("-c:a", "libopus", "-b:a", "64k", "-live", "1"), 26, 0),
    ("vorbis.webm", ("-c:a", "libvorbis"), 18, 0),
    ("telephone.amr", _AMR, -2, 80),
    ("wma.wma", (), 34, -512),
    ("s16.aiff", (), 77, 0),
    ("s16.caf", ("-c:a", "pcm_s16le"), 77, 0),
]
"""Names, FFmpeg's options, bounds in dB, and delays in samples."""


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    options = {name: chosen for name, chosen, _, _ in ENCODED}
    return encode_all(voice(), tmp_path_factory.mktemp("encoded"), options)


@pytest.mark.parametrize(("name", "snr_db", "late"), [(name, snr_db, late) for name, _, snr_db, late in ENCODED])
def test_what_an_encoder_wrote_comes_back(encoded: dict[str, bytes], name: str, snr_db: float, late: int):
    original = voice()
    found_late, found_snr_db = likeness(original, waveform := decode(encoded[name]))
    assert abs(found_late - late) <= (1 if snr_db > 5 else 30), "telephones' codecs keep no phase"
    assert found_snr_db > snr_db
    assert -512 <= len(waveform) - len(original) - late <= 2 * _AAC, "padding to whole frames"


@pytest.mark.parametrize(
    ("name", "options", "rates", "snr_db"),
    [
        ("a.wav", ("-c:a", "pcm_s16le"), (8_000, 11_025, 12_000, 22_050, 32_000, 44_100, 88_200, 96_000), 33),
        ("a.flac", (), (8_000, 22_050, 48_000, 96_000), 33),
        ("a.mp3", ("-b:a", "64k"), (8_000, 22_050, 44_100), 26),
        ("a.m4a", ("-b:a", "96k"), (8_000, 44_100, 96_000), 22),
        ("a.webm", ("-c:a", "libopus", "-b:a", "64k"), (8_000, 24_000, 48_000), 24),
        ("a.ogg", ("-c:a", "libvorbis"), (8_000, 44_100, 96_000), 17),
    ],
)
def test_any_rate_comes_back(tmp_path: Path, name: str, options: tuple, rates: tuple, snr_db: float):
    original = voice()
    files = encode_all(original, tmp_path, {f"{rate}-{name}": (*options, "-ar", str(rate)) for rate in rates})
    for rate in rates:
        late, found_snr_db = likeness(original, decode(files[f"{rate}-{name}"]))
        assert (abs(late) <= 1, found_snr_db > snr_db) == (True, True), (rate, late, found_snr_db)


MIXED_DOWN = [
    ("a.wav", (), 60),
    ("a.flac", (), 60),
    ("a.m4a", ("-b:a", "512k"), 25),
    ("a.webm", ("-c:a", "libopus", "-b:a", "512k", "-mapping_family", "255"), 20),
    ("a.opus", ("-b:a", "512k"), 20),
    ("a.ogg", ("-c:a", "libvorbis"), 12),
]
"""Names, FFmpeg's options, and bounds in dB."""


@pytest.mark.parametrize("num_channels", [2, 6, 8])
def test_channels_are_averaged(tmp_path: Path, num_channels: int):
    """Eight planar channels once ended the process: PyAV reads past them."""
    channels = voice()[:, None] * np.linspace(0.2, 1.0, num_channels, dtype=np.float32)
    channels[:, 3:4] = 0.0  # where 5.1 and 7.1 have their deep tones, of which encoders keep no others
    files = encode_all(channels, tmp_path, {name: options for name, options, _ in MIXED_DOWN})
    for name, _, snr_db in MIXED_DOWN:
        waveform, audio_format = decode_audio_with_format(files[name], source="test")
        late, found_snr_db = likeness(channels.mean(axis=1), waveform)
        assert audio_format.num_channels == num_channels, name
        assert abs(late) <= 1, name
        assert found_snr_db > snr_db, name


@pytest.mark.parametrize(
    ("container", "options", "snr_db"),
    [
        ("wav", (), 75),
        ("wav", ("-c:a", "pcm_f32le"), 120),
        ("flac", (), 115),
        ("mp3", ("-b:a", "64k"), 25),
        ("adts", ("-b:a", "64k"), 25),
        ("ogg", ("-c:a", "libopus", "-b:a", "64k"), 20),
        ("webm", ("-c:a", "libopus", "-b:a", "64k"), 20),
        ("mp4", ("-b:a", "64k", "-movflags", "frag_keyframe+empty_moov"), 25),
        ("aiff", (), 75),
    ],
)
def test_what_was_written_to_a_pipe_comes_back_whole(container: str, options: tuple, snr_db: float):
    original = voice()
    waveform = decode(encode_to_pipe(original, container, *options))
    assert len(waveform) >= len(original)
    assert likeness(original, waveform)[1] > snr_db


def test_the_ending_of_a_name_means_nothing(tmp_path: Path):
    for right, wrong in (("a.mp3", "a.wav"), ("b.wav", "b.mp3"), ("c.webm", "c.m4a"), ("d.flac", "d.ogg")):
        encode(voice(), tmp_path / right)
        (tmp_path / right).rename(tmp_path / wrong)
        assert likeness(voice(), decode((tmp_path / wrong).read_bytes()))[1] > 10


def test_tags_and_spectrograms_are_passed_over(tmp_path: Path):
    encode(voice(), tmp_path / "a.wav")
    run_ffmpeg("-f", "lavfi", "-i", "testsrc=size=640x640:rate=1", "-frames:v", "1", tmp_path / "a.jpg")
    tags = ("-metadata", "title=Rede", "-metadata", f"comment={'x' * 5_000}", "-c:v", "copy", "-map", "0", "-map", "1")
    for name, options in (
        ("a.mp3", ("-id3v2_version", "3", "-write_id3v1", "1")),
        ("a.m4a", ("-disposition:v:0", "attached_pic")),
        ("a.flac", ("-disposition:v:0", "attached_pic")),
    ):
        run_ffmpeg("-i", tmp_path / "a.wav", "-i", tmp_path / "a.jpg", *tags, *options, tmp_path / name)
        late, snr_db = likeness(voice(), decode((tmp_path / name).read_bytes()))
        assert (abs(late) <= 1, snr_db > 15) == (True, True), name


def test_of_a_video_the_sound_is_read(tmp_path: Path):
    encode(voice(), tmp_path / "a.wav")
    spectrogram = ("-f", "lavfi", "-i", "testsrc=duration=2:size=64x48:rate=10")
    for name, options in (
        ("a.mp4", ("-c:v", "libx264", "-c:a", "aac")),
        ("a.webm", ("-c:v", "libvpx", "-c:a", "libopus")),
        ("a.mov", ("-c:v", "libx264", "-c:a", "pcm_s16le")),
        ("a.mkv", ("-c:v", "libx264", "-c:a", "libvorbis")),
    ):
        run_ffmpeg(*spectrogram, "-i", tmp_path / "a.wav", *options, tmp_path / name)
        late, snr_db = likeness(voice(), decode((tmp_path / name).read_bytes()))
        assert (abs(late) <= 1, snr_db > 8) == (True, True), (name, late, snr_db)
    run_ffmpeg(*spectrogram, "-c:v", "libx264", tmp_path / "silent.mp4")
    with pytest.raises(AudioDecodeError, match="no audio stream"):
        decode((tmp_path / "silent.mp4").read_bytes())


def test_of_several_tracks_the_default_one_is_read(tmp_path: Path):
    encode(voice(), tmp_path / "a.wav")
    quiet = ("-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono:d=1")
    chosen = ("-disposition:a:0", "0", "-disposition:a:1", "default")
    run_ffmpeg(*quiet, "-i", tmp_path / "a.wav", "-map", "0", "-map", "1", "-c:a", "flac", *chosen, tmp_path / "a.mkv")
    assert likeness(voice(), decode((tmp_path / "a.mkv").read_bytes()))[1] > 75


@pytest.mark.parametrize("options", [("-c:a", "libopus"), ("-c:a", "libvorbis"), ("-c:a", "flac")])
def test_recordings_chained_in_one_ogg_file_are_all_read(tmp_path: Path, options: tuple):
    data = encode(voice(), tmp_path / "a.ogg", *options)
    assert abs(len(decode(data + data)) - 2 * len(voice())) <= 512


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", ()),
        ("a.flac", ()),
        ("a.mp3", ()),
        ("a.m4a", ()),
        ("a.mp4", ("-movflags", "+faststart")),
        ("a.webm", ("-c:a", "libopus")),
    ],
)
def test_a_truncated_file_that_declares_its_length_is_an_error(tmp_path: Path, name: str, options: tuple):
    """A transcript of half a file would look like one of the whole."""
    data = encode(voice(3.0), tmp_path / name, *options)
    for part in (0.3, 0.7):
        with pytest.raises(AudioDecodeError, match=r"truncated|damaged|cut off|no audio"):
            decode(data[: int(part * len(data))])


@pytest.mark.parametrize(
    ("container", "options"),
    [
        ("adts", ()),
        ("mp3", ("-write_xing", "0")),
        ("mpegts", ("-c:a", "aac")),
        ("ogg", ("-c:a", "libopus", "-page_duration", "100000")),
        ("webm", ("-c:a", "libopus", "-live", "1", "-cluster_time_limit", "200")),
        ("amr", _AMR),
        ("wav", ()),
    ],
)
def test_of_a_stream_that_was_cut_off_anywhere_all_that_is_there_is_read(container: str, options: tuple):
    data = encode_to_pipe(voice(3.0), container, *options)
    for num_bytes in range(len(data) // 2, len(data) // 2 + 60, 20):
        duration_s = len(decode(data[:num_bytes])) / 16_000
        assert 1.0 < duration_s < 2.0, num_bytes


@pytest.mark.parametrize("stored", ["bytes", "file"])
def test_an_mp3_of_varying_rate_without_its_length_is_read_to_its_end(tmp_path: Path, stored: str):
    """libsndfile guesses the length from the first frames: here a third of what it is."""
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, 5 * RATE).astype(np.float32)
    original = np.concatenate([noise, 0.01 * voice(15.0)])
    path = tmp_path / "a.mp3"
    data = encode(original, path, "-q:a", "4", "-write_xing", "0")

    def read(**wanted: float) -> np.ndarray:
        return decode(data, **wanted) if stored == "bytes" else read_audio(path, **wanted)

    whole = read()
    assert 0 <= len(whole) - len(original) - _MP3 <= 2 * _AAC, "padding to whole frames"
    assert likeness(original[6 * RATE :], whole[6 * RATE :])[1] > 23
    for start_s, duration_s in ((1.0, 2.0), (4.0, 14.0), (17.0, 2.0)):
        start, stop = round(start_s * RATE), round((start_s + duration_s) * RATE)
        np.testing.assert_allclose(read(start_s=start_s, duration_s=duration_s), whole[start:stop], atol=1e-4)
    assert len(read(start_s=3.0)) == len(whole) - 3 * RATE
    with pytest.raises(AudioDecodeError, match="start_s 60 lies beyond its end"):
        read(start_s=60.0)


def test_an_mp3_of_constant_rate_without_its_length_is_read_across_a_seam(tmp_path: Path):
    """Radio streams joined anywhere: libsndfile reads on where FFmpeg's libraries give up."""
    data = encode(voice(3.0), tmp_path / "a.mp3", "-b:a", "64k", "-write_xing", "0")
    assert 0 <= len(decode(data + data)) - 2 * len(decode(data)) <= 2 * _AAC


def test_a_recorder_that_was_switched_off_leaves_a_wav_without_its_size(tmp_path: Path):
    data = bytearray(encode(voice(), tmp_path / "a.wav"))
    offset = data.index(b"data")
    for size in (b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80"):
        data[4:8] = data[offset + 4 : offset + 8] = size
        assert likeness(voice(), decode(bytes(data)))[1] > 75


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.m4a", "a.ogg", "a.opus", "a.webm", "a.aac"])
def test_a_file_without_sound_is_an_error_that_says_so_or_that_it_cannot_be_read(tmp_path: Path, name: str):
    with pytest.raises((EmptyAudioError, AudioDecodeError)):
        decode(encode(np.zeros(0, np.float32), tmp_path / name))


def test_a_part_of_each_format_is_the_part_of_the_whole(tmp_path: Path):
    names = ("a.wav", "a.flac", "a.m4a", "a.opus", "a.webm", "a.ogg")
    for name, data in encode_all(voice(3.0), tmp_path, dict.fromkeys(names, ())).items():
        whole, part = decode(data), decode(data, start_s=1.5, duration_s=1.0)
        late, snr_db = likeness(whole[24_000:40_000], part)
        assert (len(part), snr_db > 20) == (16_000, True), (name, snr_db)
        assert abs(late) <= (208 if name == "a.webm" else 1), "FFmpeg counts Opus' delay of 6.5 ms twice in WebM"
