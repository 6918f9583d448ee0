"""Combine several manifests into the speech of one run: old data against forgetting, several languages or tasks."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sottovoce.data.manifest import read_manifest, read_rejects
from sottovoce.errors import ManifestError
from sottovoce.schema import Reject, Split, Utterance

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Speech:
    """The utterances and rejects of a run's manifests."""

    manifests: tuple[tuple[Utterance, ...], ...]
    """The utterances of each manifest, of all splits; ids are unique."""
    rejects: tuple[Reject, ...]
    """The rejected rows of all manifests."""

    def split(self, split: Split) -> list[Utterance]:
        """Return the utterances of one split in all manifests; possibly none."""
        return [one for manifest in self.manifests for one in manifest if one.split == split]


def read_speech(manifests: Sequence[Path]) -> Speech:
    """Read manifests and the rejects beside them.

    If there are several, ids get the name of their corpus as a prefix. An utterance without a corpus belongs to one
    named after the folder of its manifest.

    Raises:
        ManifestError: see ``read_manifest``; or two manifests share an id.
    """
    read = [tuple(read_manifest(path)) for path in manifests]
    rejects = tuple(reject for path in manifests for reject in read_rejects(path.with_name("rejects.jsonl")))
    if len(read) > 1:
        read = [_with_corpus(one, path) for one, path in zip(read, manifests, strict=True)]
        _check_ids(read, manifests)
        _warn_of_shared_names(read, manifests)
    return Speech(manifests=tuple(read), rejects=rejects)


def _with_corpus(utterances: Sequence[Utterance], path: Path) -> tuple[Utterance, ...]:
    folder = path.resolve().parent.name
    corpora = [utterance.corpus or folder for utterance in utterances]
    return tuple(
        utterance.model_copy(update={"id": f"{corpus}/{utterance.id}", "corpus": corpus})
        for utterance, corpus in zip(utterances, corpora, strict=True)
    )


def _check_ids(manifests: Sequence[Sequence[Utterance]], paths: Sequence[Path]) -> None:
    seen: dict[str, Path] = {}
    for utterances, path in zip(manifests, paths, strict=True):
        for utterance in utterances:
            if utterance.id in seen:
                raise ManifestError(
                    path,
                    f"id {utterance.id!r} is also in {seen[utterance.id]}; prepare each corpus with a name of "
                    "its own, or put the manifests into folders with different names",
                )
        seen.update((utterance.id, path) for utterance in utterances)


def _warn_of_shared_names(manifests: Sequence[Sequence[Utterance]], paths: Sequence[Path]) -> None:
    """Warn about different corpora with the same name, which are scored as one; a folder named ``corpus`` is common."""
    first: dict[str, Path] = {}
    for utterances, path in zip(manifests, paths, strict=True):
        for name in sorted({str(one.corpus) for one in utterances}):
            if first.setdefault(name, path) != path:
                logger.warning(
                    "%s and %s both call their corpus %r, so it is scored as one; prepare one of them with another "
                    "--prepare.name to tell them apart",
                    *(first[name], path, name),
                )
