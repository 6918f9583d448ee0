"""The gateway's catalog: which model each id serves now, and how a new version replaces the old one.

A new version is loaded on every transcriber replica before it answers requests, so no request waits for it. A request
finishes with the version it started with.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from serve.errors import ModelLoadError, ModelNotFoundError, ModelRefusedError
from serve.models.file_digests import FileDigest, describe_files
from serve.models.model_plan import VARIANT_MARK, ModelEntry, ModelPlan, ModelSource, split_id
from serve.models.served_model import ServedModel
from serve.windows import TranscriberHandle, describe_everywhere, describe_model
from sottovoce.errors import SottovoceError

_POLL_S = 0.5  # a promotion is seen within a second; one poll costs a stat of each file in one folder

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ListedModel:
    """One line of ``GET /v1/models``."""

    id: str
    """A name, a name with a variant, or an alias."""
    created: int
    """Unix time of its promotion, or else of its files."""
    variant: str
    """torch, or the name of an export format such as int8."""
    source: str
    """Its Hub id, or the last two parts of its folder's path: clients need not know the rest."""
    files: tuple[FileDigest, ...]
    """The files that answer requests now; empty before they have been loaded."""


class Catalog:
    """All models, and the loaded version of each."""

    def __init__(self, handle: TranscriberHandle, source: ModelSource) -> None:
        """Prepare; ``running`` reads the repository.

        Args:
            handle: the transcriber deployment.
            source: the model repository.
        """
        self._handle = handle
        self._source = source
        self._entries: Mapping[str, ModelEntry] = {}
        self._served: dict[str, ServedModel] = {}
        self._opening: dict[str, asyncio.Task[ServedModel]] = {}
        self._switching: dict[str, asyncio.Task[None]] = {}
        self._promoted: set[str] = set()  # names promoted while we run, until they are loaded
        self._broken: set[str] = set()
        self._faults: dict[str, str] = {}  # by key, what was last logged of it

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Wait until the default model answers, then poll the repository until the block ends.

        Raises:
            ModelNotFoundError: there is no default model.
            ModelLoadError: it cannot be loaded.
        """
        self._entries = await self._read()
        served = await self.find(self._source.default)
        names = ", ".join((self._source.default, *self._source.aliases))
        _log.info("serving %s as %s: %s", served.key, names, describe_files(served.files))
        following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            for task in (following, *self._opening.values(), *self._switching.values()):
                task.cancel()

    def listed(self) -> list[ListedModel]:
        """Return every valid model id: the names in order, each with its variants, then the default's aliases."""
        names = [
            self._describe(model_id, entry.plans[variant])
            for name, entry in self._entries.items()
            for model_id, variant in [(name, entry.default), *((f"{name}{VARIANT_MARK}{v}", v) for v in entry.plans)]
            if variant in entry.plans
        ]
        aliases = [
            replace(one, id=alias)
            for one in names[:1]
            if one.id == self._source.default
            for alias in self._source.aliases
        ]
        return [*names, *aliases]

    def describe(self, model: str) -> ListedModel:
        """Return the line of one model, under the id that was asked for.

        Raises:
            ModelNotFoundError: no such model is served.
        """
        return replace(self._describe(self._without_alias(model), self._find_plan(model)), id=model)

    async def find(self, model: str) -> ServedModel:
        """Return the loaded model of an id. A transcriber loads it first if no request has used it yet.

        Raises:
            ModelNotFoundError: no such model, or (``ModelRefusedError``) one that the export gate refused.
            ModelLoadError: its files cannot be loaded.
            OverloadedError, TranscriberLostError: see ``send_window``.
        """
        model_id = self._without_alias(model)
        served = self._served.get(model_id)
        return await self._open(model_id, self._find_plan(model)) if served is None else served

    async def find_default(self) -> ServedModel:
        """Return the default model. The caller named none, so a missing one is the service's error.

        Raises:
            ModelLoadError: it cannot be loaded, or there is none any more.
            OverloadedError, TranscriberLostError: see ``send_window``.
        """
        try:
            return await self.find(self._source.default)
        except ModelNotFoundError as error:
            reason = "it is gone; promote a model under its name, or restore its files"
            raise ModelLoadError(self._source.default, reason) from error

    async def refresh(self) -> None:
        """Read the repository, and start to load what has changed."""
        before, self._entries = self._entries, await self._read()
        for model_id in [*self._served]:
            if self._plan_of(model_id) is None:
                self._served.pop(model_id)
        promoted = {name for name, entry in self._entries.items() if entry.is_promoted and entry != before.get(name)}
        self._promoted = {name for name in self._promoted | promoted if name not in self._served}
        for model_id in [*self._served, *sorted(self._promoted)]:
            plan, served = self._plan_of(model_id), self._served.get(model_id)
            if plan is not None and (served is None or served.key != plan.key):
                self._begin_switch(model_id, plan)

    async def _read(self) -> dict[str, ModelEntry]:
        """Read the repository. A name with a damaged record keeps its entry."""
        found = await asyncio.to_thread(self._source.read)
        kept = {name: entry if entry.is_readable else self._entries.get(name) for name, entry in found.items()}
        return {name: entry for name, entry in kept.items() if entry is not None}

    async def _follow(self) -> None:
        fault = ""
        while True:
            await asyncio.sleep(_POLL_S)
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001 - file systems raise anything; the poll must survive it
                if repr(error) != fault:
                    _log.exception("the model repository cannot be read; the models served stay as they are")
                fault = repr(error)
            else:
                fault = ""

    def _begin_switch(self, model_id: str, plan: ModelPlan) -> None:
        if model_id in self._switching or plan.key in self._broken:
            return
        task = asyncio.create_task(self._switch(model_id, plan))
        self._switching[model_id] = task
        task.add_done_callback(lambda _: self._switching.pop(model_id))

    async def _switch(self, model_id: str, plan: ModelPlan) -> None:
        """Load a version on every replica, then let it answer. If none can load it, the previous version stays."""
        try:
            served = await describe_everywhere(self._handle, plan.key)
        except ModelLoadError:
            self._broken.add(plan.key)
            _log.exception("%s cannot be loaded; %s keeps its previous version", plan.key, model_id)
            return
        except (RayError, RayServeException, SottovoceError) as error:  # replicas died, or do not see the files yet
            if self._faults.get(plan.key) != str(error):
                _log.exception("%s is not loaded yet; retrying", plan.key)
            self._faults[plan.key] = str(error)
            return
        self._faults.pop(plan.key, None)
        self._served[model_id] = served
        _log.info("%s is now %s: %s", model_id, plan.key, describe_files(served.files))

    async def _open(self, model_id: str, plan: ModelPlan) -> ServedModel:
        """Load a model once for all concurrent requests. A cancelled request does not stop it for the others."""
        task = self._opening.get(plan.key)
        if task is None:
            task = asyncio.create_task(describe_model(self._handle, plan.key))
            self._opening[plan.key] = task
            task.add_done_callback(lambda _: self._opening.pop(plan.key))
        served = await asyncio.shield(task)
        return self._served.setdefault(model_id, served)

    def _describe(self, model_id: str, plan: ModelPlan) -> ListedModel:
        """Describe a model. While a new version is loaded, the files are those of the version that still answers."""
        by_key = {served.key: served for served in self._served.values()}
        served = self._served.get(model_id) or by_key.get(plan.key)
        folder = Path(plan.folder)
        source = str(Path(*folder.parts[-2:])) if folder.is_absolute() else plan.folder
        return ListedModel(model_id, plan.created, plan.variant, source, () if served is None else served.files)

    def _plan_of(self, model_id: str) -> ModelPlan | None:
        name, variant = split_id(model_id)
        entry = self._entries.get(name)
        return None if entry is None else entry.plan(variant)

    def _find_plan(self, model: str) -> ModelPlan:
        name, variant = split_id(self._without_alias(model))
        entry = self._entries.get(name)
        if entry is None:
            raise ModelNotFoundError(model)
        variant = entry.default if variant is None else variant
        if variant in entry.refused:
            raise ModelRefusedError(model, entry.refused[variant])
        if variant not in entry.plans:
            raise ModelNotFoundError(model)
        return entry.plans[variant]

    def _without_alias(self, model: str) -> str:
        name, variant = split_id(model)
        if name not in self._source.aliases:
            return model
        default = self._source.default
        return default if variant is None else f"{default}{VARIANT_MARK}{variant}"
