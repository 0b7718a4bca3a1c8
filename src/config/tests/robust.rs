//! Whatever is written, loading ends with a configuration or with errors: it never panics, and
//! no error shows a secret.

use proptest::prelude::*;

use super::*;

/// Lines as users write and miswrite them: known and unknown keys, values of every type, and
/// plain noise.
fn line() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        4 => proptest::sample::select(Key::ALL).prop_map(|key| key.name().to_owned()),
        1 => "[a-z_.\"\\[]{0,12}",
    ];
    let value = prop_oneof![
        "\"[^\"\\\\\n]{0,20}\"",
        "[0-9]{1,25}",
        "-?[0-9]{1,3}\\.[0-9]",
        "true|false|nan|2026-01-01|'x'|\\[\"a\", 1\\]|\\{a = 1\\}",
        "\"[0-9]{1,20}(s|m|h|d|years|MiB|kB)\"",
        "\"https?://[a-z@:/?#0-9.\\[\\]]{0,20}\"",
        "[^\n]{0,20}",
    ];
    prop_oneof![8 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")), 1 => "[^\n]{0,30}"]
}

/// Each fault is found without reading the whole file for it: this took minutes once.
#[test]
fn a_large_file_of_nothing_but_faults_is_refused_in_time() {
    let blank = "\n".repeat(500_000);
    let unknown: String = (0..20_000).map(|n| format!("zz{n}=1\n")).collect();
    let errors = World::with(&format!("{blank}{unknown}")).load(Need::Nothing).unwrap_err();
    assert_eq!(errors.0.len(), 20_000);
    assert!(errors.0[0].to_string().contains("500001"), "{}", errors.0[0]);
    let doubled = "a=1\n".repeat(100_000);
    assert!(!World::with(&doubled).load(Need::Nothing).unwrap_err().0.is_empty());
    let long = "k".repeat(900_000);
    let errors = World::with(&format!("{long} = 1")).load(Need::Nothing).unwrap_err();
    assert_eq!(errors.0.len(), 1);
}

proptest! {
    #[test]
    fn any_text_is_taken_or_refused(lines in proptest::collection::vec(line(), 0..8)) {
        let text = lines.join("\n");
        let result = World::with(&text).load(Need::Backend);
        if let Err(errors) = result {
            prop_assert!(!errors.0.is_empty());
            prop_assert!(errors.0.iter().all(|error| !error.to_string().is_empty()));
        }
    }

    #[test]
    fn any_value_of_any_key_is_taken_or_refused_by_name(
        key in proptest::sample::select(Key::ALL),
        value in any::<String>(),
    ) {
        let world = World::new().var(&key.variable(), &value);
        if let Err(errors) = world.load(Need::Nothing) {
            prop_assert!(errors.to_string().contains(&key.variable()));
        }
    }

    #[test]
    fn no_error_shows_a_secret(
        secret in "S3CR[a-z ]{4,20}",
        key in proptest::sample::select(&["challenge_uuid", "api_key"]),
        form in 0..5,
        noise in line(),
    ) {
        let text = match form {
            0 => format!("{key} = \"{secret}\"\n{noise}"),
            1 => format!("{key} = {secret}\n{noise}"),
            2 => format!("{key} = \"\"\"\n{secret}\n{noise}"),
            3 => format!("{key} = [\"{secret}\"]\n{noise}"),
            _ => format!("{noise}\n{key} = '{secret}\n"),
        };
        let shown = match World::with(&text).load(Need::Backend) {
            Ok(loaded) => format!("{loaded:?}"),
            Err(errors) => format!("{errors} {errors:?}"),
        };
        prop_assert!(!shown.contains("S3CR"), "{text}\n{shown}");
    }
}
