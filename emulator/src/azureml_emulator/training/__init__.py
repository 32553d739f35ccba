"""Real training: what runs in the container of a step of ``chat_completion_pipeline``.

``python -m azureml_emulator.training REQUEST.json`` does one step, in the order of the pipeline:

* :mod:`.validation` looks at every parameter and every row of the data;
* :mod:`.model_import` puts the base model's Hugging Face folder in place;
* :mod:`.preprocess` turns conversations into tokens, with the answers marked;
* :mod:`.finetune` trains, with LoRA or all weights, and saves the best model;
* :mod:`.convert` makes an MLflow model of it.

The executor that starts it reads :mod:`.request` to know what to write and what comes back. Only
the last three import torch or transformers, and only in the container.
"""
