//! What a reconcile leaves for the next one in this process. Pure.

use tokio::time::Instant;

use super::plan::Plan;
use crate::controller::context::Memory;

/// What is remembered once this was decided, and before anything of it was written.
#[must_use]
pub fn decided(mut memory: Memory, plan: &Plan, now: Instant) -> Memory {
    memory.trouble = plan.trouble.as_ref().map(|trouble| {
        let before = memory.trouble;
        let before = before.filter(|(reason, _)| *reason == trouble.reason);
        before.unwrap_or((trouble.reason, now))
    });
    // What is known of an end that is reported now is kept until that is written: the write may be overtaken.
    let ended = &plan.mirror.ended;
    let unwritten = |id: &str| ended.iter().any(|ended| ended.session_id == id);
    memory.ending.retain(|id, _| unwritten(id));
    memory.ending.extend(plan.mirror.ending.clone());
    memory.started_with.retain(|id, _| unwritten(id));
    memory.started_with.extend(plan.mirror.started_with.clone());
    memory.leaving = plan.leaving;
    memory.draining = plan.draining;
    memory.held_by.clone_from(&plan.held_by);
    memory.last_word &= plan.last_word;
    memory
}

/// What is remembered once the status was written: only then an end is reported.
#[must_use]
pub fn written(mut memory: Memory, plan: &Plan) -> Memory {
    memory.last_word = plan.last_word;
    memory.finished.clone_from(&plan.mirror.finished);
    memory.ending.clone_from(&plan.mirror.ending);
    memory.started_with.clone_from(&plan.mirror.started_with);
    memory
}
