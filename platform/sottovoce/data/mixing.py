"""One or several manifests as the speech of one run: old data mixed in against forgetting, several languages, tasks."""

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
    """What the manifests of a run hold."""

    manifests: tuple[tuple[Utterance, ...], ...]
    """The utterances of each, whatever their split; an id is met once."""
    rejects: tuple[Reject, ...]
    """Rows that never became utterances, of all manifests."""

    def split(self, split: Split) -> list[Utterance]:
        """Give one split of all manifests, which may be empty."""
        return [one for manifest in self.manifests for one in manifest if one.split == split]


def read_speech(manifests: Sequence[Path]) -> Speech:
    """Read manifests, and the rejects beside them.

    Where there are several, ids begin with the name of their corpus, and an utterance that names none belongs to the
    corpus called like its manifest's folder.

    Raises:
        ManifestError: see ``read_manifest``; or an id that two manifests share.
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
                    f"id {utterance.id!r} is in {seen[utterance.id]} too; give each corpus a name of its own when it "
                    "is prepared, or put the manifests into folders of different names",
                )
        seen.update((utterance.id, path) for utterance in utterances)


def _warn_of_shared_names(manifests: Sequence[Sequence[Utterance]], paths: Sequence[Path]) -> None:
    """Say aloud that corpora of one name are scored as one: a folder called ``corpus`` is soon met twice."""
    first: dict[str, Path] = {}
    for utterances, path in zip(manifests, paths, strict=True):
        for name in sorted({str(one.corpus) for one in utterances}):
            if first.setdefault(name, path) != path:
                logger.warning(
                    "%s and %s both call their corpus %r, so it is scored as one; prepare one of them with another "
                    "--prepare.name to tell them apart",
                    *(first[name], path, name),
                )
