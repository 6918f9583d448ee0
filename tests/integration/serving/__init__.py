"""Tests of one running service; a package, so that the service ends with the last of them."""
