"""What preparing a corpus gave: the value between the check of its rows and the report on them."""

from collections.abc import Mapping
from dataclasses import dataclass

from sottovoce.schema import Reject, Remark, Utterance


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """A corpus after every row was checked; rows = utterances + rejects."""

    corpus: str
    """Name of the corpus, or of the folder or URI it was read from: the report's headline."""
    utterances: tuple[Utterance, ...]
    """What was kept, each with its split; audio as ``read_audio`` takes it from the working folder."""
    rejects: tuple[Reject, ...]
    """What was not kept, and why."""
    remarks: tuple[Remark, ...]
    """What was unusual about utterances that were kept."""
    digests: Mapping[str, str]
    """SHA-256 in hex of an utterance's int16 PCM, by its id: the same sound has the same digest."""
    num_rows: int
    """Rows the corpus had."""
    seconds: float
    """Wall time the preparation took."""
