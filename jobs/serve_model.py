"""Serve a model on this machine until Ctrl-C: ``python -m jobs.serve_model --model FOLDER --variant int8``."""

from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from serve.launch import check_access, check_port, curl_line, describe_default
from serve.lifecycle.running import run_service
from serve.observe.metrics import metrics_url
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
    insecure_no_auth: bool = False
    """Listen beyond this machine without API keys."""
    quickstart_folder: Path = QUICKSTART_FOLDER
    """Folder of a quickstart; its model is served when no model is named and none was promoted."""


def main(job: ServeJob) -> None:
    """Start the service, say what it serves and how to call it, and stop it on Ctrl-C."""
    setup_logging()
    check_access(job.host, job.service.api_keys_env, insecure_no_auth=job.insecure_no_auth)
    check_port(job.host, job.port)
    service = with_quickstart(job.service, job.quickstart_folder)
    say = partial(print, flush=True)
    say(describe_default(service))
    run_service(service, host=job.host, port=job.port, announce=lambda url: say(_hint(url, service)), say=say)


def _hint(base_url: str, service: ServeConfig) -> str:
    call = curl_line(base_url, service.model_id, api_keys_env=service.api_keys_env)
    return f"metrics are at {metrics_url()}\nready; try\n  {call}\nCtrl-C stops it"


if __name__ == "__main__":
    main(load_config(ServeJob))
