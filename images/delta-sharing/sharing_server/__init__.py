"""A Delta Sharing server: the read side of the open protocol, on Delta tables in an S3 object store."""
