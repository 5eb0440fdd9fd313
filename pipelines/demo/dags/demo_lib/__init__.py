"""What the demo's DAGs share."""
