"""Word times survive training: alignment heads found anew."""
