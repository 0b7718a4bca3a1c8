//! Carries bytes to the Monitor and answers back.
