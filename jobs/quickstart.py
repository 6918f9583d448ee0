"""The whole walk in a few minutes, offline: ``python -m jobs.quickstart --config jobs/recipes/quickstart.yaml``."""

from pathlib import Path

import ray

from serve.launch import start_ray, start_service
from serve.models.promotion import Promotion, promote
from serve.settings import ServeConfig
from sottovoce.config import Config, load_config, setup_logging, write_config
from sottovoce.demo.quickstart import WalkConfig, walk
from sottovoce.demo.result import ask_service, build_result, fresh_folder, publish_result


class QuickstartJob(Config):
    """Make dictation, fine-tune micro on it with Ray Train, export, gate, serve, ask, and report."""

    output: Path = Path("runs/quickstart")
    """Folder for everything; an earlier quickstart in it is replaced."""
    walk: WalkConfig = WalkConfig()
    service: ServeConfig = ServeConfig()
    num_requests: int = 24
    """Test utterances sent over HTTP."""
    port: int = 8000
    """Where the service listens meanwhile, on 127.0.0.1."""


def main(job: QuickstartJob) -> None:
    """Run the job."""
    setup_logging()
    output = fresh_folder(job.output)
    write_config(job, output / "quickstart.yaml")
    start_ray(host="127.0.0.1")
    walked = walk(job.walk, output)
    promote(
        Promotion(
            name=job.service.model_id,
            checkpoint=walked.export.checkpoint,
            export=str(walked.export_folder),
            variant=job.service.variant,
            models_folder=Path(job.service.models_folder),
        )
    )
    base_url = start_service(job.service, port=job.port)
    answers = ask_service(base_url, walked.test[: job.num_requests], model=job.service.model_id)
    ray.shutdown()
    publish_result(build_result(walked, answers, output=output), answers, output)


if __name__ == "__main__":
    main(load_config(QuickstartJob))
