//! Wire messages both ways, pure.
