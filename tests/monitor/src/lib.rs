//! A reference HarborForge Monitor.
