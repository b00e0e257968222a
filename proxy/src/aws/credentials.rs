//! Credentials that are kept until shortly before their end and then renewed.
//!
//! Invariants
//! - One request fetches, the others of the worker wait for it; a client that leaves stops nothing.
//! - Keys that are still valid serve on while renewing fails.
//! - After a failure nobody tries again for [`PAUSE_MICROS`]: a missing endpoint must not hold every
//!   request up for its whole timeout.
//!
//! Not here: where they come from (`sources`).

use super::sources;
use crate::config::{AwsKeys, SigV4};
use crate::upstream::Connector;
use bursar_domain::Timestamp;
use std::rc::Rc;
use tokio::sync::Mutex;

/// How long before their end keys are renewed: AWS's endpoints offer new ones by then.
const RENEW_BEFORE_MICROS: u64 = 5 * 60 * 1_000_000;
/// How long after a failure nothing is fetched.
const PAUSE_MICROS: u64 = 5 * 1_000_000;

/// Keys, and when they end.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    pub(super) keys: Rc<AwsKeys>,
    /// `None` for keys that do not end.
    pub(super) expires_at: Option<Timestamp>,
}

impl Credentials {
    fn ends_within(&self, micros: u64, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now.plus_micros(micros))
    }
}

/// The credentials of one worker.
#[derive(Debug)]
pub(super) struct Keeper {
    connector: Connector,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    credentials: Option<Credentials>,
    failed: Option<(Timestamp, String)>,
}

impl Kept {
    /// What to do at `now` without fetching, if that is possible.
    fn without_fetching(&self, now: Timestamp) -> Option<Result<Rc<AwsKeys>, String>> {
        let kept = self.credentials.as_ref();
        if let Some(fresh) = kept.filter(|kept| !kept.ends_within(RENEW_BEFORE_MICROS, now)) {
            return Some(Ok(Rc::clone(&fresh.keys)));
        }
        let (at, reason) = self.failed.as_ref()?;
        let is_recent = now >= *at && now.micros_since(*at) < PAUSE_MICROS;
        is_recent.then(|| self.still_valid(now).ok_or_else(|| reason.clone()))
    }

    fn still_valid(&self, now: Timestamp) -> Option<Rc<AwsKeys>> {
        let kept = self.credentials.as_ref().filter(|kept| !kept.ends_within(0, now))?;
        Some(Rc::clone(&kept.keys))
    }
}

impl Keeper {
    pub(super) fn new(connector: Connector) -> Self {
        Self { connector, kept: Mutex::default() }
    }

    /// Keys that are valid at `now`, or why there are none.
    pub(super) async fn get(&self, scope: &SigV4, now: Timestamp) -> Result<Rc<AwsKeys>, String> {
        let mut kept = self.kept.lock().await;
        if let Some(answer) = kept.without_fetching(now) {
            return answer;
        }
        match sources::fetch(scope, &self.connector, now).await {
            Ok(credentials) => {
                let keys = Rc::clone(&credentials.keys);
                *kept = Kept { credentials: Some(credentials), failed: None };
                Ok(keys)
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::warn!(%reason, "cannot get AWS credentials");
                kept.failed = Some((now, reason.clone()));
                kept.still_valid(now).ok_or(reason)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    const SECOND: i64 = 1_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * SECOND)
    }

    fn kept(end: Option<i64>, failed: Option<i64>) -> Kept {
        let keys = AwsKeys { id: "k".to_owned(), secret: Secret::new("s"), session: None };
        Kept {
            credentials: Some(Credentials { keys: Rc::new(keys), expires_at: end.map(at) }),
            failed: failed.map(|seconds| (at(seconds), "why".to_owned())),
        }
    }

    fn check(kept: &Kept, now: i64, expected: Option<Result<&str, &str>>) {
        let answer = kept.without_fetching(at(now));
        let answer = answer.map(|answer| answer.map(|keys| keys.id.clone()));
        assert_eq!(answer, expected.map(|r| r.map(str::to_owned).map_err(str::to_owned)), "at {now}");
    }

    #[test]
    fn keys_are_kept_until_shortly_before_their_end() {
        check(&kept(None, None), i64::MAX / SECOND, Some(Ok("k")));
        check(&kept(Some(1_000), None), 699, Some(Ok("k")));
        check(&kept(Some(1_000), None), 700, None);
        check(&Kept::default(), 0, None);
    }

    #[test]
    fn after_a_failure_valid_keys_serve_on_and_nobody_tries_for_a_while() {
        check(&kept(Some(1_000), Some(800)), 804, Some(Ok("k")));
        check(&kept(Some(1_000), Some(800)), 805, None);
        check(&kept(Some(1_000), Some(999)), 1_000, Some(Err("why")));
        check(&kept(Some(1_000), Some(999)), 990, None);
    }
}
