//! Which listeners' reconciles may wait for AWS: all share the places of the queue in which listeners are bound too, and a
//! Region that does not answer takes a few of them only, and no other Region's.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::broker::Identity;

/// Where AWS is asked, a Region and an endpoint: what does not answer there answers no class that names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    region: String,
    endpoint: Option<String>,
}

impl Place {
    /// Where this identity asks.
    #[must_use]
    pub fn of(identity: &Identity) -> Self {
        Self {
            region: identity.region.clone(),
            endpoint: identity.ssm_endpoint.clone(),
        }
    }
}

/// The turns that are taken.
#[derive(Debug)]
pub struct Turns {
    all: usize,
    of_each: usize,
    taken: Mutex<HashMap<Place, usize>>,
}

/// Given back when it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    place: Place,
}

impl Turns {
    /// Half of so many reconciles at once, and of one place a quarter: so two that do not answer leave one half to all that
    /// does not need AWS, and one of them leaves a quarter to all other places.
    #[must_use]
    pub fn new(concurrency: u16) -> Self {
        let part = |divisor| usize::from(concurrency / divisor).max(1);
        Self {
            all: part(2),
            of_each: part(4),
            taken: Mutex::default(),
        }
    }

    /// A turn to ask AWS there, if there is one; for any number of questions at once.
    #[must_use]
    pub fn take(&self, place: Place) -> Option<Turn<'_>> {
        let mut taken = self.taken();
        let here = taken.get(&place).copied().unwrap_or(0);
        if here >= self.of_each || taken.values().sum::<usize>() >= self.all {
            return None;
        }
        taken.insert(place.clone(), here + 1);
        drop(taken);
        Some(Turn { turns: self, place })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Place, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut taken = self.turns.taken();
        let here = taken.get(&self.place).copied().unwrap_or(0);
        if here > 1 {
            taken.insert(self.place.clone(), here - 1);
        } else {
            taken.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(region: &str) -> Place {
        Place {
            region: region.into(),
            endpoint: None,
        }
    }

    #[test]
    fn one_region_takes_a_part_of_the_turns_and_all_regions_a_part_of_the_reconciles() {
        let turns = Turns::new(16);
        let take = |region: &str| -> Vec<Turn<'_>> {
            std::iter::from_fn(|| turns.take(place(region))).collect()
        };
        let first = take("eu-test-1");
        assert_eq!(first.len(), 4);
        let second = take("eu-test-2");
        assert_eq!((second.len(), take("eu-test-3").len()), (4, 0));
        drop(first);
        assert_eq!(take("eu-test-3").len(), 4);
        drop(second);
        assert!(turns.taken().is_empty(), "nothing is kept of who is done");
        assert!(Turns::new(1).take(place("eu-test-1")).is_some());
    }
}
