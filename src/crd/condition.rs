//! Condition types and their reasons, as closed enums.
