"""Storage ``s3``: Ceph RGW first, also MinIO and AWS."""
