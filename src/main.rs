//! Parses the command line, runs it and maps an error to its exit code.

fn main() {}
