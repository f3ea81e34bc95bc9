"""Storage ``oss``: Aliyun OSS."""
