"""API keys: only their digests are kept, and every comparison takes the same time."""

import hashlib
import hmac
import os
from collections.abc import Sequence

from serve.errors import UnauthorizedError
from sottovoce.errors import ConfigError

_SCHEME = "bearer "
_EVERYONE = "everyone"


class ApiKeys:
    """The accepted keys. Without any, every request is accepted."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    @property
    def are_wanted(self) -> bool:
        """Whether requests need a key."""
        return bool(self._digests)

    def check(self, authorization: str | None) -> str:
        """Check an ``Authorization`` header.

        Returns:
            Whose request it is: one string for each key, and the same for everyone where no key is wanted.

        Raises:
            UnauthorizedError: keys are set and the header does not hold one of them.
        """
        if not self._digests:
            return _EVERYONE
        header = authorization or ""
        given = _digest(header[len(_SCHEME) :].strip() if header.lower().startswith(_SCHEME) else "")
        # A list first: stopping at the matching key would reveal its index by time.
        matches = [hmac.compare_digest(given, known) for known in self._digests]
        if not any(matches):
            raise UnauthorizedError
        return given.hex()


def read_api_keys(variable: str | None) -> ApiKeys:
    """Read comma-separated keys from an environment variable; None requires no key.

    Raises:
        ConfigError: the variable is named but holds no key here, so the service would stand open unnoticed.
    """
    if variable is None:
        return ApiKeys()
    keys = [key.strip() for key in os.environ.get(variable, "").split(",") if key.strip()]
    if not keys:
        raise ConfigError(f"api_keys_env names {variable}, which holds no key where the gateway runs; set it there")
    return ApiKeys(keys)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", errors="surrogateescape")).digest()
