"""The life cycle of a fine-tuned chat model on Azure ML, as plain functions on plain data.

One module a step, in the order of a run: :mod:`~lifecycle.auth`, :mod:`~lifecycle.model`,
:mod:`~lifecycle.component`, :mod:`~lifecycle.compute`, :mod:`~lifecycle.dataset`,
:mod:`~lifecycle.preflight`, :mod:`~lifecycle.job`, :mod:`~lifecycle.metrics`,
:mod:`~lifecycle.registration`, :mod:`~lifecycle.endpoint`, :mod:`~lifecycle.evaluation`,
:mod:`~lifecycle.sweep`. Nothing here knows of Prefect, and importing a module imports no SDK.
"""
