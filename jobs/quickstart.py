"""The whole walk in a few minutes, offline: ``python -m jobs.quickstart --config jobs/recipes/quickstart.yaml``."""

from functools import partial
from pathlib import Path

import ray

from serve.launch import check_port, start_ray, start_server, start_service
from serve.quickstart import promote_export, serve_command, with_own_models
from serve.settings import QUICKSTART_FOLDER, Autoscaling, ServeConfig
from sottovoce.config import Config, load_config, setup_logging, write_config
from sottovoce.demo.quickstart import WalkConfig, walk
from sottovoce.demo.result import ask_service, build_result, fresh_folder, publish_result
from sottovoce.demo.stages import Stages

_HOST = "127.0.0.1"


class QuickstartJob(Config):
    """Make dictation, fine-tune micro on it with Ray Train, export, gate, serve, ask, and report."""

    output: Path = QUICKSTART_FOLDER
    """Output folder; an earlier quickstart in it is replaced, except for the models it served."""
    walk: WalkConfig = WalkConfig()
    service: ServeConfig = ServeConfig(gateway_scaling=Autoscaling())
    """Settings of the service; its model and models_folder are replaced by the output folder's."""
    num_requests: int = 24
    """Test utterances sent over HTTP."""
    port: int = 8000
    """Port of the service, on 127.0.0.1."""


def main(job: QuickstartJob) -> None:
    """Run the job."""
    setup_logging()
    stages = Stages()
    check_port(_HOST, job.port)
    output = fresh_folder(job.output)
    write_config(job, output / "quickstart.yaml")
    service = with_own_models(job.service, output)
    server = partial(start_server, service, host=_HOST, port=job.port)
    walked = walk(job.walk, output, start_ray=partial(start_ray, host=_HOST), start_server=server, stages=stages)
    promote_export(service, checkpoint=walked.export.checkpoint, export=walked.export_folder)
    base_url = stages.run("service", partial(start_service, service, host=_HOST, port=job.port))
    answers = ask_service(base_url, walked.test[: job.num_requests], model=service.model_id)
    ray.shutdown()
    command = serve_command(job.output)
    result = build_result(walked, answers, output=output, stages=stages, serve_command=command)
    publish_result(result, answers, output)


if __name__ == "__main__":
    main(load_config(QuickstartJob))
