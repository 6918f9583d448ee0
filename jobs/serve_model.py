"""Serve a model on this machine until Ctrl-C: ``python -m jobs.serve_model --model FOLDER --variant int8``."""

from pathlib import Path
from typing import Annotated

import ray
import tyro
from pydantic import Field

from serve.launch import (
    check_port,
    curl_line,
    describe_default,
    start_ray,
    start_service,
    stop_service,
    wait_for_signal,
)
from serve.quickstart import with_quickstart
from serve.settings import QUICKSTART_FOLDER, ServeConfig
from sottovoce.config import Config, load_config, setup_logging


class ServeJob(Config):
    """One service on one machine."""

    service: Annotated[ServeConfig, tyro.conf.arg(name="")] = ServeConfig(embedded_until_promoted=True)
    host: str = "127.0.0.1"
    """Interface to listen on."""
    port: int = Field(default=8000, ge=1, le=65_535)
    """Port to listen on."""
    quickstart_folder: Path = QUICKSTART_FOLDER
    """Folder of a quickstart; its model is served when no model is named and none was promoted."""


def main(job: ServeJob) -> None:
    """Start the service, say what it serves and how to call it, and stop it on Ctrl-C."""
    setup_logging()
    check_port(job.host, job.port)
    service = with_quickstart(job.service, job.quickstart_folder)
    print(describe_default(service), flush=True)
    start_ray(host=job.host)
    base_url = start_service(service, host=job.host, port=job.port)
    print(f"ready; try\n  {curl_line(base_url, service.model_id)}\nCtrl-C stops it", flush=True)
    wait_for_signal()
    stop_service()
    ray.shutdown()


if __name__ == "__main__":
    main(load_config(ServeJob))
