//! How far a drain is: pure, with `now` as an argument.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::lease::Watched;

/// Names of one kind that are said at once; a line of a log stays readable.
const NAMES_MAX: usize = 10;

/// What controllers have yet to let go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Names of SsmListeners in the operator's namespace.
    pub listeners: Vec<String>,
    /// SsmSessions with the installation's finalizer, as `namespace/name`.
    pub sessions: Vec<String>,
}

impl Left {
    fn is_empty(&self) -> bool {
        let Self {
            listeners,
            sessions,
        } = self;
        listeners.is_empty() && sessions.is_empty()
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing is left");
        }
        let Self {
            listeners,
            sessions,
        } = self;
        let said = |kind: &str, names: &[String]| {
            let shown = names[..names.len().min(NAMES_MAX)].join(", ");
            match names.len().saturating_sub(NAMES_MAX) {
                0 => format!("{} {kind} ({shown})", names.len()),
                more => format!("{} {kind} ({shown} and {more} more)", names.len()),
            }
        };
        let all = [("SsmListeners", listeners), ("SsmSessions", sessions)];
        let all = all.iter().filter(|(_, names)| !names.is_empty());
        let all: Vec<_> = all.map(|(kind, names)| said(kind, names)).collect();
        write!(f, "left are {}", all.join(" and "))
    }
}

/// Whether a controller leads, who alone can let something go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leader {
    /// Its Lease is there, and was not seen renewed yet.
    Unknown,
    /// Its Lease is renewed.
    Leads,
    /// There is no Lease, nobody holds it, or nobody renews it.
    Nobody,
}

impl fmt::Display for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "Whether a controller leads is not known",
            Self::Leads => {
                "A controller leads: its log says what it waits for, and so does that of the relays. What AWS does not \
                 confirm is not let go, nor is an SsmSession in a namespace that is not watched"
            }
            Self::Nobody => "No controller leads, and nobody else lets anything go: is one running?",
        })
    }
}

/// The Lease of the controllers, as one look shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeadSeen {
    /// Another with each write; absent when there is no Lease.
    pub version: Option<String>,
    /// Whether somebody holds it.
    pub held: bool,
    /// How long it holds after a renewal.
    pub duration: Duration,
}

/// What this process has seen of that Lease.
#[derive(Debug, Default)]
pub struct Lead {
    watched: Watched<String>,
}

impl Lead {
    /// What a look says of who leads.
    pub fn handle_look(&mut self, seen: LeadSeen, now: Instant) -> Leader {
        self.watched.handle_look(seen.version, now);
        if !seen.held || self.watched.unchanged_for(now) >= seen.duration {
            Leader::Nobody
        } else if self.watched.is_confirmed() {
            Leader::Leads
        } else {
            Leader::Unknown
        }
    }
}

/// What all looks so far have shown.
#[derive(Debug, Default)]
pub struct Progress {
    seen: Option<(Left, Leader)>,
    told: Option<(Left, Leader)>,
    /// Since when nothing was left at any look.
    empty_since: Option<Instant>,
}

impl Progress {
    /// A look has shown this.
    pub fn handle_look(&mut self, left: Left, leader: Leader, now: Instant) {
        let since = self.empty_since.unwrap_or(now);
        self.empty_since = left.is_empty().then_some(since);
        self.seen = Some((left, leader));
    }

    /// A look has failed: what it would have shown is not known.
    pub fn handle_failure(&mut self) {
        self.empty_since = None;
    }

    /// What is left and who leads, when that has changed since it was asked for last.
    pub fn poll_news(&mut self) -> Option<(Left, Leader)> {
        if self.seen == self.told {
            return None;
        }
        self.told.clone_from(&self.seen);
        self.seen.clone()
    }

    /// Whether nothing has been left for as long as `quiet`.
    #[must_use]
    pub fn is_over(&self, quiet: Duration, now: Instant) -> bool {
        let since = self.empty_since;
        since.is_some_and(|since| now.duration_since(since) >= quiet)
    }

    /// Whether something is left, or may be.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.empty_since.is_none()
    }

    /// All that is known, in words.
    #[must_use]
    pub fn words(&self) -> String {
        match &self.seen {
            Some((left, leader)) => format!("{left}. {leader}"),
            None => "what is left is not known, since the API server did not tell".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(5);

    fn left(sessions: usize) -> Left {
        Left {
            listeners: Vec::new(),
            sessions: (0..sessions).map(|n| format!("shop/s{n}")).collect(),
        }
    }

    #[test]
    fn it_is_over_once_nothing_was_left_for_a_while_without_a_break() {
        let (mut progress, start) = (Progress::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        progress.handle_look(left(1), Leader::Leads, after(0));
        assert!(progress.is_waiting() && !progress.is_over(QUIET, after(60)));
        progress.handle_look(left(0), Leader::Leads, after(60));
        assert!(!progress.is_over(QUIET, after(64)));
        progress.handle_failure();
        progress.handle_look(left(0), Leader::Leads, after(64));
        assert!(
            !progress.is_over(QUIET, after(68)),
            "what was not seen is not believed"
        );
        progress.handle_look(left(1), Leader::Leads, after(68));
        progress.handle_look(left(0), Leader::Leads, after(70));
        assert!(!progress.is_over(QUIET, after(74)) && progress.is_over(QUIET, after(75)));
    }

    #[test]
    fn what_is_left_is_told_once() {
        let (mut progress, now) = (Progress::default(), Instant::now());
        assert!(progress.words().contains("not known") && progress.poll_news().is_none());
        for (sessions, leader) in [(2, Leader::Leads), (1, Leader::Leads), (1, Leader::Nobody)] {
            for news in [Some((left(sessions), leader)), None] {
                progress.handle_look(left(sessions), leader, now);
                assert_eq!(progress.poll_news(), news);
            }
        }
        let words = progress.words();
        assert!(
            words.starts_with("left are 1 SsmSessions (shop/s0). No controller leads"),
            "{words}"
        );
    }

    #[test]
    fn names_beyond_the_tenth_are_counted() {
        let mut left = left(12);
        left.listeners.push("l-1".to_owned());
        let words = left.to_string();
        assert!(words.starts_with("left are 1 SsmListeners (l-1) and 12 SsmSessions (shop/s0,"));
        assert!(words.ends_with("shop/s9 and 2 more)"), "{words}");
    }

    #[test]
    fn a_controller_leads_as_long_as_it_is_seen_to_renew_its_lease() {
        let (mut lead, start) = (Lead::default(), Instant::now());
        let mut look = |version: Option<&str>, held, seconds| {
            let seen = LeadSeen {
                version: version.map(str::to_owned),
                held,
                duration: Duration::from_secs(15),
            };
            lead.handle_look(seen, start + Duration::from_secs(seconds))
        };
        assert_eq!(look(None, false, 0), Leader::Nobody);
        assert_eq!(
            look(Some("1"), true, 1),
            Leader::Leads,
            "it was made just now"
        );
        assert_eq!(look(Some("1"), true, 15), Leader::Leads);
        assert_eq!(look(Some("1"), true, 16), Leader::Nobody);
        assert_eq!(look(Some("2"), true, 17), Leader::Leads);
        assert_eq!(
            look(Some("3"), false, 18),
            Leader::Nobody,
            "it was given back"
        );

        let mut fresh = Lead::default();
        let seen = LeadSeen {
            version: Some("3".to_owned()),
            held: true,
            duration: Duration::from_secs(15),
        };
        let late = start + Duration::from_secs(15);
        assert_eq!(fresh.handle_look(seen.clone(), start), Leader::Unknown);
        assert_eq!(fresh.handle_look(seen, late), Leader::Nobody);
    }
}
