//! The configuration: keys, layers, validation.
