//! What a session reaches: a managed node, by id or as a container of an ECS task.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The managed node that SSM reaches. Exactly one of its fields is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// What StartSession takes: `i-…`, `mi-…` or `ecs:cluster_task_runtime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// A container of an ECS task; builds the `ecs:` form of the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecs_task: Option<EcsTask>,
}

/// A container of an ECS task that runs with ECS Exec enabled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EcsTask {
    /// Name of the ECS cluster.
    pub cluster: String,
    /// Id of the task: the last part of its ARN.
    pub task_id: String,
    /// Runtime id of the container, as DescribeTasks gives it.
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
