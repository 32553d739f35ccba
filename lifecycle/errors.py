"""Every error that a run can end with, and what to do about each.

::

    FinetuneError
    ├── Refused                       nothing was created, nothing is billed
    │   ├── ConfigurationError        a value in the configuration is wrong
    │   ├── CredentialError           no credential gave a token
    │   ├── WorkspaceNotConfigured    no workspace is named anywhere
    │   ├── WorkspaceNotFound         the workspace named is not there
    │   ├── ModelNotFound             the registry has no such model
    │   ├── ModelRetired              the model is archived or retired
    │   ├── ComponentNotFound         the registry has no such component
    │   ├── ComponentInputError       a value that the component would reject
    │   ├── ComputeNotUsable          the cluster cannot take the job
    │   ├── SizeNotAllowed            the model does not allow this VM size
    │   ├── SizeUnknown               the region has no such VM size
    │   └── DatasetError              the data is missing or unreadable
    ├── ServiceError                  Azure answered with an error, or not at all
    ├── JobError                      the training job did not complete
    │   ├── JobFailed
    │   ├── JobCanceled
    │   ├── JobNotResponding
    │   └── JobDeadlineExceeded
    ├── RegistrationError             the trained model could not be registered
    ├── EndpointError                 the endpoint or its deployment did not come up
    │   ├── EndpointUnseen            Azure agreed to make it, and does not find it
    │   └── EndpointTaken             the name is another owner's
    ├── ScoringError                  the endpoint answered, but with no usable reply
    └── StillBilling                  something that costs money may be left

A step raises one of these and nothing else; what the Azure SDK raises is translated at the
edge by :func:`lifecycle.azure.translated`. The retry policy reads ``transient`` alone. The
command line turns them into exit codes: 2 where nothing was created, 3 for
:class:`StillBilling`, 1 for the rest.
"""

from __future__ import annotations

from typing import Any, ClassVar


class FinetuneError(Exception):
    """Base of every error of ours.

    Args:
        message: What went wrong and where, in one sentence.
        where: The parameter path (``compute.size``) or resource at fault, if there is one.
        remedy: What the person at the keyboard can do; the class's own where not given.
        transient: Whether the same call may succeed if it is made again.
    """

    code: ClassVar[str] = "Error"
    default_remedy: ClassVar[str] = "Read the message and the log above it."

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        remedy: str | None = None,
        transient: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy or self.default_remedy
        self.transient = transient

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.message} {self.remedy}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.__dict__.copy())

    def as_dict(self) -> dict[str, Any]:
        """The error as JSON: ``code``, ``message``, ``where``, ``remedy``, ``transient``."""
        return {
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "remedy": self.remedy,
            "transient": self.transient,
        }


def _rebuild(cls: type[FinetuneError], state: dict[str, Any]) -> FinetuneError:
    error = cls.__new__(cls)
    Exception.__init__(error, state["message"])
    error.__dict__.update(state)
    return error


class Refused(FinetuneError):
    """Raised when a run cannot start: nothing was created and nothing is billed."""

    code = "Refused"


class ConfigurationError(Refused):
    """Raised when a value of the configuration is unknown, of the wrong type or out of bounds."""

    code = "ConfigurationError"
    default_remedy = "Correct the value and run again."


class CredentialError(Refused):
    """Raised when no credential gives a token within the deadline."""

    code = "CredentialError"
    default_remedy = (
        "Sign in with `az login`, or set a service principal, workload identity or managed "
        "identity as docs/steps/auth.md describes."
    )


class WorkspaceNotConfigured(Refused):
    """Raised when neither parameters, environment nor config.json name a workspace."""

    code = "WorkspaceNotConfigured"
    default_remedy = (
        "Set workspace.subscription_id, workspace.resource_group and workspace.name, or the "
        "environment variables AZUREML_ARM_SUBSCRIPTION, AZUREML_ARM_RESOURCEGROUP and "
        "AZUREML_ARM_WORKSPACE_NAME, or download config.json from Azure ML studio."
    )


class WorkspaceNotFound(Refused):
    """Raised when the workspace named does not exist or may not be read with this credential."""

    code = "WorkspaceNotFound"
    default_remedy = "Check the three names, and that your identity may read the workspace."


class ModelNotFound(Refused):
    """Raised when the registry has no such model or no such version of it."""

    code = "ModelNotFound"
    default_remedy = "Check model.name and model.version against the registry's catalogue."


class ModelRetired(Refused):
    """Raised when the model is archived or past its fine-tuning retirement date."""

    code = "ModelRetired"
    default_remedy = "Choose a model that is still served, or set model.allow_retired to true."


class ComponentNotFound(Refused):
    """Raised when the registry has no such pipeline component."""

    code = "ComponentNotFound"
    default_remedy = "Check training.component and training.component_version."


class ComponentInputError(Refused):
    """Raised when a training parameter is no input of the component, or out of its bounds."""

    code = "ComponentInputError"
    default_remedy = "Correct the parameter, or leave it out."


class ComputeNotUsable(Refused):
    """Raised when the cluster failed, or differs from what was asked for."""

    code = "ComputeNotUsable"
    default_remedy = "Name another cluster, or change compute.* to what the cluster is."


class SizeNotAllowed(Refused):
    """Raised when the model does not allow the VM size for this use, or it has no GPU."""

    code = "SizeNotAllowed"
    default_remedy = "Choose one of the sizes that the model allows."


class SizeUnknown(Refused):
    """Raised when the region does not offer the VM size."""

    code = "SizeUnknown"
    default_remedy = "Choose a size that the region offers."


class DatasetError(Refused):
    """Raised when the data set is missing, unreadable, empty, or not made of conversations."""

    code = "DatasetError"
    default_remedy = "Check dataset.path, dataset.revision and the splits named."


class ServiceError(FinetuneError):
    """Raised when Azure answers with an error, or does not answer.

    Args:
        status: The HTTP status, or None where there was no answer.
        service_code: Azure's own ``error.code``, or None.
        permanent: Whether Azure will say the same whenever it is asked, until a person changes
            something: a lock, a policy. It is not waited for, not even by a deletion.
        gone: Whether Azure says, in its own words, that this very resource is not there; a proxy's
            404, or that of its resource group, is no such word.
        retry_after: The seconds that Azure asks to wait; None where it asks for nothing.
    """

    code = "ServiceError"
    default_remedy = "Azure's own message says more; try again if it was a passing fault."

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        service_code: str | None = None,
        where: str | None = None,
        remedy: str | None = None,
        transient: bool = False,
        permanent: bool = False,
        gone: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, where=where, remedy=remedy, transient=transient)
        self.status = status
        self.service_code = service_code
        self.permanent = permanent
        self.gone = gone
        self.retry_after = retry_after


class JobError(FinetuneError):
    """Raised when the training job ends in any state but Completed."""

    code = "JobError"
    default_remedy = "Open the job in Studio; the log's tail is above."


class JobFailed(JobError):
    """Raised when the job or one of its steps failed."""

    code = "JobFailed"


class JobCanceled(JobError):
    """Raised when the job was canceled, by a person, by quota or by pre-emption."""

    code = "JobCanceled"
    default_remedy = "Start the run again if the cancel was not meant."


class JobNotResponding(JobError):
    """Raised when Azure lost touch with the job, paused it, or reports a state unknown to us."""

    code = "JobNotResponding"
    default_remedy = "Look at the job in Studio before you start another: it may still be running."


class JobDeadlineExceeded(JobError):
    """Raised when the job waits in the queue, or runs, for longer than the deadline set for it."""

    code = "JobDeadlineExceeded"
    default_remedy = "Check the quota and the nodes in use, or raise the deadline in job.*."


class RegistrationError(FinetuneError):
    """Raised when the trained model cannot be registered."""

    code = "RegistrationError"
    default_remedy = "The job's output is kept: run again, and the finished job is adopted."


class EndpointError(FinetuneError):
    """Raised when the endpoint or its deployment fails to come up."""

    code = "EndpointError"
    default_remedy = "Read the deployment's log; the failed deployment has been deleted."


class EndpointUnseen(EndpointError):
    """Raised when Azure agreed to make an endpoint or a deployment, and does not find it.

    It may yet: whoever cleans up must not believe the next 404.
    """

    code = "EndpointUnseen"
    default_remedy = "Look whether somebody has deleted it, and run again."


class EndpointTaken(EndpointError):
    """Raised when the endpoint's name is another owner's: it is not ours to change or delete."""

    code = "EndpointTaken"
    default_remedy = "Choose another endpoint.name_prefix."


class ScoringError(FinetuneError):
    """Raised when the endpoint answers with an error status, or with no usable reply.

    Args:
        status: The HTTP status of the answer, or None where there was none.
    """

    code = "ScoringError"
    default_remedy = "Read the deployment's log for what the model server said."

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        where: str | None = None,
        remedy: str | None = None,
        transient: bool = False,
    ) -> None:
        super().__init__(message, where=where, remedy=remedy, transient=transient)
        self.status = status


class StillBilling(FinetuneError):
    """Raised when a billed resource could not be confirmed gone; ``resources`` names each."""

    code = "StillBilling"
    default_remedy = "Run `finetune sweep --apply`, or delete what is named in Azure ML studio."

    def __init__(
        self,
        message: str,
        *,
        resources: list[str],
        where: str | None = None,
        remedy: str | None = None,
        transient: bool = False,
    ) -> None:
        super().__init__(message, where=where, remedy=remedy, transient=transient)
        self.resources = resources
