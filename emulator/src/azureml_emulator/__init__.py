"""An Azure Machine Learning emulator that the unmodified ``azure-ai-ml`` client drives over HTTPS.

The rooms, from the door inwards:

* :mod:`~azureml_emulator.cli`, :mod:`~azureml_emulator.server`,
  :mod:`~azureml_emulator.environment`: starting it, and what a client must have in its
  environment to find it;
* :mod:`~azureml_emulator.app`: one request from wire to wire: fault, authentication, handler, log;
* :mod:`~azureml_emulator.services`: one module per Azure service, each a table of ``ROUTES`` (what
  it answers) and ``EVENTS`` (what happens to its resources as time passes);
* :mod:`~azureml_emulator.emulator`: what the services share: store, clock, timeline, operations,
  ledger, catalogue, faults.
"""

__version__ = "0.1.0"
