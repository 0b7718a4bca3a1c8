//! Messages of the HTTP heartbeat (the protocol's sections 5 and 7): what an answer's body says,
//! and a batch's body.

use serde::Deserialize;

use super::{BATCH_ENVELOPE, Rejection};

/// The body of a heartbeat's answer, as far as it matters (sections 5 and 7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerBody {
    /// Nothing at all.
    Empty,
    /// A JSON object.
    Object(AnswerObject),
    /// Anything else: a portal's page, a cut answer.
    Foreign,
}

/// The members of an answer's JSON object that decide its meaning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AnswerObject {
    /// `"ok"`, where it is a boolean.
    #[serde(deserialize_with = "lenient_bool")]
    pub ok: Option<bool>,
    /// `"duplicate"`, where it is a boolean.
    #[serde(deserialize_with = "lenient_bool")]
    pub duplicate: Option<bool>,
    /// Last sample of a batch that is stored, cumulative.
    #[serde(deserialize_with = "lenient_u64")]
    pub acked_seq: Option<u64>,
    /// Samples of a batch that will never be accepted.
    #[serde(deserialize_with = "lenient_rejections")]
    pub rejected: Vec<Rejection>,
    /// `error` or `detail`, as text: present means refused.
    #[serde(skip)]
    pub complaint: Option<String>,
}

// A member of an unexpected type must not turn an acceptance into a page of a portal.
fn lenient_bool<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<bool>, D::Error> {
    Ok(serde_json::Value::deserialize(d)?.as_bool())
}

fn lenient_u64<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    Ok(serde_json::Value::deserialize(d)?.as_u64())
}

fn lenient_rejections<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<Rejection>, D::Error> {
    let serde_json::Value::Array(items) = serde_json::Value::deserialize(d)? else {
        return Ok(Vec::new());
    };
    Ok(items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect())
}

/// Reads an answer's body. Never fails: what is not understood is [`AnswerBody::Foreign`].
#[must_use]
pub fn read_answer(body: &[u8]) -> AnswerBody {
    if body.iter().all(u8::is_ascii_whitespace) {
        return AnswerBody::Empty;
    }
    let Ok(serde_json::Value::Object(members)) = serde_json::from_slice(body) else {
        return AnswerBody::Foreign;
    };
    let complaint = complaint(&members);
    match serde_json::from_value::<AnswerObject>(serde_json::Value::Object(members)) {
        Ok(object) => AnswerBody::Object(AnswerObject { complaint, ..object }),
        Err(_) => AnswerBody::Foreign,
    }
}

/// `error` or `detail` as text, whatever its type.
fn complaint(members: &serde_json::Map<String, serde_json::Value>) -> Option<String> {
    ["error", "detail"].iter().find_map(|name| members.get(*name)).map(|said| match said {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => said.to_string(),
    })
}

/// The body of a batch heartbeat (section 7) around samples that are already spliced.
///
/// # Errors
/// When the identifier or the proof cannot be encoded as JSON.
pub fn batch_body(
    identifier: &str,
    encrypted_payload: &str,
    samples: &[Vec<u8>],
) -> Result<Vec<u8>, serde_json::Error> {
    let size: usize = samples.iter().map(|sample| sample.len() + 1).sum();
    let mut body = Vec::with_capacity(size + BATCH_ENVELOPE);
    body.extend_from_slice(b"{\"identifier\":");
    serde_json::to_writer(&mut body, identifier)?;
    body.extend_from_slice(b",\"encrypted_payload\":");
    serde_json::to_writer(&mut body, encrypted_payload)?;
    body.extend_from_slice(b",\"samples\":[");
    for (index, sample) in samples.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(sample);
    }
    body.extend_from_slice(b"]}");
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn answers_are_read_for_what_they_are() {
        assert_eq!(read_answer(b""), AnswerBody::Empty);
        assert_eq!(read_answer(b" \r\n"), AnswerBody::Empty);
        for foreign in
            [&b"<html>log in</html>"[..], b"[]", b"null", b"\"ok\"", b"{\"ok\":tr", b"\xff"]
        {
            assert_eq!(read_answer(foreign), AnswerBody::Foreign, "{foreign:?}");
        }
        let AnswerBody::Object(batch) = read_answer(
            br#"{"ok":true,"acked_seq":7,"rejected":[{"seq":5,"error":"no"},{"seq":"x"},3]}"#,
        ) else {
            unreachable!("an object")
        };
        assert_eq!((batch.ok, batch.acked_seq), (Some(true), Some(7)));
        assert_eq!(batch.rejected, [Rejection { seq: 5, error: "no".into() }]);
        assert_eq!(batch.complaint, None);
    }

    #[test]
    fn a_complaint_of_any_type_is_a_complaint() {
        for (body, said) in [
            (&br#"{"error":"bad proof"}"#[..], "bad proof"),
            (br#"{"detail":[{"loc":["body"]}]}"#, r#"[{"loc":["body"]}]"#),
            (br#"{"detail":null}"#, "null"),
        ] {
            let AnswerBody::Object(object) = read_answer(body) else { unreachable!("an object") };
            assert_eq!(object.complaint.as_deref(), Some(said));
        }
    }

    #[test]
    fn members_of_unexpected_types_are_as_good_as_absent() {
        let AnswerBody::Object(object) =
            read_answer(br#"{"ok":"yes","acked_seq":-1,"rejected":{},"duplicate":1}"#)
        else {
            unreachable!("an object")
        };
        assert_eq!(object, AnswerObject::default());
    }

    #[test]
    fn a_batch_wraps_the_samples_as_they_are() {
        let body =
            batch_body("a\"b", "cHJvb2Y=", &[b"{\"seq\":1}".to_vec(), b"{\"seq\":2}".to_vec()])
                .unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body,
            json!({"identifier": "a\"b", "encrypted_payload": "cHJvb2Y=",
                   "samples": [{"seq": 1}, {"seq": 2}]})
        );
    }
}
