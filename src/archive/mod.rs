//! Files of records: written so that a line is whole or absent, whatever happens.
//!
//! `docs/durability.md` states what is promised and why each step comes where it does.

pub mod names;
pub mod queue;
