"""The gateway: payloads in, results and output out, over HTTP and beside the API server."""
