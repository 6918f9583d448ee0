"""The models of a quickstart, in a folder of their own: they never replace a promoted model.

A quickstart promotes into ``<its folder>/models``. A service that is started afterwards serves the newest release there
until something is promoted into its own models folder.
"""

from pathlib import Path

from serve.launch import shown_path
from serve.models.promotion import Promotion, promote
from serve.models.registry import ModelRecord, read_records, release_files
from serve.settings import QUICKSTART_FOLDER, ServeConfig

_MODELS = "models"


def with_own_models(config: ServeConfig, folder: Path) -> ServeConfig:
    """Return settings that serve from the quickstart's folder only.

    Args:
        config: the service's settings.
        folder: of the quickstart.
    """
    return config.model_copy(update={"model": None, "models_folder": str(folder / _MODELS)})


def promote_export(config: ServeConfig, *, checkpoint: str, export: Path) -> None:
    """Promote a quickstart's export under the default name of its service. Raises as ``change_model``.

    Args:
        config: from ``with_own_models``.
        checkpoint: folder of the trained model.
        export: its export folder.
    """
    promote(
        Promotion(
            name=config.model_id,
            checkpoint=checkpoint,
            export=str(export),
            variant=config.variant,
            models_folder=Path(config.models_folder),
        )
    )


def with_quickstart(config: ServeConfig, folder: Path) -> ServeConfig:
    """Return settings that serve the last quickstart's model until one is promoted under the default name.

    They name the files of its release. A later quickstart makes another release and does not change a running service.

    Args:
        config: the service's settings; unchanged if the folder holds no quickstart's model.
        folder: of the quickstart.
    """
    models_folder = folder / _MODELS
    records = [record for record in read_records(models_folder).values() if isinstance(record, ModelRecord)]
    found = [(release, one.name) for one in records if (release := one.release(one.current)) is not None]
    if not found:
        return config
    release, name = max(found, key=lambda pair: pair[0].promoted)
    files = release_files(models_folder, name, release)
    source = files.checkpoint if release.variant == "torch" else files.export
    return config.model_copy(update={"until_promoted": source})


def serve_command(folder: Path) -> str:
    """Return the command that serves a quickstart's model."""
    if folder.resolve() == QUICKSTART_FOLDER.resolve():
        return "make serve"
    return f"python -m jobs.serve_model --quickstart-folder {shown_path(str(folder))}"
