"""The use cases. HTTP, Celery and the command line call the same ones; no transaction waits for a model."""
