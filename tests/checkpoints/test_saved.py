import json

import pytest
from pydantic import ValidationError

from sottovoce.checkpoints.saved import FileDigest, Saved, choose_kept, manifest_to_saved, saved_to_manifest
from sottovoce.errors import CheckpointError


def saved(sequence: int, *, wer: float | None = None) -> Saved:
    files = {"checkpoint/model.safetensors": FileDigest(size=3, sha256="ab")}
    return Saved(name=f"step-{sequence}", sequence=sequence, step=10 * sequence, wer=wer, files=files)


def test_a_manifest_reads_back_unchanged() -> None:
    one = saved(3, wer=0.1 + 0.2)
    assert manifest_to_saved(saved_to_manifest(one), location="m") == one


def test_a_manifest_with_a_flipped_bit_is_refused_or_means_the_same() -> None:
    one = saved(3, wer=0.25)
    manifest = saved_to_manifest(one)
    for index in range(len(manifest)):
        changed = manifest[:index] + bytes([manifest[index] ^ 1]) + manifest[index + 1 :]
        try:
            assert manifest_to_saved(changed, location="m") == one
        except CheckpointError:
            continue


def test_a_manifest_of_another_format_is_refused_with_both_versions() -> None:
    document = json.loads(saved_to_manifest(saved(1)))
    with pytest.raises(CheckpointError, match="format version 2, and this release reads 1"):
        manifest_to_saved(json.dumps(document | {"format_version": 2}).encode(), location="m")


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{}", b'{"format_version": 1', b"\xff\xfe"])
def test_a_file_that_is_not_a_manifest_is_refused(manifest: bytes) -> None:
    with pytest.raises(CheckpointError, match="it is not a manifest"):
        manifest_to_saved(manifest, location="m")


def test_a_whole_manifest_that_describes_no_checkpoint_is_refused() -> None:
    document = json.loads(saved_to_manifest(saved(1)))
    changed = saved(1).model_copy(update={"files": {}})
    document = json.loads(saved_to_manifest(changed))
    with pytest.raises(CheckpointError, match="does not describe a checkpoint"):
        manifest_to_saved(json.dumps(document).encode(), location="m")


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "checkpoint/../../outside", ""])
def test_a_manifest_cannot_name_files_outside_its_folder(path: str) -> None:
    with pytest.raises(ValidationError, match="not a path below"):
        Saved(name="a", sequence=1, step=1, files={path: FileDigest(size=1, sha256="")})


def test_the_best_and_the_newest_are_kept_and_never_fewer_than_two() -> None:
    rising = [saved(1, wer=0.1), saved(2, wer=0.3), saved(3, wer=0.2), saved(4)]
    assert {one.sequence for one in choose_kept(rising, keep_best=1)} == {1, 4}
    assert {one.sequence for one in choose_kept(rising, keep_best=2)} == {1, 3, 4}
    falling = [saved(1, wer=0.3), saved(2, wer=0.2), saved(3, wer=0.1)]
    assert {one.sequence for one in choose_kept(falling, keep_best=1)} == {2, 3}
    assert [one.sequence for one in choose_kept(falling[:1], keep_best=1)] == [1]


def test_of_equally_good_checkpoints_the_earlier_is_the_best() -> None:
    equal = [saved(sequence, wer=0.2) for sequence in (1, 2, 3)]
    assert {one.sequence for one in choose_kept(equal, keep_best=1)} == {1, 3}
