"""API keys of services under test: replicas read them from the environment that Ray was started in."""

KEYS_VARIABLE = "SOTTOVOCE_TEST_KEYS"
API_KEYS = ("first-key", "second-key")
