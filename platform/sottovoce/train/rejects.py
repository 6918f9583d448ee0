"""Training recordings that were left out: all ranks' together, kept in the run's folder, and bounded."""

from collections.abc import Iterable
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from sottovoce.errors import TooManyRejectsError
from sottovoce.schema import Reject
from sottovoce.train.whole_file import write_whole

REJECTS_FILE = "training_rejects.jsonl"
"""Not ``rejects.jsonl``, which is the manifest's, whose folder may be the run's."""


def gather_rejects(
    own: Iterable[Reject], accelerator: Accelerator, *, output: Path, num_utterances: int, allowed: float
) -> dict[str, Reject]:
    """Bring all ranks' rejects together, and have the first rank write them; every rank must call it.

    Args:
        own: this rank's, and any that all ranks know of.
        accelerator: knows the ranks.
        output: the run's folder.
        num_utterances: of the training split.
        allowed: the largest part of them that may be left out.

    Returns:
        Those of all ranks, by id.

    Raises:
        TooManyRejectsError: more than allowed; they are in the file by then.
    """
    everywhere: list[Reject] = gather_object(list(own))
    rejects = {reject.id: reject for reject in everywhere}
    path = output / REJECTS_FILE
    if rejects and accelerator.is_main_process:
        write_whole(path, "".join(f"{reject.model_dump_json()}\n" for reject in rejects.values()))
    if len(rejects) > allowed * num_utterances:
        accelerator.wait_for_everyone()  # the first rank to raise ends the run, whoever is still writing
        raise TooManyRejectsError(path, len(rejects), num_utterances, allowed)
    return rejects
