"""Sources of the demo: a simulated shop in Postgres and Kafka, and raw files in the object store."""
