"""Files in S3, or in a service that speaks its protocol. `nnlib.storage.s3.storage` is the way in."""
