"""Change what is served under a name: ``python -m jobs.promote_model --export FOLDER``, or ``--rollback``."""

from typing import Annotated

import tyro

from serve.models.promotion import Promotion, change_model
from sottovoce.config import Config, load_config, setup_logging


class PromoteJob(Config):
    """Promote a model that its export gate did not refuse, or roll back to the previous release."""

    promotion: Annotated[Promotion, tyro.conf.arg(name="")]


def main(job: PromoteJob) -> None:
    """Run the job."""
    setup_logging()
    change_model(job.promotion)


if __name__ == "__main__":
    main(load_config(PromoteJob))
