//! Holds the rules of the house over its sources: which floor may use which, how long a file may
//! be, which names and calls are not for us, where the links of pages lead, and which versions they
//! name. Each rule is one test, and its message says how to mend what it found. Beside the rules,
//! tests show that each of their parts can fail.
//!
//! The sources are read as text, without their comments and literals: enough for the rules here,
//! and nothing has to compile.
#![allow(clippy::expect_used, clippy::panic, reason = "so does a test fail")]

mod calls;
mod dependencies;
mod files;
mod floors;
mod links;
mod names;
mod source;
mod text;
mod versions;
