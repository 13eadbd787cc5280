"""The OpenAPI description of the service: written by hand, held true by tests."""
