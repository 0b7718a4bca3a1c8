//! The check of OpenClaw: what is found of it, and what keeps it from being read.

use super::{Facts, Line, Verdict};
use crate::collector::openclaw::homes::Places;
use crate::collector::openclaw::reader::Report;
use crate::collector::openclaw::watch;
use crate::config::OpenClaw;
use crate::daemon::openclaw_settings;

const NAME: &str = "openclaw";

pub(super) fn openclaw(facts: &Facts<'_>) -> Vec<Line> {
    let config = facts.config();
    if config.openclaw == OpenClaw::Off {
        return vec![Line::new(Verdict::Ok, NAME, "not looked for: openclaw = \"off\"")];
    }
    lines(&watch::once(&openclaw_settings(config), Places::of_this_host()))
}

fn lines(report: &Report) -> Vec<Line> {
    let mut lines = Vec::new();
    if report.homes.is_empty() && report.troubles.is_empty() {
        let found = match &report.view.version {
            Some(version) => format!("{version}, but its state directory is not seen"),
            None if report.hidden > 0 => "none found".to_owned(),
            None => "none on this host".to_owned(),
        };
        let text = match report.hidden {
            0 => found,
            hidden => format!(
                "{found}; home directories closed to this user: {hidden}; if one of them has \
                 OpenClaw, see docs/OPERATIONS.md, OpenClaw"
            ),
        };
        lines.push(Line::new(Verdict::Ok, NAME, text));
    }
    if !report.homes.is_empty() {
        let homes: Vec<String> = report.homes.iter().map(|h| h.display().to_string()).collect();
        let version = report.view.version.as_deref().unwrap_or("of an unknown version");
        let agents = report.view.agents.len();
        let text = format!("{version}, {agents} agent(s), in {}", homes.join(", "));
        lines.push(Line::new(Verdict::Ok, NAME, text));
    }
    lines.extend(report.troubles.iter().map(|t| Line::new(Verdict::Warn, NAME, t.clone())));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(report: &Report) -> Vec<String> {
        lines(report).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_found_and_what_is_in_the_way_is_said() {
        assert_eq!(said(&Report::default()), ["ok   openclaw: none on this host"]);
        let hidden = Report { hidden: 2, ..Report::default() };
        assert!(said(&hidden)[0].contains("none found; home directories closed to this user: 2;"));
        let answers = Report {
            view: crate::collector::OpenClawView {
                version: Some("2026.9.6".to_owned()),
                ..Default::default()
            },
            ..hidden
        };
        let expected = "ok   openclaw: 2026.9.6, but its state directory is not seen; home";
        assert!(said(&answers)[0].starts_with(expected), "{:?}", said(&answers));
        let report = Report {
            homes: vec!["/home/claw/.openclaw".into()],
            troubles: [
                "/home/claw/.openclaw/openclaw.json: line 1, column 2: expected colon".to_owned()
            ]
            .into(),
            ..Report::default()
        };
        let said = said(&report);
        assert_eq!(
            said[0],
            "ok   openclaw: of an unknown version, 0 agent(s), in /home/claw/.openclaw"
        );
        assert!(said[1].starts_with("warn openclaw: /home/claw/.openclaw/openclaw.json: line 1"));
    }
}
