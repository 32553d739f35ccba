"""The steps as Prefect tasks, one module a step: retries, what is remembered, logging, artifacts.

What a step does is in the module of the same name in :mod:`lifecycle`.
"""
