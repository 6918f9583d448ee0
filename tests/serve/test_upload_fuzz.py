"""Thousands of broken uploads: none crashes the gateway, hangs it, or gets a 5xx. The script sends a million."""

import asyncio
import json

import pytest

from benchmarks.broken_uploads import mutated_uploads, recordings
from benchmarks.common import write_result
from benchmarks.upload_fuzz import InstantTranscriber, OneModel, Tally, UploadFuzz, main, send_all
from serve.gateway import Gateway
from serve.settings import Limits

NUM_UPLOADS = 5_000


def send(uploads) -> Tally:
    async def main() -> Tally:
        gateway = Gateway(InstantTranscriber(), source=OneModel(), limits=Limits(), api_keys_env=None)
        application = gateway.build_api()
        async with application.router.lifespan_context(application):
            return await send_all(application, uploads)

    return asyncio.run(main())


@pytest.mark.slow
def test_no_broken_upload_crashes_hangs_or_gets_a_5xx():
    tally = send(mutated_uploads(NUM_UPLOADS, seed=0))
    assert (tally.num_5xx, tally.num_crashes, tally.num_hangs) == (0, 0, 0), tally
    assert sum(tally.statuses.values()) == NUM_UPLOADS
    assert tally.statuses[200] > NUM_UPLOADS / 20, "some are still recordings"
    assert tally.statuses[400] > NUM_UPLOADS / 20


def test_the_recordings_are_whole_before_they_are_broken():
    from sottovoce.audio.decode import decode_pcm

    for data in recordings():
        assert 0.15 < len(decode_pcm(data, source="test")) / 16_000 < 0.4


@pytest.mark.slow
def test_a_fuzz_that_was_stopped_goes_on(tmp_path):
    output = tmp_path / "fuzz.json"
    main(UploadFuzz(num_uploads=20, num_processes=1, output=output))
    first = read_row(output)
    assert first["uploads"] == 20
    write_result(output, "", [first | {"uploads": 10_000, "statuses": {"200": 10_000}}])
    main(UploadFuzz(num_uploads=10_020, num_processes=1, output=output))
    row = read_row(output)
    assert row["uploads"] == 10_020
    assert row["statuses"]["200"] > 10_000
    assert row["gateway_s"] > first["gateway_s"]


def read_row(path):
    (row,) = json.loads(path.read_text(encoding="utf-8"))["results"]
    return row
