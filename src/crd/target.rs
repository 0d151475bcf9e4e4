//! What a session reaches: a managed node, by id or as a container of an ECS task.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{limit, rule};

/// The managed node that SSM reaches. Exactly one of its fields is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.id) != has(self.ecsTask)",
    "set exactly one of 'id' and 'ecsTask'",
))]
pub struct Target {
    /// What StartSession takes: `i-…`, `mi-…` or `ecs:cluster_task_runtime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limit::TARGET_CHARS_MAX))]
    #[x_kube(validation = rule::TARGET_ID)]
    pub id: Option<String>,
    /// A container of an ECS task; builds the `ecs:` form of the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecs_task: Option<EcsTask>,
}

/// A container of an ECS task that runs with ECS Exec enabled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "size(self.cluster) + size(self.taskId) + size(self.runtimeId) <= 394",
    "shorten the names: 'ecs:<cluster>_<taskId>_<runtimeId>' can have 400 characters at most",
))]
pub struct EcsTask {
    /// Name of the ECS cluster.
    #[schemars(length(min = 1, max = limit::ECS_CLUSTER_CHARS_MAX))]
    #[x_kube(validation = (
        "self.matches('^[A-Za-z0-9_-]+$')",
        "use the name of the cluster, not its ARN: letters, digits, '_' and '-'",
    ))]
    pub cluster: String,
    /// Id of the task: the last part of its ARN.
    #[schemars(length(min = 1, max = limit::ECS_TASK_ID_CHARS_MAX))]
    #[x_kube(validation = (
        "self.matches('^[A-Za-z0-9-]+$')",
        "use the id of the task, not its ARN: the letters and digits after the last slash",
    ))]
    pub task_id: String,
    /// Runtime id of the container, as DescribeTasks gives it.
    #[schemars(length(min = 1, max = limit::ECS_RUNTIME_ID_CHARS_MAX))]
    #[x_kube(validation = (
        "self.matches('^[A-Za-z0-9-]+$')",
        "use the container's runtimeId as DescribeTasks gives it: letters, digits and '-'",
    ))]
    pub runtime_id: String,
}

impl Target {
    /// The string that StartSession takes; `None` when neither field is set, which admission refuses.
    #[must_use]
    pub fn to_aws(&self) -> Option<String> {
        match (&self.id, &self.ecs_task) {
            (Some(id), _) => Some(id.clone()),
            (None, Some(task)) => Some(format!(
                "ecs:{}_{}_{}",
                task.cluster, task.task_id, task.runtime_id
            )),
            (None, None) => None,
        }
    }
}
