"""The model repository: models in the settings, promoted models, and plain folders in the models folder."""

import functools
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from serve.errors import ModelNotFoundError
from serve.models.model_files import digest_files, find_variants, missing_variant, newest_file, refusal
from serve.models.model_plan import VARIANT_MARK, ModelEntry, ModelPlan, split_id
from serve.models.registry import ModelRecord, Release, read_record, read_records, release_files, was_promoted
from serve.settings import NamedModel, ServeConfig, ServedFiles, is_name, resolve_path
from sottovoce.assets import MICRO_FOLDER
from sottovoce.errors import CheckpointError, ConfigError
from sottovoce.model.variants import TORCH, ServedVariant

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ModelRepository:
    """All models of one service. Gateways and transcribers read it alike, as a ``ModelSource``."""

    default: str
    aliases: tuple[str, ...]
    pinned: tuple[NamedModel, ...]
    """Models from the settings, with absolute paths."""
    models_folder: Path
    until_promoted: Path | None = None
    """Folder whose model stands in for the default one while none is promoted under its name."""
    serves_embedded: bool
    """Whether the embedded model serves as the default until another is promoted."""
    opened: int = field(default_factory=lambda: int(time.time()))
    """Unix time; the creation time of Hub models, which have no files here."""

    def read(self) -> dict[str, ModelEntry]:
        """Return the entries that can be served now: the default model first, then the others by name."""
        found: dict[str, ModelEntry] = {}
        for entry in self._entries():
            if entry.name in self.aliases:
                remedy = "promote it, or rename its folder, under another name; or take the alias out of the settings"
                _warn_once(f"{entry.name} is not served, because it is an alias of {self.default}; {remedy}")
            else:
                found.setdefault(entry.name, entry)
        return {name: found[name] for name in sorted(found, key=lambda name: (name != self.default, name))}

    def default_plan(self) -> ModelPlan:
        """Return the plan of the default model.

        Raises:
            ConfigError: there is none, or what the settings name cannot be served.
        """
        entry = self.read().get(self.default)
        plan = None if entry is None else entry.plan(None)
        if plan is not None:
            return plan
        remedy = "promote one with python -m jobs.promote_model, or name its files in the settings"
        nothing = f"nothing is promoted under that name in {self.models_folder}; {remedy}"
        reason = nothing if entry is None else "; ".join(entry.refused.values())
        raise ConfigError(f"the default model {self.default!r} cannot be served: {reason}")

    def plan(self, key: str) -> ModelPlan:
        """Return the plan of a key: exactly its release, current or not, as long as its files are kept.

        A model that was never promoted is loaded as it is now, even if it has changed or a promotion hides it since. A
        model that stands in until another is promoted is never loaded for a key of other files.

        Raises:
            ModelNotFoundError: its name is not served any more, or its release is not visible here.
            CheckpointError: the name's record is damaged.
        """
        model_id, _, version = key.rpartition("/")
        name, variant = split_id(model_id)
        number = _version_number(version)
        own = [entry for entry in self._named() if entry.name == name and not entry.is_promoted]
        entries = self._release(name, number) if number else (*own, *self._stand_ins())
        plans = [plan for entry in entries if (plan := entry.plan(variant or "")) is not None]
        for plan in plans:
            if plan.key == key:
                return plan
        newest = None if number or not own else own[0].plan(variant or "")
        if newest is None:
            raise ModelNotFoundError(key)
        return newest

    def _entries(self) -> Iterator[ModelEntry]:
        """Yield all entries. The first of each name counts."""
        yield from self._named()
        yield from self._stand_ins()

    def _named(self) -> Iterator[ModelEntry]:
        """Yield the models of the settings, the promoted ones, and the plain folders."""
        for model in self.pinned:
            yield self._pinned(model)
        for name, record in read_records(self.models_folder).items():
            if isinstance(record, CheckpointError):
                yield from self._unreadable(name, record)
            else:
                lost = f"its record names version {record.current}, which it does not hold; promote it again"
                yield from self._release(name, record.current, record) or (_reserve(name, lost),)
        for folder in sorted(self.models_folder.glob("[!.]*/")):
            if is_name(folder.name):
                yield from self._present(folder.name, ServedFiles(checkpoint=str(folder), export=str(folder)))

    def _stand_ins(self) -> Iterator[ModelEntry]:
        """Yield the models that stand in for the default one until it is promoted."""
        if self.until_promoted is not None:
            files = ServedFiles(checkpoint=str(self.until_promoted), export=str(self.until_promoted))
            yield from self._present(self.default, files)
        if self.serves_embedded:
            yield from self._present(self.default, ServedFiles(checkpoint=str(MICRO_FOLDER)))

    def _pinned(self, model: NamedModel) -> ModelEntry:
        """Return a model of the settings. If its files are missing, its name stays reserved."""
        try:
            return self._entry(model.name, model)
        except CheckpointError as error:
            _warn_once(f"{model.name} is not served: {error}")
            return _reserve(model.name, str(error), variant=model.variant)

    def _release(self, name: str, version: int, record: ModelRecord | None = None) -> tuple[ModelEntry, ...]:
        """Return one release, if it is kept. Raises as ``read_record``."""
        record = record or read_record(self.models_folder, name)
        release = None if record is None else record.release(version)
        if release is None:
            return ()
        return self._present(name, release_files(self.models_folder, name, release), release)

    def _unreadable(self, name: str, error: CheckpointError) -> tuple[ModelEntry, ...]:
        """Reserve a promoted name whose record is damaged, so that no folder or embedded model replaces it."""
        if not was_promoted(self.models_folder, name):
            _warn_once(f"a file in the models folder is ignored: {error}")
            return ()
        _warn_once(f"{name} keeps its previous version: {error}")
        return (_reserve(name, str(error)),)

    def _present(self, name: str, files: ServedFiles, release: Release | None = None) -> tuple[ModelEntry, ...]:
        """Return the entry of a model. If its files cannot be served, the log says why.

        A promoted name and the default one stay reserved then, so that nothing else answers under them.
        """
        try:
            return (self._entry(name, files, release),)
        except CheckpointError as error:
            _warn_once(f"{name} is not served: {error}")
            is_reserved = release is not None or name == self.default
            return (_reserve(name, str(error), variant=files.variant),) if is_reserved else ()

    def _entry(self, name: str, files: ServedFiles, release: Release | None = None) -> ModelEntry:
        """Return the entry of a model.

        Raises:
            CheckpointError: the wanted variant or any model is missing, or a record cannot be read.
        """
        found = find_variants(files.checkpoint, files.export)
        default = found.default(files.variant)
        if default is None:
            own = files.checkpoint if files.variant == TORCH else files.export
            raise missing_variant(own or files.checkpoint or files.export or "", files.variant)
        return ModelEntry(
            name=name,
            default=default,
            plans={
                variant: self._plan(name, variant, folder, files, release) for variant, folder in found.folders.items()
            },
            refused={
                variant: str(refusal(variant, record, files.export or "")) for variant, record in found.refused.items()
            },
            is_promoted=release is not None,
        )

    def _plan(
        self, name: str, variant: ServedVariant, folder: str, files: ServedFiles, release: Release | None
    ) -> ModelPlan:
        base, assistant = (files.base, files.assistant) if variant == "torch" else (None, None)
        if release is None:
            version, digest = 0, digest_files(folder, base, assistant)
            created = newest_file(folder) or self.opened
        else:
            version, digest, created = release.version, release.digest, release.promoted
        return ModelPlan(
            key=f"{name}{VARIANT_MARK}{variant}/{version}-{digest}",
            folder=folder,
            variant=variant,
            base=base,
            assistant=assistant,
            created=created,
        )


def open_repository(config: ServeConfig) -> ModelRepository:
    """Build the repository of a service, with absolute paths, since replicas run in other folders."""
    return ModelRepository(
        default=config.model_id,
        aliases=config.aliases,
        pinned=tuple(model.resolved() for model in config.pinned()),
        models_folder=Path(resolve_path(config.models_folder)).absolute(),
        until_promoted=None if config.until_promoted is None else Path(resolve_path(config.until_promoted)).absolute(),
        serves_embedded=config.embedded_until_promoted,
    )


def _reserve(name: str, reason: str, *, variant: ServedVariant | None = None) -> ModelEntry:
    """Return the entry of a name that nothing can be served under, and that nothing else may take."""
    default = variant or TORCH
    return ModelEntry(name=name, default=default, plans={}, refused={default: reason}, is_readable=False)


def _version_number(version: str) -> int:
    number = version.split("-")[0]
    return int(number) if number.isdigit() else 0


@functools.cache
def _warn_once(message: str) -> None:
    """Log a message once: the repository is read twice a second."""
    _log.warning(message)
