//! The documentation's configurations, read by the program's own reader.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use harborforge_connector::config::{self, FileText, Files, Flags, Key, Need, Sources};
use zeroize::Zeroizing;

use super::markdown::{all_blocks, documents, quoted, split};

/// A disk with one file, which its owner alone may read.
struct OneFile<'a>(&'a str);

impl Files for OneFile<'_> {
    fn read(&self, path: &Path) -> io::Result<FileText> {
        if path == Path::new("config.toml") {
            return Ok(FileText {
                text: Zeroizing::new(self.0.to_owned()),
                mode: 0o600,
                shared: false,
            });
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Reads a configuration as the daemon would: its warnings, or its faults.
fn read(text: &str, need: Need) -> Result<Vec<String>, String> {
    let sources = Sources {
        flags: Flags { config: Some("config.toml".into()), set: Vec::new() },
        env: BTreeMap::new(),
        host_name: Some("vps.t1".to_owned()),
        uid: 0,
        files: &OneFile(text),
    };
    match config::load(&sources, need) {
        Ok(loaded) => Ok(loaded.warnings.iter().map(ToString::to_string).collect()),
        Err(faults) => Err(faults.0.iter().map(|fault| format!("{fault}\n")).collect()),
    }
}

/// A whole one starts a daemon and draws no warning; a part of one has no faults.
#[test]
fn every_configuration_shown_can_be_read() {
    let mut seen = 0;
    for block in all_blocks().iter().filter(|b| b.language.as_deref() == Some("toml")) {
        let text = block.text();
        let whole = text.lines().any(|line| line.starts_with("backend_url"));
        let need = if whole { Need::Backend } else { Need::Nothing };
        let warnings = read(&text, need)
            .unwrap_or_else(|faults| panic!("{}:{}: {faults}", block.path, block.line));
        assert!(!whole || warnings.is_empty(), "{}:{}: {warnings:?}", block.path, block.line);
        seen += 1;
    }
    assert!(seen >= 2, "{seen} were found");
}

/// Settings in the midst of a sentence, such as `transport = "http"`.
#[test]
fn every_setting_in_the_text_can_be_made() {
    let mut seen = 0;
    for document in documents() {
        for line in split(&document).1 {
            for setting in quoted(line.text) {
                let Some((name, _)) = setting.split_once(" = ") else { continue };
                if !Key::ALL.iter().any(|key| key.name() == name) {
                    continue;
                }
                seen += 1;
                // Some are permitted in company alone; that company is not what is tested.
                if let Err(faults) = read(setting, Need::Nothing) {
                    panic!("{}:{}: {setting}: {faults}", document.path, line.line);
                }
            }
        }
    }
    assert!(seen >= 8, "{seen} were found");
}
