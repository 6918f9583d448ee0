"""What the service shows of itself: metrics on Ray's Prometheus endpoint, and one log line for each request."""
