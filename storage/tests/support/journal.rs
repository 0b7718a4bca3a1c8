//! The last lines the library logged, for whoever has to find out what led to a failure.

use std::collections::VecDeque;
use std::fmt::{Debug, Write as _};
use std::sync::{Mutex, PoisonError};

use tracing::Event;
use tracing::field::{Field, Visit};

use crate::support::subscriber::Listener;

const KEPT: usize = 40;

static LINES: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Begins to keep them, in this process.
pub fn keep() {
    let _ = tracing::subscriber::set_global_default(Listener {
        wanted: |metadata| metadata.target().starts_with("harborforge_storage"),
        heard: keep_one,
    });
}

/// What was kept, oldest first.
pub fn lines() -> Vec<String> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

fn keep_one(event: &Event<'_>) {
    let mut line = Line(event.metadata().level().to_string());
    event.record(&mut line);
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.len() == KEPT {
        lines.pop_front();
    }
    lines.push_back(line.0);
}
