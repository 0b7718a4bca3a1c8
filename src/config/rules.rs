//! Rules that bind several keys, applied to values that are each permitted by themselves.

use super::error::{ConfigError, Problem, Warning};
use super::keys::Key;
use super::load::Loader;
use super::{Config, Credential, Transport, agent, endpoint, file};
use crate::protocol::OFFLINE_THRESHOLD;

impl Loader<'_> {
    pub(super) fn check_rules(&mut self, config: &Config) {
        if let (Some(url), Some(setting)) =
            (&config.backend_url, self.settings.get(Key::BackendUrl))
        {
            let pinned = config.public_key_sha256.is_some();
            let credential = config.credential.as_ref();
            let result =
                endpoint::plain_http(setting, url, credential, config.allow_insecure, pinned);
            match result {
                Err(error) => self.errors.push(error),
                Ok(()) if endpoint::is_exposed(url) => self.warnings.push(Warning {
                    origin: setting.origin.clone(),
                    key: Some(Key::BackendUrl.name()),
                    text: "plain http: everyone on the way can read and change the telemetry; \
                           better use https"
                        .into(),
                }),
                Ok(()) => {}
            }
        }
        if config.transport == Transport::Websocket
            && matches!(config.credential, Some(Credential::ApiKey(_)))
            && let Some(setting) = self.settings.get(Key::Transport)
        {
            let rule = "an API key allows the heartbeat alone; use auto or http, or a challenge";
            self.errors.push(setting.error(Problem::Rule {
                found: setting.raw.describe(Key::Transport),
                rule: rule.into(),
            }));
        }
        self.warn_of_long_intervals(config);
    }

    fn warn_of_long_intervals(&mut self, config: &Config) {
        for (key, other, duration) in [
            (Key::ReportInterval, Some(Key::ReportIntervalSec), config.report_interval),
            (
                Key::HttpFallbackInterval,
                Some(Key::HttpFallbackIntervalSec),
                config.http_fallback_interval,
            ),
            (Key::BackoffCap, None, config.backoff_cap),
        ] {
            if duration <= OFFLINE_THRESHOLD {
                continue;
            }
            let setting = match other {
                Some(other) => self.settings.either(key, other).ok().flatten(),
                None => self.settings.get(key),
            };
            let Some(setting) = setting else { continue };
            self.warnings.push(Warning {
                origin: setting.origin.clone(),
                key: Some(setting.key.name()),
                text: format!(
                    "{} is longer than the {} after which the Monitor calls a server offline",
                    humantime::format_duration(duration),
                    humantime::format_duration(OFFLINE_THRESHOLD)
                ),
            });
        }
    }

    pub(super) fn check_backend(&mut self, config: &Config) {
        let json = self.file.as_deref().is_some_and(file::is_json);
        let place = match &self.file {
            Some(path) => path.display().to_string(),
            None => format!("{} (not there yet)", self.looked_at.display()),
        };
        let name = |key: Key| agent::json_name(key).filter(|_| json).unwrap_or(key.name());
        if config.backend_url.is_none() && self.settings.get(Key::BackendUrl).is_none() {
            let (values, variable) = (Key::BackendUrl.values(), Key::BackendUrl.variable());
            let by_name = if json { " as backendUrl" } else { "" };
            let expected = format!("{values}; set it in {place}{by_name} or as {variable}");
            self.missing_as(name(Key::BackendUrl), expected);
        }
        let tried = [Key::ChallengeUuid, Key::ChallengeUuidFile, Key::ApiKey, Key::ApiKeyFile];
        if config.credential.is_none()
            && tried.iter().all(|key| self.settings.get(*key).is_none())
            && !self.errors.iter().any(|error| is_about(error, &tried))
        {
            if json {
                let expected = format!(
                    "the API key; set it in {place}, or as {}, or instead a challenge as {}",
                    Key::ApiKey.variable(),
                    Key::ChallengeUuid.variable()
                );
                self.missing_as(name(Key::ApiKey), expected);
            } else {
                let expected = format!(
                    "the challenge the Monitor shows when a server is added, here or in a file \
                     named by challenge_uuid_file, or instead api_key or api_key_file; set it in \
                     {place}"
                );
                self.missing_as(name(Key::ChallengeUuid), expected);
            }
        }
    }
}

fn is_about(error: &ConfigError, keys: &[Key]) -> bool {
    keys.iter().any(|key| error.key.as_deref() == Some(key.name()))
}
