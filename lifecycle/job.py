"""Steps 6 and 7, *job*: submit the training pipeline once, follow it to its true end, cancel it.

docs/steps/job.md tells how a run meets its own job again. In short: a job's name is made from
the flow run, so whoever submits looks first, and never submits beside a job that may be alive.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lifecycle import clients
from lifecycle.azure import UNSEEN_SECONDS, find, translated
from lifecycle.clients import WorkspaceRef
from lifecycle.errors import ServiceError, StillBilling
from lifecycle.logs import ENDED, LogLine, as_status
from lifecycle.names import base32_id
from lifecycle.patience import within
from lifecycle.plain import Result, Spec
from lifecycle.waiting import SYSTEM_CLOCK, Clock, growing, reporting, wait_until

if TYPE_CHECKING:
    from azure.ai.ml.entities import Job, PipelineJob

    from lifecycle.component import TrainingSpec
    from lifecycle.compute import ComputeSpec
    from lifecycle.preflight import Plan

OWNER_TAG = "finetune-owner"
BASE_MODEL_TAG = "finetune-base-model"
TRAINED_MODEL_OUTPUT = "mlflow_model_folder"
JOB_OUTPUT = "trained_model"
CANCEL_SECONDS = 600.0
GAP = 2
"""So many jobs of a run, one after the other, may have been deleted, and the next be alive."""
UNSUCCESSFUL = frozenset({"Failed", "Canceled"})
JOB_LIFE = timedelta(days=21)

# What azure-core may pause in one try to cancel.
_ONE_TRY_SECONDS = 30.0
_JOB_LIFE_MINUTES = JOB_LIFE // timedelta(minutes=1)


class JobSpec(Spec):
    """How long the training job may wait, and how long it may run."""

    queue_deadline_minutes: float = Field(
        default=240,
        ge=0,
        le=_JOB_LIFE_MINUTES,
        title="Queue deadline",
        description=(
            "Minutes for which no step may be running, because nodes are wanting or an image is "
            "built; the job is then canceled. 0: no deadline."
        ),
        examples=[240],
    )
    run_deadline_minutes: float = Field(
        default=1440,
        ge=0,
        le=_JOB_LIFE_MINUTES,
        title="Run deadline",
        description="Minutes for which steps may run, waiting not counted. 0: no deadline.",
        examples=[1440],
    )


class JobRef(Result):
    """A job that was submitted or met again."""

    name: str = Field(title="Job", description="The job's name in Azure.", examples=["ft-…-a1"])
    attempt: int = Field(ge=1, title="Attempt", description="Which job of its flow run it is.")
    adopted: bool = Field(title="Adopted", description="Whether it was there already.")
    status: str = Field(title="Status", description="When it was looked at.", examples=["Running"])
    display_name: str = Field(title="Display name", description="Its name for people.")
    studio_url: str | None = Field(title="Studio", description="Its page in Azure ML studio.")
    owner: str = Field(title="Owner", description="Id of the flow run that submitted it.")
    base_model: str = Field(title="Base model", description="Asset id of the model it trains.")


class JobResult(Result):
    """A job that completed."""

    name: str = Field(title="Job", description="The job's name in Azure.", examples=["ft-…-a1"])
    status: str = Field(title="Status", description="Its true end.", examples=["Completed"])
    attempts: int = Field(ge=1, title="Attempts", description="Jobs that its flow run submitted.")
    display_name: str = Field(title="Display name", description="Its name for people.")
    studio_url: str | None = Field(title="Studio", description="Its page in Azure ML studio.")
    owner: str = Field(title="Owner", description="Id of the flow run that submitted it.")
    base_model: str = Field(title="Base model", description="Asset id of the model it trains.")
    created_at: datetime = Field(title="Created at", description="When Azure took it, UTC.")
    seconds: float = Field(
        ge=0, title="Seconds", description="From its start to its end, or as long as we watched it."
    )


class JobStep(Result):
    """A step of the job that does work, as its run history gives it."""

    name: str = Field(
        title="Step", description="Its display name.", examples=["chat_completion_finetune"]
    )
    status: str = Field(title="Status", description="As Azure says it.", examples=["Running"])
    began_at: datetime | None = Field(title="Began at", description="When it began to run, UTC.")
    ended_at: datetime | None = Field(title="Ended at", description="When it ended, UTC.")


def display_name(
    model_name: str,
    short_name: str,
    parameters: Mapping[str, str | int | float],
    *,
    gpus: int,
    nodes: int,
) -> str:
    """Name the job for people, as the tutorial does.

    ``<model>-<data set>-bs<batch>-<scheduler>-<ds<stage>|nods>-<lora|nolora>-save_limit<n>-
    seqlen<n>``, where limits that are not set are −1.

    Args:
        model_name: The foundation model.
        short_name: The data set's short name.
        parameters: The component's parameters, merged and checked.
        gpus: GPUs of a node, at least 1.
        nodes: Nodes, at least 1.
    """
    deepspeed = str(parameters.get("apply_deepspeed", "false")) == "true"
    lora = str(parameters.get("apply_lora", "false")) == "true"
    parts = [
        model_name,
        short_name,
        f"bs{effective_batch(parameters, gpus=gpus, nodes=nodes)}",
        str(parameters.get("lr_scheduler_type", "linear")),
        f"ds{parameters.get('deepspeed_stage', 2)}" if deepspeed else "nods",
        "lora" if lora else "nolora",
        f"save_limit{parameters.get('save_total_limit', -1)}",
        f"seqlen{parameters.get('max_seq_length', -1)}",
    ]
    return "-".join(parts)


def effective_batch(parameters: Mapping[str, str | int | float], *, gpus: int, nodes: int) -> int:
    """Return how many rows one step of the optimiser takes: per device × accumulation × devices."""
    per_device = int(parameters.get("per_device_train_batch_size", 1))
    accumulation = int(parameters.get("gradient_accumulation_steps", 1))
    return per_device * accumulation * gpus * nodes


def job_name(flow_run_id: str, attempt: int) -> str:
    """Name one attempt of one flow run: ``ft-<id in base32>-a<attempt>``.

    Raises:
        ValueError: The id is no UUID, or the attempt is below 1.
    """
    if attempt < 1:
        raise ValueError(f"An attempt is counted from 1, not {attempt}.")
    return f"ft-{base32_id(flow_run_id)}-a{attempt}"


def compute_inputs(compute: ComputeSpec, *, size_name: str, gpus: int) -> dict[str, str | int]:
    """Return the component's inputs that say where each step runs, and on how many GPUs.

    Serverless compute has no cluster to name; each step is given the VM size instead.
    """
    wired: dict[str, str | int] = {
        f"compute_{step}": compute.name or "serverless"
        for step in ("model_import", "preprocess", "finetune")
    }
    if compute.name is None:
        wired |= {
            f"instance_type_{step}": size_name
            for step in ("model_import", "preprocess", "finetune")
        }
    return {
        **wired,
        "number_of_gpu_to_use_finetuning": gpus,
        "num_nodes_finetune": compute.nodes,
    }


def submit_job(ref: WorkspaceRef, plan: Plan, training: TrainingSpec, flow_run_id: str) -> JobRef:
    """Submit the training pipeline, or adopt the job that this flow run has already.

    The newest attempt is adopted unless it Failed or was Canceled: also one that is
    NotResponding or Paused, which may still be running, and which :func:`stream_job` reports.

    Args:
        ref: The workspace.
        plan: What preflight checked.
        training: The experiment to file it under.
        flow_run_id: The flow run's UUID, the same in each of its retries.

    Raises:
        ServiceError: Azure refused it, or did not answer and has no such job.
    """
    newest = find_job(ref, flow_run_id)
    if newest is not None and newest.status not in UNSUCCESSFUL:
        return newest
    attempt = 1 if newest is None else newest.attempt + 1
    name = job_name(flow_run_id, attempt)
    try:
        with translated(f"submitting the job {name}", where=name):
            job = _pipeline_job(ref, plan, training, name, flow_run_id)
            submitted = clients.ml_client(ref).jobs.create_or_update(job)
    except ServiceError:
        # The answer is lost, or another process of this run was first: the job may be there.
        found = _find(ref, name)
        if found is None:
            raise
        return _job_ref(found, attempt, adopted=True)
    return _job_ref(submitted, attempt, adopted=False)


def find_job(ref: WorkspaceRef, flow_run_id: str) -> JobRef | None:
    """Return the newest job of this flow run, or None.

    Somebody may have deleted earlier ones: it is sought beyond :data:`GAP` that are missing.

    Raises:
        ServiceError: Azure did not answer, or with an error.
    """
    newest: JobRef | None = None
    for attempt in itertools.count(1):
        found = _find(ref, job_name(flow_run_id, attempt))
        if found is not None:
            newest = _job_ref(found, attempt, adopted=True)
        elif attempt - (newest.attempt if newest else 0) > GAP:
            break
    return newest


def stream_job(
    ref: WorkspaceRef,
    job: JobRef,
    spec: JobSpec,
    emit: Callable[[LogLine], None],
    clock: Clock = SYSTEM_CLOCK,
    *,
    watch: Callable[[list[JobStep]], None] = lambda steps: None,
) -> JobResult:
    """Follow the job and its steps to the end, and say what the end was.

    Each line of their logs is emitted once, as it appears; so is each change of status, and a
    line a minute when nothing else is. The job itself says whether it lives and how it ended: a
    lost connection, an expired token or an error of the service is waited out for half an hour.
    The run history only informs: where it cannot be read, a warning says so.

    Args:
        ref: The workspace.
        job: What :func:`submit_job` returned.
        spec: The deadlines. They count from the job's beginning, whoever followed it before, as
            far as Azure's times tell; docs/steps/job.md.
        emit: Called with each line.
        clock: Whose time passes.
        watch: Called after each look with the steps that do the work, as they stand.

    Returns:
        The job, Completed.

    Raises:
        JobFailed: It, or a step of it, failed. Names the step, its last lines, and Studio.
        JobCanceled: It was canceled.
        JobNotResponding: It is NotResponding, Paused, or in a state unknown to us, and stays so.
        JobDeadlineExceeded: It waited or ran for too long, and has been canceled.
        StillBilling: The same, and the cancel could not be confirmed.
        ServiceError: Azure could not be asked for too long. The job goes on.
    """
    from lifecycle.following import JobFollower

    return JobFollower(ref, job, spec, emit, watch, clock).run()


def cancel_job(
    ref: WorkspaceRef,
    name: str,
    *,
    deadline_seconds: float = CANCEL_SECONDS,
    clock: Clock = SYSTEM_CLOCK,
) -> str:
    """Cancel the job and wait until it has ended; a job that has ended is left alone.

    The cancel is sent at once. Azure refuses one while a job is Finalizing, and answers 409 or
    5xx when busy: it is then sent again until the deadline. A job that is not found is believed
    not to be there after :data:`~lifecycle.azure.UNSEEN_SECONDS`.

    Args:
        ref: The workspace.
        name: The job's name.
        deadline_seconds: How long Azure may take.
        clock: Whose time passes.

    Returns:
        How it ended: Canceled, or Completed or Failed where it was quicker.

    Raises:
        StillBilling: It was still live at the deadline, or Azure refused until then.
        ServiceError: Azure has no such job, or refuses for good.
    """
    attempt = _Cancel(ref, name, clock)
    look = reporting(attempt.look, f"canceling the job {name}", clock, why=attempt.why)
    status = wait_until(look, every=growing(0.5, 10.0), deadline=deadline_seconds, clock=clock)
    if status is None:
        raise StillBilling(
            f"The job {name} was asked to stop, and is still {attempt.status} after "
            f"{deadline_seconds:g} s.",
            resources=[f"jobs/{name}"],
            remedy="Cancel it in Azure ML studio.",
        ) from attempt.refusal
    return status


def status_of(job: Job) -> str:
    """Return a job's status as Azure spells it; the SDK gives an enum for those that it knows."""
    return as_status(getattr(job.status, "value", job.status)) or "Unknown"


class _Cancel:
    """Sends the cancel until it is accepted, and looks until the job has ended."""

    def __init__(self, ref: WorkspaceRef, name: str, clock: Clock) -> None:
        self.status = "live, as far as is known,"
        self.refusal: ServiceError | None = None
        self._ref = ref
        self._name = name
        self._is_accepted = False
        self._clock = clock
        self._unseen_until = clock.monotonic() + UNSEEN_SECONDS

    def look(self) -> str | None:
        try:
            doing = f"canceling the job {self._name}"
            with within(_ONE_TRY_SECONDS, self._clock), translated(doing, where=self._name):
                jobs = clients.ml_client(self._ref).jobs
                self.status = status_of(jobs.get(self._name))
                if self.status in ENDED:
                    return self.status
                if not self._is_accepted:
                    # Without the SDK's own waiting, which would leave a thread behind.
                    jobs.begin_cancel(self._name, polling=False)
                    self._is_accepted = True
        except ServiceError as error:
            is_gone = error.gone and self._clock.monotonic() >= self._unseen_until
            if error.permanent or is_gone:
                raise
            # 400: it is Finalizing. 401: the token has just expired. 403: ARM's caches.
            self.refusal = error
        return None

    def why(self) -> str:
        """Say what keeps it from ending."""
        return self.refusal.message if self.refusal else f"It is {self.status}."


def _pipeline_job(
    ref: WorkspaceRef, plan: Plan, training: TrainingSpec, name: str, flow_run_id: str
) -> PipelineJob:
    from azure.ai.ml import Input, dsl

    component: Any = clients.registry_client(ref).components.get(
        plan.component.name, version=plan.component.version
    )
    inputs = {
        **plan.parameters.values,
        **compute_inputs(plan.compute, size_name=plan.size.name, gpus=plan.size.gpus),
        plan.model_input: plan.model.id,
        **{
            input_name: Input(type="uri_file", path=file.path)
            for input_name, file in plan.data_inputs.items()
        },
    }

    def fine_tune() -> dict[str, Any]:
        # Studio and the logs call the step by this variable's name.
        chat_completion_pipeline = component(**inputs)
        return {JOB_OUTPUT: chat_completion_pipeline.outputs[TRAINED_MODEL_OUTPUT]}

    job: PipelineJob = dsl.pipeline(display_name=plan.display_name)(fine_tune)()
    job.name = name
    job.experiment_name = training.experiment_name
    job.tags = {OWNER_TAG: flow_run_id, BASE_MODEL_TAG: plan.model.id}
    job.settings.force_rerun = True
    job.settings.continue_on_step_failure = False
    return job


def _find(ref: WorkspaceRef, name: str) -> Job | None:
    return find(f"looking for the job {name}", name, lambda: clients.ml_client(ref).jobs.get(name))


def _job_ref(job: Job, attempt: int, *, adopted: bool) -> JobRef:
    tags = job.tags or {}
    return JobRef(
        name=str(job.name),
        attempt=attempt,
        adopted=adopted,
        status=status_of(job),
        display_name=str(job.display_name),
        studio_url=job.studio_url,
        owner=tags.get(OWNER_TAG, ""),
        base_model=tags.get(BASE_MODEL_TAG, ""),
    )
