//! The archive reader's entry point.
fn main() {}
