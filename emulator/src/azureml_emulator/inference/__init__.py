"""The container of a deployment: a process that loads one MLflow model and answers with it.

``python -m azureml_emulator.inference REQUEST.json`` is what
:class:`~azureml_emulator.scorers.process.ProcessScorer` starts; :mod:`.request` says what it is
told, :mod:`.server` what it answers. :mod:`.chat_model` is not imported: it is copied into the
models that jobs leave (:mod:`azureml_emulator.packaging`).
"""
