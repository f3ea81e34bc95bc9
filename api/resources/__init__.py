"""HTTP in, HTTP out: each resource reads a request, asks a service, writes the answer."""
