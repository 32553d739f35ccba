"""Microsoft's tutorial: fine-tune with the chat-completion component of the azureml registry.

The nine steps of ``chat-completion.ipynb`` (Azure/azureml-examples, sdk/python/foundation-models/
system/finetune/chat-completion), written out as a script: its calls and arguments in its order,
its names, its broad excepts. It knows nothing of an emulator. The placeholders are filled: the
workspace with the emulator's, the cluster's size with one that the tutorial's catalogue had. What
a notebook shows by ending a cell on it is printed here.
"""

# It is kept as it was published, bare excepts and all.
# ruff: noqa

# Step 1: who we are, and where we work.
from azure.ai.ml import MLClient
from azure.identity import (
    DefaultAzureCredential,
    InteractiveBrowserCredential,
)
from azure.ai.ml.entities import AmlCompute
import time

try:
    credential = DefaultAzureCredential()
    credential.get_token("https://management.azure.com/.default")
except Exception as ex:
    credential = InteractiveBrowserCredential()

try:
    workspace_ml_client = MLClient.from_config(credential=credential)
except:
    workspace_ml_client = MLClient(
        credential,
        subscription_id="00000000-0000-4000-8000-000000000001",
        resource_group_name="emulator",
        workspace_name="emulator",
    )

# The foundation models and the pipelines that fine-tune them are in a registry.
registry_ml_client = MLClient(credential, registry_name="azureml")
experiment_name = "chat_completion_Phi-3-mini-4k-instruct"

# Makes names and versions unique.
timestamp = str(int(time.time()))

# Step 2: the foundation model.
model_name = "Phi-3-mini-4k-instruct"
foundation_model = registry_ml_client.models.get(model_name, label="latest")
print(
    "\n\nFoundation model {0}, version {1}, id {2}".format(
        foundation_model.name, foundation_model.version, foundation_model.id
    )
)

# Step 3: the cluster to train on.
import ast

if "finetune_compute_allow_list" in foundation_model.tags:
    # The tag holds a Python list as text.
    computes_allow_list = ast.literal_eval(foundation_model.tags["finetune_compute_allow_list"])
    print(f"The model can be fine-tuned on {computes_allow_list}")
else:
    computes_allow_list = None
    print("The model has no tag `finetune_compute_allow_list`")

compute_cluster_size = "Standard_ND40rs_v2"
compute_cluster = "gpu-cluster-big"

try:
    compute = workspace_ml_client.compute.get(compute_cluster)
    print("The cluster is there already and is used again")
except Exception as ex:
    print(f"There is no such cluster: making one of {compute_cluster_size}")
    try:
        print("First attempt: dedicated nodes")
        compute = AmlCompute(
            name=compute_cluster,
            size=compute_cluster_size,
            tier="Dedicated",
            max_instances=2,
        )
        workspace_ml_client.compute.begin_create_or_update(compute).wait()
    except Exception as e:
        try:
            print("Second attempt: low-priority nodes, which may be taken away in mid-job")
            compute = AmlCompute(
                name=compute_cluster,
                size=compute_cluster_size,
                tier="LowPriority",
                max_instances=2,
            )
            workspace_ml_client.compute.begin_create_or_update(compute).wait()
        except Exception as e:
            print(e)
            raise ValueError(f"The workspace cannot have the size {compute_cluster_size}")

compute = workspace_ml_client.compute.get(compute_cluster)
if compute.provisioning_state.lower() == "failed":
    raise ValueError(f"The cluster '{compute_cluster}' is in the state failed: make another")

if computes_allow_list is not None:
    computes_allow_list_lower_case = [x.lower() for x in computes_allow_list]
    if compute.size.lower() not in computes_allow_list_lower_case:
        raise ValueError(f"The model cannot be fine-tuned on {compute.size}")
else:
    # Sizes with K80 GPUs.
    unsupported_gpu_vm_list = [
        "standard_nc6",
        "standard_nc12",
        "standard_nc24",
        "standard_nc24r",
    ]
    if compute.size.lower() in unsupported_gpu_vm_list:
        raise ValueError(f"Nothing can be fine-tuned on {compute.size}")

# How many GPUs one node has: the job uses so many.
gpu_count_found = False
workspace_compute_sku_list = workspace_ml_client.compute.list_sizes()
available_sku_sizes = []
for compute_sku in workspace_compute_sku_list:
    available_sku_sizes.append(compute_sku.name)
    if compute_sku.name.lower() == compute.size.lower():
        gpus_per_node = compute_sku.gpus
        gpu_count_found = True
if gpu_count_found:
    print(f"A node of {compute.size} has {gpus_per_node} GPUs")
else:
    raise ValueError(
        f"{compute.size} is not among the region's sizes {available_sku_sizes}: "
        f"look at the cluster {compute_cluster}"
    )

# Step 4: the data, of which five percent are enough here.
import os

exit_status = os.system(
    "python ./download-dataset.py --dataset HuggingFaceH4/ultrachat_200k "
    "--download_dir ultrachat_200k_dataset --dataset_split_pc 5"
)
if exit_status != 0:
    raise Exception("The data set could not be downloaded")

import pandas as pd

pd.set_option("display.max_colwidth", 0)  # 0: show all of it
df = pd.read_json("./ultrachat_200k_dataset/train_sft.jsonl", lines=True)
print(df.head())

# Step 5: the job.
training_parameters = dict(
    num_train_epochs=3,
    per_device_train_batch_size=1,
    per_device_eval_batch_size=1,
    learning_rate=5e-6,
    lr_scheduler_type="cosine",
)
optimization_parameters = dict(
    apply_lora="true",
    apply_deepspeed="true",
    deepspeed_stage=2,
)
finetune_parameters = {**training_parameters, **optimization_parameters}

# What the model's publisher recommends goes before what was chosen above.
if "model_specific_defaults" in foundation_model.tags:
    print("The model brings defaults of its own, which go before those chosen here")
    finetune_parameters.update(
        ast.literal_eval(foundation_model.tags["model_specific_defaults"])  # a dict as text
    )
print(f"Parameters of the run: {finetune_parameters}")


def get_pipeline_display_name():
    batch_size = (
        int(finetune_parameters.get("per_device_train_batch_size", 1))
        * int(finetune_parameters.get("gradient_accumulation_steps", 1))
        * int(gpus_per_node)
        * int(finetune_parameters.get("num_nodes_finetune", 1))
    )
    scheduler = finetune_parameters.get("lr_scheduler_type", "linear")
    deepspeed = finetune_parameters.get("apply_deepspeed", "false")
    ds_stage = finetune_parameters.get("deepspeed_stage", "2")
    if deepspeed == "true":
        ds_string = f"ds{ds_stage}"
    else:
        ds_string = "nods"
    lora = finetune_parameters.get("apply_lora", "false")
    if lora == "true":
        lora_string = "lora"
    else:
        lora_string = "nolora"
    save_limit = finetune_parameters.get("save_total_limit", -1)
    seq_len = finetune_parameters.get("max_seq_length", -1)
    return (
        model_name
        + "-"
        + "ultrachat"
        + "-"
        + f"bs{batch_size}"
        + "-"
        + f"{scheduler}"
        + "-"
        + ds_string
        + "-"
        + lora_string
        + f"-save_limit{save_limit}"
        + f"-seqlen{seq_len}"
    )


pipeline_display_name = get_pipeline_display_name()
print(f"Display name of the run: {pipeline_display_name}")

from azure.ai.ml.dsl import pipeline
from azure.ai.ml import Input

pipeline_component_func = registry_ml_client.components.get(
    name="chat_completion_pipeline", label="latest"
)


@pipeline(name=pipeline_display_name)
def create_pipeline():
    chat_completion_pipeline = pipeline_component_func(
        mlflow_model_path=foundation_model.id,
        compute_model_import=compute_cluster,
        compute_preprocess=compute_cluster,
        compute_finetune=compute_cluster,
        compute_model_evaluation=compute_cluster,
        train_file_path=Input(type="uri_file", path="./ultrachat_200k_dataset/train_sft.jsonl"),
        test_file_path=Input(type="uri_file", path="./ultrachat_200k_dataset/test_sft.jsonl"),
        number_of_gpu_to_use_finetuning=gpus_per_node,
        **finetune_parameters,
    )
    # The component's output becomes the job's, from which the model is registered.
    return {"trained_model": chat_completion_pipeline.outputs.mlflow_model_folder}


pipeline_object = create_pipeline()

# Take no step's result from an earlier job, and go on after no failed step.
pipeline_object.settings.force_rerun = True
pipeline_object.settings.continue_on_step_failure = False

pipeline_job = workspace_ml_client.jobs.create_or_update(
    pipeline_object, experiment_name=experiment_name
)
workspace_ml_client.jobs.stream(pipeline_job.name)

# Step 6: register the trained model.
from azure.ai.ml.entities import Model
from azure.ai.ml.constants import AssetTypes

print("Outputs of the job: ", workspace_ml_client.jobs.get(pipeline_job.name).outputs)

model_path_from_job = "azureml://jobs/{0}/outputs/{1}".format(pipeline_job.name, "trained_model")

finetuned_model_name = model_name + "-ultrachat-200k"
finetuned_model_name = finetuned_model_name.replace("/", "-")
print("The model is registered from: ", model_path_from_job)
prepare_to_register_model = Model(
    path=model_path_from_job,
    type=AssetTypes.MLFLOW_MODEL,
    name=finetuned_model_name,
    version=timestamp,
    description=model_name + " fine-tuned for chat completion on UltraChat 200k",
)
print("Model to register: \n", prepare_to_register_model)
registered_model = workspace_ml_client.models.create_or_update(prepare_to_register_model)
print("Registered model: \n", registered_model)

# Step 7: deploy it.
from azure.ai.ml.entities import (
    ManagedOnlineEndpoint,
    ManagedOnlineDeployment,
    ProbeSettings,
    OnlineRequestSettings,
)

# An endpoint's name is unique in its region.
online_endpoint_name = "ultrachat-completion-" + timestamp
endpoint = ManagedOnlineEndpoint(
    name=online_endpoint_name,
    description="Endpoint of " + registered_model.name + ", fine-tuned on UltraChat 200k",
    auth_mode="key",
)
workspace_ml_client.begin_create_or_update(endpoint).wait()

instance_type = "STANDARD_NC4AS_T4_V3"

if "inference_compute_allow_list" in foundation_model.tags:
    inference_computes_allow_list = ast.literal_eval(
        foundation_model.tags["inference_compute_allow_list"]
    )
    print(f"The model can be served on {computes_allow_list}")
else:
    inference_computes_allow_list = None
    print("The model has no tag `inference_compute_allow_list`")

if inference_computes_allow_list is not None and instance_type not in inference_computes_allow_list:
    print(f"`instance_type` must be one of {inference_computes_allow_list}")

demo_deployment = ManagedOnlineDeployment(
    name="demo",
    endpoint_name=online_endpoint_name,
    model=registered_model.id,
    instance_type=instance_type,
    instance_count=1,
    liveness_probe=ProbeSettings(initial_delay=600),
    request_settings=OnlineRequestSettings(request_timeout_ms=90000),
)
workspace_ml_client.online_deployments.begin_create_or_update(demo_deployment).wait()
endpoint.traffic = {"demo": 100}
workspace_ml_client.begin_create_or_update(endpoint).result()

# Step 8: ask it something.
test_df = pd.read_json("./ultrachat_200k_dataset/test_gen.jsonl", lines=True)
test_df = test_df.sample(n=1)
test_df.reset_index(drop=True, inplace=True)
print(test_df.head(2))

import json

parameters = {
    "temperature": 0.6,
    "top_p": 0.9,
    "do_sample": True,
    "max_new_tokens": 200,
}
test_json = {
    "input_data": {
        "input_string": [test_df["messages"][0]],
        "parameters": parameters,
    },
    "params": {},
}
with open("./ultrachat_200k_dataset/sample_score.json", "w") as f:
    json.dump(test_json, f)

response = workspace_ml_client.online_endpoints.invoke(
    endpoint_name=online_endpoint_name,
    deployment_name="demo",
    request_file="./ultrachat_200k_dataset/sample_score.json",
)
print("raw response: \n", response, "\n")

# Step 9: an endpoint is billed until it is deleted.
workspace_ml_client.online_endpoints.begin_delete(name=online_endpoint_name).wait()
