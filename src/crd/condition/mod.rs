//! The conditions of an `SsmSession`: types and reasons as closed enums, and the set that goes into the status.
//!
//! The status of a condition follows from its reason, so that no pair can be said that the table does not hold:
//!
//! | Type | True | False |
//! |---|---|---|
//! | `Ready`: the declared state is reached | `Available` | `Progressing`, `Degraded`, `Failed`, `Deleting`, `Draining`, `HeldByAnother` |
//! | `Reconciling`: abnormal, absent when not true | `Resolving`, `Starting`, `Retrying`, `Retargeting` | |
//! | `Stalled`: abnormal, absent when not true | `AccessDenied`, `ClassNotFound`, `ServiceConflict`, `InvalidDocument`, `InvalidRequest`, `UnsupportedSessionType` | |
//! | `Available`: a client can dial now | `Serving` | `NoRelay`, `NoCapacity`, `NoSession` |
//! | `TargetConnected` | `Connected` | `TargetNotConnected` |
//! | `AwsReachable` | `Reachable` | `Throttled`, `AccessDenied`, `CredentialsUnavailable`, `AwsUnavailable` |
//! | `DestinationReachable` | `Dialled` | `Refused` |
//!
//! What nobody knows yet is absent, never `Unknown`. The same state gives the same bytes: types have a fixed order,
//! and a transition time moves only when the status of its condition does.

mod reason;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as ApiCondition, Time};

pub use reason::{
    AvailableReason, AwsReachableReason, DestinationReachableReason, ReadyReason,
    ReconcilingReason, StalledReason, TargetConnectedReason,
};

use super::text::cut;

/// One condition with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// The declared state is reached, or why it is not.
    Ready(ReadyReason),
    /// Work is under way.
    Reconciling(ReconcilingReason),
    /// Nothing goes on until somebody changes something.
    Stalled(StalledReason),
    /// A client can dial now, or why it can't.
    Available(AvailableReason),
    /// The target is connected to Session Manager, or is not.
    TargetConnected(TargetConnectedReason),
    /// AWS answers us, or why it does not.
    AwsReachable(AwsReachableReason),
    /// The agent reached the destination at its last dial, or did not.
    DestinationReachable(DestinationReachableReason),
}

/// Writes the closed enum of the types, in the order in which a status lists them.
macro_rules! types {
    ($($type:ident,)+) => {
        /// The types, in the order in which a status lists them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ConditionType {
            $(#[doc = concat!("See [`Condition::", stringify!($type), "`].")] $type,)+
        }

        impl ConditionType {
            /// All of them, in their order.
            pub const ALL: &'static [Self] = &[$(Self::$type,)+];

            /// As the status spells it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$type => stringify!($type),)+
                }
            }
        }
    };
}

types! {
    Ready,
    Reconciling,
    Stalled,
    Available,
    TargetConnected,
    AwsReachable,
    DestinationReachable,
}

/// What a condition says of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    /// It is so.
    True,
    /// It is not so, and the reason says why.
    False,
}

impl ConditionType {
    /// Each condition of this type: one for each of its reasons.
    #[must_use]
    pub fn conditions(self) -> Vec<Condition> {
        fn of<R: Copy>(reasons: &[R], condition: fn(R) -> Condition) -> Vec<Condition> {
            reasons.iter().copied().map(condition).collect()
        }
        match self {
            Self::Ready => of(ReadyReason::ALL, Condition::Ready),
            Self::Reconciling => of(ReconcilingReason::ALL, Condition::Reconciling),
            Self::Stalled => of(StalledReason::ALL, Condition::Stalled),
            Self::Available => of(AvailableReason::ALL, Condition::Available),
            Self::TargetConnected => of(TargetConnectedReason::ALL, Condition::TargetConnected),
            Self::AwsReachable => of(AwsReachableReason::ALL, Condition::AwsReachable),
            Self::DestinationReachable => of(
                DestinationReachableReason::ALL,
                Condition::DestinationReachable,
            ),
        }
    }
}

impl ConditionStatus {
    /// As the status spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
        }
    }
}

impl Condition {
    /// Its type.
    #[must_use]
    pub const fn condition_type(self) -> ConditionType {
        match self {
            Self::Ready(_) => ConditionType::Ready,
            Self::Reconciling(_) => ConditionType::Reconciling,
            Self::Stalled(_) => ConditionType::Stalled,
            Self::Available(_) => ConditionType::Available,
            Self::TargetConnected(_) => ConditionType::TargetConnected,
            Self::AwsReachable(_) => ConditionType::AwsReachable,
            Self::DestinationReachable(_) => ConditionType::DestinationReachable,
        }
    }

    /// Its status, which follows from the reason.
    #[must_use]
    pub const fn status(self) -> ConditionStatus {
        match self {
            Self::Ready(reason) => reason.status(),
            Self::Reconciling(reason) => reason.status(),
            Self::Stalled(reason) => reason.status(),
            Self::Available(reason) => reason.status(),
            Self::TargetConnected(reason) => reason.status(),
            Self::AwsReachable(reason) => reason.status(),
            Self::DestinationReachable(reason) => reason.status(),
        }
    }

    /// Its reason, as the status spells it.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Ready(reason) => reason.as_str(),
            Self::Reconciling(reason) => reason.as_str(),
            Self::Stalled(reason) => reason.as_str(),
            Self::Available(reason) => reason.as_str(),
            Self::TargetConnected(reason) => reason.as_str(),
            Self::AwsReachable(reason) => reason.as_str(),
            Self::DestinationReachable(reason) => reason.as_str(),
        }
    }

    /// What its reason means, in a sentence.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ready(reason) => reason.meaning(),
            Self::Reconciling(reason) => reason.meaning(),
            Self::Stalled(reason) => reason.meaning(),
            Self::Available(reason) => reason.meaning(),
            Self::TargetConnected(reason) => reason.meaning(),
            Self::AwsReachable(reason) => reason.meaning(),
            Self::DestinationReachable(reason) => reason.meaning(),
        }
    }
}

/// The conditions of one generation: one of each type at most, and a type that is not set is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    observed_generation: i64,
    set: BTreeMap<ConditionType, (Condition, String)>,
}

impl Conditions {
    /// No condition yet. `observed_generation` is the `metadata.generation` of which they will speak.
    #[must_use]
    pub const fn new(observed_generation: i64) -> Self {
        Self {
            observed_generation,
            set: BTreeMap::new(),
        }
    }

    /// Sets a condition, in place of an earlier one of its type. A message over
    /// [`TEXT_CHARS_MAX`](super::text::TEXT_CHARS_MAX) characters is cut and says so.
    pub fn set(&mut self, condition: Condition, message: impl AsRef<str>) {
        let message = cut(message.as_ref()).into_owned();
        self.set
            .insert(condition.condition_type(), (condition, message));
    }

    /// The condition of a type, if it is set.
    #[must_use]
    pub fn get(&self, condition_type: ConditionType) -> Option<Condition> {
        self.set
            .get(&condition_type)
            .map(|(condition, _)| *condition)
    }

    /// As the status holds them. A condition of `previous` with the same status gives its transition time, any other
    /// gets `now`, in whole seconds as the API writes it; what is only in `previous` is gone.
    #[must_use]
    pub fn merge(&self, previous: &[ApiCondition], now: Timestamp) -> Vec<ApiCondition> {
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let merged = |(condition, message): &(Condition, String)| {
            let type_ = condition.condition_type().as_str();
            let status = condition.status().as_str();
            let same = previous
                .iter()
                .find(|old| old.type_ == type_ && old.status == status);
            ApiCondition {
                last_transition_time: same
                    .map_or(Time(now), |old| old.last_transition_time.clone()),
                message: message.clone(),
                observed_generation: Some(self.observed_generation),
                reason: condition.reason().to_owned(),
                status: status.to_owned(),
                type_: type_.to_owned(),
            }
        };
        self.set.values().map(merged).collect()
    }
}

#[cfg(test)]
mod tests;
