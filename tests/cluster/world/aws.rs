//! AWS: what goes wrong there, and what it has of sessions.

use ssm_session_operator::simulator::{Fault, Operation, Overview, Status};

use super::World;

impl World {
    /// Lets something go wrong.
    pub fn inject(&self, fault: Fault) {
        self.simulator.inject(fault).expect("a fault");
    }

    /// Fails every call of an operation from now on.
    pub fn fail(&self, operation: Operation, code: &str) {
        self.inject(Fault::Fail {
            operation,
            calls: u32::MAX,
            code: code.to_owned(),
        });
    }

    /// AWS works again.
    pub fn mend(&self) {
        self.inject(Fault::Clear);
    }

    /// Waits until an operation was called so many more times.
    pub async fn wait_calls(&self, operation: Operation, more: u64) {
        let enough = self.simulator.calls(operation) + more;
        self.wait_aws(&format!("calls of {operation:?}"), |aws| {
            let calls = aws.calls.get(&operation);
            calls.is_some_and(|calls| calls.total >= enough)
        })
        .await;
    }

    /// Waits until AWS is as it should be.
    pub async fn wait_aws(&self, what: &str, condition: impl FnMut(&Overview) -> bool) -> Overview {
        match self.simulator.wait_for(what, condition).await {
            Ok(overview) => overview,
            Err(error) => panic!("{error}\nlogs: {}", self.log_ends()),
        }
    }

    /// Sessions that AWS has not ended.
    pub fn live_sessions(&self) -> Vec<String> {
        let ended = |status| matches!(status, Status::Terminated | Status::Failed);
        let sessions = self.simulator.sessions().into_iter();
        sessions
            .filter(|session| !ended(session.status))
            .map(|session| session.id)
            .collect()
    }
}
