//! Which credential the daemon uses: the configured one, or one that was handed to it since.

use std::path::Path;
use std::sync::Arc;

use super::{Daemon, Reload};
use crate::config::{Config, Credential, Group};
use crate::control::enroll::Enrolling;
use crate::control::protocol::{self, CredentialFrom, Refusal, RefusalKind};
use crate::enrolled::{self, Enrolled, Standing, Weighed};
use crate::logging::LogHandle;
use crate::runtime;
use crate::store::chain;
use crate::transport::Target;

/// The configuration with the credential that counts, and what an enrolled one is worth beside it.
/// One that the configuration has overtaken is forgotten here, and that is said.
pub(super) fn weigh(configured: &Arc<Config>, data_dir: &Path) -> Weighed {
    let path = enrolled::path(data_dir);
    let (config, standing) = match Enrolled::weigh(configured, data_dir) {
        Ok(weighed) => weighed,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "what was enrolled is not usable, the configured credential counts");
            return (configured.clone(), None);
        }
    };
    match standing {
        None | Some(Standing::Preferred | Standing::Elsewhere) => return (config, standing),
        Some(Standing::CaughtUp) => {
            tracing::info!("the configuration has the enrolled credential now");
        }
        Some(Standing::Superseded) => tracing::info!(
            "the configured credential has changed, it counts again instead of the enrolled one"
        ),
    }
    if let Err(error) = Enrolled::forget(data_dir) {
        tracing::warn!(path = %path.display(), %error, "the enrolled credential cannot be removed, though it counts no more");
    }
    (config, standing)
}

/// Says what the log should know about it, at a start and a reload.
pub(super) fn say(standing: Option<Standing>) {
    match standing {
        Some(Standing::Preferred) => tracing::info!(
            "using the credential that was enrolled, until the configured one changes"
        ),
        Some(Standing::Elsewhere) => tracing::warn!(
            "a credential was enrolled for another backend_url, it is not used for this one"
        ),
        Some(Standing::CaughtUp | Standing::Superseded) | None => {}
    }
}

impl Daemon {
    /// Takes new credentials up and tells whoever asked.
    pub(super) async fn enroll(
        &mut self,
        request: Enrolling,
        reload: &mut Reload,
        log: &LogHandle,
    ) {
        let not_reloaded = self.reload(reload, log).err();
        let answer = self.take_credential(&request).await.map(|from| {
            let pid = std::process::id();
            protocol::Enrolled { pid, from, not_reloaded }
        });
        if let Err(refusal) = &answer {
            tracing::warn!(reason = %refusal, "not enrolled");
        }
        // Whoever asked may have gone.
        request.reply.send(answer);
    }

    async fn take_credential(&mut self, request: &Enrolling) -> Result<CredentialFrom, Refusal> {
        let failed = |text: String| Refusal::new(RefusalKind::Failed, text);
        self.is_for_us(request)?;
        let same = |config: &Config, wanted: &Credential| {
            config.credential.as_ref().is_some_and(|credential| credential.is_same(wanted))
        };
        let Some(wanted) = &request.credential else {
            let configured = self.config.credential.as_ref();
            let own = configured.is_some_and(|credential| same(&self.configured, credential));
            return Ok(if own { CredentialFrom::Configuration } else { CredentialFrom::DataDir });
        };
        if same(&self.config, wanted) {
            // The reload has found it, or it was handed over before.
            return Ok(if same(&self.configured, wanted) {
                CredentialFrom::Configuration
            } else {
                CredentialFrom::DataDir
            });
        }
        let enrolled = Enrolled::new(wanted.clone(), &self.configured)
            .ok_or_else(|| failed("the daemon has no Monitor to report to".to_owned()))?;
        let data_dir = self.data_dir.clone();
        // On disk before it is used: a restart must not bring the old one back.
        runtime::spawn_blocking(move || enrolled.write(&data_dir))
            .await
            .map_err(|error| Refusal::new(RefusalKind::Storage, chain(&error)))?;
        let config = Config { credential: Some(wanted.clone()), ..(*self.config).clone() };
        self.use_link(Arc::new(config), &[Group::Credentials]).map_err(|error| {
            failed(format!("kept, but it cannot be used yet: {}", chain(&error)))
        })?;
        tracing::info!("a new credential was enrolled and is used from now on");
        Ok(CredentialFrom::DataDir)
    }

    /// A credential goes to the Monitor it was issued by, and as safely as the configuration
    /// would have it.
    fn is_for_us(&self, request: &Enrolling) -> Result<(), Refusal> {
        let url = self.config.backend_url.as_ref();
        let here = url.map(ToString::to_string).unwrap_or_default();
        let name = &self.config.identifier;
        if (&here, name) != (&request.backend_url, &request.identifier) {
            let text = format!(
                "the daemon reports to {here} as {name}, and this is for {} as {}: what it reads \
                 its configuration from says otherwise; restart it with the new configuration",
                request.backend_url, request.identifier
            );
            return Err(Refusal::new(RefusalKind::Failed, text));
        }
        let open = url.is_some_and(|url| url.scheme() == "http" && !Target::of(url).is_loopback());
        if open && matches!(request.credential, Some(Credential::ApiKey(_))) {
            let text = "an API key is never sent over plain http to another host; use https";
            return Err(Refusal::new(RefusalKind::Failed, text));
        }
        Ok(())
    }
}
