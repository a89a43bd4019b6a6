//! Webhook requests of any bytes: a body counts only with its own signature, however the connection
//! splits it.

#![expect(clippy::unwrap_used, reason = "a test")]

use futures_util::stream;
use proptest::prelude::*;
use ring::hmac;
use serde_json::Value;

use super::*;
use crate::fuzz::Fuzz;

const SECRET: &str = "It's a Secret to Everybody";
const WORDS: [&str; 10] = [
    "\"ref\":",
    "\"refs/heads/main\"",
    "\"refs/heads/other\"",
    "null",
    "\\u006dain",
    "sha256=",
    "\n",
    "{",
    "}",
    ",",
];

fn hooks(metrics: &Arc<Metrics>) -> Arc<Shared> {
    let config = WebhookSettings {
        secret: Some(Sensitive::new(SECRET.to_owned())),
        branch: "main".to_owned(),
    };
    let hooks = Webhooks::new(&config, metrics.clone(), Arc::new(Notify::new()));
    hooks.unwrap().unwrap().shared
}

fn sign(body: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), body);
    let digits: String = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256={digits}")
}

#[test]
fn any_body_counts_only_with_its_own_signature() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    // Each answer is that of a new [`Webhooks`], without the memory of earlier bodies.
    let judge = |signature: &[u8], body: Body| {
        let mut headers = HeaderMap::new();
        let signature = HeaderValue::from_bytes(signature);
        let signature = signature.unwrap_or(HeaderValue::from_static(""));
        headers.insert("x-hub-signature-256", signature);
        headers.insert("x-github-event", HeaderValue::from_static("push"));
        runtime.block_on(hooks(&metrics).judge(Forge::Github, None, &headers, body))
    };
    // A file of the corpus is a line with a signature, and a body.
    Fuzz::new("src/http/webhook/corpus", &WORDS).run(|bytes| {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (claimed, body) = bytes.split_at(end.unwrap_or(bytes.len()));
        let body = body.get(1..).unwrap_or_default();
        let signature = sign(body);
        let whole = judge(signature.as_bytes(), Body::from(body.to_vec()));

        let chunks: Vec<Result<Vec<u8>, std::io::Error>> =
            body.chunks(7).map(|chunk| Ok(chunk.to_vec())).collect();
        let in_chunks = Body::from_stream(stream::iter(chunks));
        prop_assert_eq!(judge(signature.as_bytes(), in_chunks), whole);

        let by_claim = judge(claimed, Body::from(body.to_vec()));
        if String::from_utf8_lossy(claimed)
            .trim()
            .eq_ignore_ascii_case(&signature)
        {
            prop_assert!(by_claim == whole || by_claim == WebhookResult::BadSignature);
        } else {
            let refused = [WebhookResult::Unsigned, WebhookResult::BadSignature];
            prop_assert!(refused.contains(&by_claim), "{by_claim:?}");
        }

        match whole {
            WebhookResult::Accepted => Ok(true),
            WebhookResult::Ignored => {
                // What the hook does not need is passed over, also where it is no UTF-8.
                let text = String::from_utf8_lossy(body);
                let read: Value = serde_json::from_str(&text).unwrap_or_default();
                let elsewhere = read["ref"]
                    .as_str()
                    .is_some_and(|name| name != "refs/heads/main");
                prop_assert!(
                    elsewhere,
                    "only what is about another branch is passed over"
                );
                Ok(false)
            }
            other => Err(TestCaseError::fail(format!("{other:?}"))),
        }
    });
}
