//! How answers of the API server are read, so that no object stops anybody: without what nobody here reads ([`Lean`]),
//! each object for itself ([`Guarded`]), and after a failure later and later ([`paced`]).
//!
//! Whoever may edit one object may write `managedFields` of almost any content into it, and lists of almost any size, and an
//! object of another version may say what this one does not know. None of it may keep the objects of others from being read.

mod filter;
mod guard;
mod lean;
mod paced;

pub use guard::{Guarded, Unreadable};
pub use lean::{Lean, LeanLayer};
pub use paced::paced;

/// Objects that are read at once while a watch lists: with all that a user may write into one, a page stays far from the
/// memory that a process has.
pub const PAGE: u32 = 25;
